"""The stock flows in, training pictures flow out: as they are, or made so that each class shows every kind of scene.

A model that sees masks only in scenes and bare faces only in close-ups learns to tell scenes from close-ups. So scenes
without a mask are made: masked faces are covered by maskless ones, windows leave every mask out, close-ups are laid
into scenes and tiled. Every way makes pictures with a mask as well, and the label is what is to be seen at the end.
"""

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType

from PIL import Image

from maskfast.learn.scenes.pasting import cover_box, paste_face
from maskfast.learn.scenes.shapes import (
    Box,
    Picture,
    Window,
    cut_window,
    measure_seen,
    mirror_picture,
    move_box,
)
from maskfast.learn.scenes.stock import CLOSE_UP_MASK, Source, Stock
from maskfast.learn.scenes.windows import draw_near_whole, find_window

Maker = Callable[[Stock, random.Random, int, bool], Picture]
HIDDEN = 0.4
"""A face that another covers by this part does not count any more."""
TILES = ((2, 2), (2, 1), (1, 2), (3, 2), (2, 3), (3, 3))
PLAIN_FACE = (0.2, 0.2, 0.8, 0.8)
"""Where a plain picture that is no close-up is taken to have its face, in parts of its side."""


def make_plain(stock: Stock, rng: random.Random, side: int, mask: bool) -> Picture:
    """A plain picture, mostly cropped a little."""
    picture = stock.open(rng.choice(stock.plain[mask]))
    return cut_window(picture, _whole(picture) if rng.random() < 0.3 else draw_near_whole(picture.side, rng, 0.8), side)


def make_window(stock: Stock, rng: random.Random, side: int, mask: bool) -> Picture:
    """A window of a scene that shows a mask, or surely none."""
    if not mask:
        return _make_background(stock, rng, side)
    picture = stock.open(rng.choice(stock.masked))
    window = find_window(picture, rng, mask=True, aim=0.5) if rng.random() < 0.7 else None
    return cut_window(picture, window or _whole(picture), side)


def make_whole(stock: Stock, rng: random.Random, side: int, mask: bool) -> Picture:
    """A whole scene as it is."""
    picture = stock.open(rng.choice(stock.masked if mask else stock.maskless))
    return cut_window(picture, _whole(picture), side)


def make_swapped(stock: Stock, rng: random.Random, side: int, mask: bool) -> Picture:
    """A scene with every masked face covered by a maskless one, or with one masked face left or put in."""
    picture = _swap_faces(stock, rng, mask=mask)
    window = find_window(picture, rng, mask=mask, scales=(0.5, 1.0))
    return cut_window(picture, window or _whole(picture), side)


def make_inset(stock: Stock, rng: random.Random, side: int, mask: bool) -> Picture:
    """One to three close-ups laid into a maskless part of a scene."""
    picture = _make_background(stock, rng, side)
    image, boxes = picture.image.copy(), list(picture.boxes)
    count = rng.choice((1, 1, 2, 3))
    masked = count - 1 if mask else count  # the last, which nothing covers
    for number in range(count):
        shows = number == masked or (mask and rng.random() < 0.3)
        face, part = _draw_face(stock, rng, mask=shows)
        window = paste_face(image, face, _draw_place(rng, side), rng, tone=rng.random() < 0.5)
        boxes = [*_hide_faces(boxes, window), _mark_face(window, part, mask=shows)]
    return Picture(image, boxes)


def make_mosaic(stock: Stock, rng: random.Random, side: int, mask: bool) -> Picture:
    """Close-ups and windows of scenes side by side."""
    columns, rows = rng.choice(TILES)
    masked = rng.randrange(columns * rows) if mask else columns * rows
    image, boxes = Image.new("RGB", (side, side)), []
    for number in range(columns * rows):
        column, row = number % columns, number // columns
        left, top = column * side // columns, row * side // rows
        right, bottom = (column + 1) * side // columns, (row + 1) * side // rows
        shows = number == masked or (mask and rng.random() < 0.15)
        tile, faces = _make_tile(stock, rng, (right - left, bottom - top), mask=shows)
        image.paste(tile, (left, top))
        boxes += [move_box(face, (-left, -top, side - left, side - top), side, side) for face in faces]
    return Picture(image, boxes)


MAKERS: Mapping[str, tuple[float, Maker]] = MappingProxyType(
    {
        "plain": (0.36, make_plain),
        "window": (0.22, make_window),
        "whole": (0.08, make_whole),
        "swapped": (0.16, make_swapped),
        "inset": (0.09, make_inset),
        "mosaic": (0.09, make_mosaic),
    }
)
"""How often each way is used, and what it does; what the stock has nothing for is left out."""


def make_picture(stock: Stock, rng: random.Random, side: int) -> Picture:
    """Make one training picture of `side` pixels, with a mask or none equally often, by a way drawn from `MAKERS`."""
    able = {name: way for name, way in MAKERS.items() if _is_able(stock, name)}
    mask = rng.random() < 0.5
    _, maker = rng.choices(list(able.values()), [weight for weight, _ in able.values()])[0]
    picture = maker(stock, rng, side, mask)
    return mirror_picture(picture) if rng.random() < 0.5 else picture


def _is_able(stock: Stock, name: str) -> bool:
    if name == "plain":
        return bool(stock.plain[0] and stock.plain[1])
    return name != "whole" or bool(stock.maskless)


def _make_background(stock: Stock, rng: random.Random, side: int) -> Picture:
    """A part of a scene that shows no mask: drawn from all of them, or a covered one where none is found."""
    for _ in range(20):
        picture = stock.open(rng.choice(stock.scenes if rng.random() < 0.8 else stock.maskless or stock.scenes))
        window = find_window(picture, rng, mask=False, aim=rng.choice((0.0, 0.8)))
        if window:
            return cut_window(picture, window, side)
    covered = _swap_faces(stock, rng, mask=False)
    return cut_window(covered, _whole(covered), side)


def _cut_mask(stock: Stock, rng: random.Random, side: int) -> Picture:
    """A narrow window of a scene with a mask, so that the mask is large enough to be seen in a tile."""
    picture = stock.open(rng.choice(stock.masked))
    window = find_window(picture, rng, mask=True, scales=(0.3, 0.6), aim=1.0)
    return cut_window(picture, window or _whole(picture), side)


def _swap_faces(stock: Stock, rng: random.Random, *, mask: bool) -> Picture:
    picture = stock.open(_draw_scene(stock, rng))
    image, boxes = picture.image.copy(), list(picture.boxes)
    kept = rng.randrange(len(boxes))
    order = sorted(range(len(boxes)), key=lambda number: mask and number == kept)  # nothing covers the kept one
    seen: list[Box] = []
    for number in order:
        box, wanted = boxes[number], mask and (number == kept or rng.random() < 1 / 3)
        if box.mask != wanted or rng.random() < 0.3:
            face = rng.choice(stock.faces[wanted])
            window = cover_box(image, stock.cut(face), box.window, rng)
            seen, box = _hide_faces(seen, window), _mark_face(window, face.part, mask=wanted)
        seen.append(box)
    return Picture(image, seen)


def _draw_scene(stock: Stock, rng: random.Random) -> Source:
    others = [source for source in stock.maskless if source.boxes]
    return rng.choice(stock.masked if rng.random() < 0.85 or not others else others)


def _make_tile(stock: Stock, rng: random.Random, size: tuple[int, int], *, mask: bool) -> tuple[Image.Image, list[Box]]:
    width, height = size
    if rng.random() < 0.6:
        face, place = _draw_face(stock, rng, mask=mask)
        window = 0.0, 0.0, float(width), float(height)
        return face.resize(size, Image.Resampling.BILINEAR), [_mark_face(window, place, mask=mask)]
    part = _cut_mask(stock, rng, max(size)) if mask else _make_background(stock, rng, max(size))
    scaled = [move_box(box, _whole(part), width, height) for box in part.boxes]
    return part.image.resize(size, Image.Resampling.BILINEAR), scaled


def _draw_face(stock: Stock, rng: random.Random, *, mask: bool) -> tuple[Image.Image, Window]:
    """A plain picture or a face, and the part of it that its box is."""
    plain = stock.plain[mask]
    if plain and rng.random() < 0.7:
        source = rng.choice(plain)
        return Image.fromarray(stock.read(source.path)), CLOSE_UP_MASK if source.close_up else PLAIN_FACE
    face = rng.choice(stock.faces[mask])
    return stock.cut(face), face.part


def _draw_place(rng: random.Random, side: int) -> Window:
    width = side * rng.uniform(0.12, 0.5)
    height = min(float(side), width * 2 ** rng.uniform(-0.3, 0.3))
    left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
    return left, top, left + width, top + height


def _mark_face(window: Window, part: Window, *, mask: bool) -> Box:
    width, height = window[2] - window[0], window[3] - window[1]
    return Box(
        mask, window[0] + part[0] * width, window[1] + part[1] * height, window[0] + part[2] * width,
        window[1] + part[3] * height,
    )  # fmt: skip


def _hide_faces(boxes: list[Box], window: Window) -> list[Box]:
    return [box._replace(hidden=box.hidden or measure_seen(box.window, window) >= HIDDEN) for box in boxes]


def _whole(picture: Picture) -> Window:
    return 0.0, 0.0, float(picture.side), float(picture.side)
