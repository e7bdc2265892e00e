"""Labelled pictures and boxed faces flow in, made training pictures flow out: whole scenes with and without a mask.

Real sets of boxed faces hold hardly any scene without a mask, so that what learns from them says mask too readily.
Here such scenes are made: masked faces covered by maskless ones, windows that leave every mask out, faces set into
scenes, mosaics. Every draw comes from the generator given, so that a number stands for a picture.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MASK, FREE = 1, 0
SHARES = {"close": 0.36, "window": 0.22, "whole": 0.08, "covered": 0.16, "inset": 0.09, "mosaic": 0.09}
"""How often each kind of picture is made; found on held-out scenes and held-out close pictures together."""
GRIDS = ((2, 2), (2, 1), (1, 2), (3, 2), (2, 3), (3, 3))
SMALL_FACE, TIGHT_SIDE = 36, 260
"""Pixels: boxes from this side on are cut out as faces; pictures up to this side show one face closely."""
LOWER_MIDDLE = (0.2, 0.5, 0.8, 0.85)
"""Where the mask is in a picture of one masked face, in parts of its sides."""


class Box(NamedTuple):
    """A face in a picture, in pixels; `only` says that nothing is known about the places outside."""

    kind: int
    x0: float
    y0: float
    x1: float
    y1: float
    only: bool = False

    def moved(self, x: float, y: float, scale_x: float = 1.0, scale_y: float = 1.0) -> "Box":
        """The box after its picture was shifted by x, y and then scaled."""
        corners = ((self.x0 + x) * scale_x, (self.y0 + y) * scale_y, (self.x1 + x) * scale_x, (self.y1 + y) * scale_y)
        return Box(self.kind, *corners, self.only)

    def share_in(self, window: tuple[float, float, float, float]) -> float:
        """The part of the box that lies in a window (x0, y0, x1, y1)."""
        width = max(0.0, min(self.x1, window[2]) - max(self.x0, window[0]))
        height = max(0.0, min(self.y1, window[3]) - max(self.y0, window[1]))
        return width * height / max(1e-6, (self.x1 - self.x0) * (self.y1 - self.y0))


@dataclass(frozen=True)
class Scene:
    """A square picture with its label; `boxes` is None where faces are not known."""

    image: Image.Image
    label: int
    boxes: tuple[Box, ...] | None


@dataclass
class Stock:
    """What pictures are made of."""

    side: int
    close: dict[int, list[Scene]] = field(default_factory=lambda: {MASK: [], FREE: []})
    boxed: dict[int, list[Scene]] = field(default_factory=lambda: {MASK: [], FREE: []})
    faces: dict[int, list[Image.Image]] = field(default_factory=lambda: {MASK: [], FREE: []})

    def add(self, image: Image.Image, label: int, boxes: Sequence[Box] | None, original: tuple[int, int]) -> None:
        """Add a picture scaled to the stock's side; `original` is its width and height as it was found."""
        if boxes:
            scene = Scene(image, label, tuple(boxes))
            self.boxed[label].append(scene)
            for box in boxes:
                if min(box.x1 - box.x0, box.y1 - box.y0) >= SMALL_FACE:
                    self.faces[box.kind].append(image.crop(_grow(box, 0.1, self.side)))
            return
        tight = max(original) <= TIGHT_SIDE and 0.75 < original[0] / original[1] < 1.33
        x0, y0, x1, y1 = (part * self.side for part in LOWER_MIDDLE)
        known = (Box(MASK, x0, y0, x1, y1, only=True),) if tight and label else None
        self.close[label].append(Scene(image, label, () if not label else known))
        if tight:
            self.faces[label].append(image)

    def kinds(self) -> dict[str, float]:
        """The kinds of pictures that can be made of it, with their shares."""
        able = {"close": all(self.close.values()), "whole": all(self.boxed.values())}
        boxed = bool(self.boxed[MASK] and self.close[FREE] and all(self.faces.values()))
        return {kind: share for kind, share in SHARES.items() if able.get(kind, boxed)}


class SceneMaker:
    """Makes pictures of a stock, each from a generator of its own."""

    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        self.shares = stock.kinds()

    def make(self, size: int, seed: int) -> Scene:
        """Make the picture (size, size) that `seed` stands for, with its label and the boxes of its faces."""
        rng = random.Random(seed)
        kind = rng.choices(list(self.shares), list(self.shares.values()))[0]
        scene: Scene = getattr(self, f"_make_{kind}")(size, rng.randrange(2), rng)
        return _mirror(scene, size) if rng.random() < 0.5 else scene

    def _make_close(self, size: int, label: int, rng: random.Random) -> Scene:
        side, scene = self.stock.side, rng.choice(self.stock.close[label])
        width, height = (side, side) if rng.random() < 0.3 else _draw_sides(rng, side, 0.8, 1.0, 0.15)
        x, y = rng.uniform(0, side - width), rng.uniform(0, side - height)
        return _cut(scene, (x, y, x + width, y + height), size, label)

    def _make_window(self, size: int, label: int, rng: random.Random) -> Scene:
        if not label:
            return self._make_maskless(size, rng)
        whole = (0.0, 0.0, float(self.stock.side), float(self.stock.side))
        scene = rng.choice(self.stock.boxed[MASK])
        window = draw_window(scene.boxes or (), MASK, self.stock.side, rng, aimed=0.5) if rng.random() < 0.7 else None
        return _cut(scene, window or whole, size, MASK)

    def _make_whole(self, size: int, label: int, rng: random.Random) -> Scene:
        side = float(self.stock.side)
        return _cut(rng.choice(self.stock.boxed[label]), (0.0, 0.0, side, side), size, label)

    def _make_maskless(self, size: int, rng: random.Random) -> Scene:
        """A window of a real scene that leaves every mask out, or a close picture without one."""
        for _ in range(20):
            scenes = self.stock.boxed[MASK] + self.stock.boxed[FREE]
            scene = rng.choice(scenes if rng.random() < 0.8 else self.stock.boxed[FREE] or scenes)
            window = draw_window(scene.boxes or (), FREE, self.stock.side, rng, aimed=rng.choice((0.0, 0.8)))
            if window:
                return _cut(scene, window, size, FREE)
        return self._make_close(size, FREE, rng)

    def _make_covered(self, size: int, label: int, rng: random.Random) -> Scene:
        """A scene whose masked faces are covered by maskless ones; with `label`, at least one keeps or gets a mask."""
        scene = rng.choice(self.stock.boxed[MASK])
        image, boxes = scene.image.copy(), list(scene.boxes or ())
        kept, faces = rng.randrange(len(boxes)), []
        for number, box in enumerate(boxes):
            kind = (MASK if number == kept else rng.choice((MASK, FREE, FREE))) if label else FREE
            if box.kind != kind or rng.random() < 0.3:
                place = _grow(box, rng.uniform(0.15, 0.35), None)
                _paste(image, rng.choice(self.stock.faces[kind]), place, rng, tone=True)
            faces.append(box._replace(kind=kind))
        side = self.stock.side
        window = draw_window(faces, label, side, rng, smallest=0.5) or (0.0, 0.0, float(side), float(side))
        made = _cut(Scene(image, label, tuple(faces)), window, size, label)
        seen = any(box.kind == MASK and box.share_in((0, 0, size, size)) > 0.5 for box in made.boxes or ())
        return Scene(made.image, int(seen), made.boxes)

    def _make_inset(self, size: int, label: int, rng: random.Random) -> Scene:
        """Close pictures scaled down into a scene without masks."""
        ground = self._make_maskless(size, rng)
        image, boxes = ground.image.copy(), list(ground.boxes or ())
        count = rng.choice((1, 1, 2, 3))
        masked = [int(bool(label) and (number == 0 or rng.random() < 0.3)) for number in range(count)]
        for kind in sorted(masked):  # masked faces last, so that none is half hidden
            width = size * rng.uniform(0.12, 0.5)
            height = width * math.exp(rng.uniform(-0.2, 0.2))
            x, y = rng.uniform(0, size - width), rng.uniform(0, max(1.0, size - height))
            place = (x, y, x + width, y + height)
            close = rng.random() < 0.7
            _paste(image, rng.choice(self.stock.close[kind]).image if close else rng.choice(self.stock.faces[kind]),
                   place, rng, tone=rng.random() < 0.5)  # fmt: skip
            boxes = [box for box in boxes if box.share_in(place) < 0.4]
            boxes.append(_inner(kind, x, y, width, height))
        return Scene(image, int(any(box.kind == MASK for box in boxes)), tuple(boxes))

    def _make_mosaic(self, size: int, label: int, rng: random.Random) -> Scene:
        """A grid of close pictures and windows."""
        rows, columns = rng.choice(GRIDS)
        image, boxes = Image.new("RGB", (size, size)), list[Box]()
        masked = rng.randrange(rows * columns)
        for tile in range(rows * columns):
            row, column = divmod(tile, columns)
            x0, y0 = column * size // columns, row * size // rows
            width, height = (column + 1) * size // columns - x0, (row + 1) * size // rows - y0
            kind = int(bool(label) and (tile == masked or rng.random() < 0.15))
            scene = self._make_tile(max(width, height), kind, rng)
            image.paste(scene.image.resize((width, height), Image.Resampling.BILINEAR), (x0, y0))
            scale = (width / max(width, height), height / max(width, height))
            boxes += [box.moved(0, 0, *scale).moved(x0, y0) for box in scene.boxes or ()]
        return Scene(image, label, tuple(boxes))

    def _make_tile(self, side: int, kind: int, rng: random.Random) -> Scene:
        if rng.random() < 0.6:
            scene = self._make_close(side, kind, rng)
            return Scene(scene.image, kind, (_inner(MASK, 0, 0, side, side),) if kind else ())
        return self._make_window(side, kind, rng)


def draw_window(
    boxes: Sequence[Box], label: int, side: int, rng: random.Random, *, smallest: float = 0.35, aimed: float = 0.7
) -> tuple[float, float, float, float] | None:
    """Draw a window whose visible masks agree with `label` and cut no mask in half; None where 30 draws find none.

    `smallest`: its least part of the side; `aimed`: how often it is drawn around a face of the wanted kind.
    """
    wanted = [box for box in boxes if box.kind == label]
    for attempt in range(30):
        low, high = (smallest, 1.0) if label or attempt < 10 else (0.2, 0.8)
        width, height = _draw_sides(rng, side, low, high, 0.25)
        x, y = rng.uniform(0, side - width), rng.uniform(0, side - height)
        if wanted and rng.random() < aimed:
            box = rng.choice(wanted)
            middle_x = (box.x0 + box.x1) / 2 + rng.uniform(-0.4, 0.4) * width
            middle_y = (box.y0 + box.y1) / 2 + rng.uniform(-0.4, 0.4) * height
            x, y = (
                min(max(0.0, middle_x - width / 2), side - width),
                min(max(0.0, middle_y - height / 2), side - height),
            )
        window = (x, y, x + width, y + height)
        seen = [box.share_in(window) for box in boxes if box.kind == MASK]
        if any(0.15 < share < 0.75 for share in seen):
            continue
        if label and any(share >= 0.75 for share in seen):
            return window
        if not label and all(share <= 0.02 for share in seen):
            return window
    return None


def mark_places(scene: Scene, size: int, stride: int) -> NDArray[np.float32]:
    """What is known of each place of the score map: 1 a mask, 0 none, -1 unknown; (size/stride, size/stride)."""
    count = size // stride
    places = np.zeros((count, count), np.float32)
    if scene.boxes is None:
        return places - 1
    middle: NDArray[np.float64] = (np.arange(count, dtype=np.float64) + 0.5) * stride
    if any(box.only for box in scene.boxes):
        places -= 1
    masks = [box for box in scene.boxes if box.kind == MASK]
    for box in masks:
        margin_x, margin_y = (box.x1 - box.x0) / 2 + 0.75 * stride, (box.y1 - box.y0) / 2 + 0.75 * stride
        if not box.only:
            _fill(places, middle, (box.x0 - margin_x, box.y0 - margin_y, box.x1 + margin_x, box.y1 + margin_y), -1.0)
    for box in masks:
        width, height = box.x1 - box.x0, box.y1 - box.y0
        row, column = int((box.y0 + box.y1) / 2 / stride), int((box.x0 + box.x1) / 2 / stride)
        places[min(count - 1, max(0, row)), min(count - 1, max(0, column))] = 1.0
        inner = (box.x0 + 0.15 * width, box.y0 + 0.2 * height, box.x1 - 0.15 * width, box.y1 - 0.1 * height)
        _fill(places, middle, inner, 1.0)
    return places


def _fill(places: NDArray[np.float32], middle: NDArray[np.float64], box: tuple[float, ...], value: float) -> None:
    rows, columns = (middle > box[1]) & (middle < box[3]), (middle > box[0]) & (middle < box[2])
    places[np.ix_(rows, columns)] = value


def _draw_sides(rng: random.Random, side: int, low: float, high: float, uneven: float) -> tuple[float, float]:
    scale, ratio = rng.uniform(low, high), math.exp(rng.uniform(-uneven, uneven))
    return min(side, side * scale * ratio), min(side, side * scale / ratio)


def _cut(scene: Scene, window: tuple[float, float, float, float], size: int, label: int) -> Scene:
    image = scene.image.resize((size, size), Image.Resampling.BILINEAR, box=window)
    if scene.boxes is None:
        return Scene(image, label, None)
    scale = size / (window[2] - window[0]), size / (window[3] - window[1])
    seen = [box for box in scene.boxes if box.share_in(window) > 0.15]
    return Scene(image, label, tuple(box.moved(-window[0], -window[1], *scale) for box in seen))


def _mirror(scene: Scene, size: int) -> Scene:
    boxes = scene.boxes
    if boxes is not None:
        boxes = tuple(box._replace(x0=size - box.x1, x1=size - box.x0) for box in boxes)
    return Scene(scene.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), scene.label, boxes)


def _grow(box: Box, part: float, side: int | None) -> tuple[float, float, float, float]:
    width, height = part * (box.x1 - box.x0), part * (box.y1 - box.y0)
    grown = (box.x0 - width, box.y0 - height, box.x1 + width, box.y1 + height)
    if side is None:
        return grown
    left, top, right, bottom = (min(max(0.0, value), float(side)) for value in grown)
    return left, top, right, bottom


def _inner(kind: int, x: float, y: float, width: float, height: float) -> Box:
    return Box(kind, x + 0.2 * width, y + 0.2 * height, x + 0.8 * width, y + 0.8 * height)


def _paste(image: Image.Image, face: Image.Image, place: tuple[float, ...], rng: random.Random, *, tone: bool) -> None:
    """Lay a face softly over a place of the image, its colours moved towards what was there."""
    x0, y0, x1, y1 = (round(value) for value in place)
    width, height = max(4, x1 - x0), max(4, y1 - y0)
    face = face.resize((width, height), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        face = face.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if tone:
        below = np.asarray(image.crop((x0, y0, x0 + width, y0 + height)), np.float32)
        pixels, amount = np.asarray(face, np.float32), rng.uniform(0.2, 0.8)
        moved = pixels + amount * (below.mean((0, 1)) - pixels.mean((0, 1)))
        face = Image.fromarray(np.clip(moved, 0, 255).astype(np.uint8))
    image.paste(face, (x0, y0), _make_edge(soft=rng.random() < 0.7).resize((width, height)))


@cache
def _make_edge(*, soft: bool) -> Image.Image:
    y, x = np.mgrid[:64, :64] / 31.5 - 1
    distance = (np.abs(x) ** 2.5 + np.abs(y) ** 2.5) ** (1 / 2.5)
    return Image.fromarray((np.clip((1 - distance) / (0.25 if soft else 0.08), 0, 1) * 255).astype(np.uint8))
