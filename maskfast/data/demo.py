"""A drawn data set: a folder and a seed go in, faces with and without masks in the challenge's layout come out."""

import io
import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from maskfast.core.files import refuse_foreign_folder, replace_folder, write_whole

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

SIDE = 128
"""Pixels a side of a finished picture."""
_DRAWN = 2 * SIDE
"""Pixels a side that are drawn before smoothing."""
TEST_PART = 0.25
"""The part of the pictures whose labels stand in truth.csv only."""

SKINS: Sequence[Colour] = (
    (255, 224, 196),
    (241, 194, 150),
    (224, 172, 125),
    (198, 134, 88),
    (141, 85, 50),
    (92, 56, 34),
)
HAIRS: Sequence[Colour] = ((25, 20, 18), (60, 40, 25), (110, 70, 35), (190, 150, 90), (120, 120, 125), (140, 60, 30))
MASKS: Sequence[Colour] = (
    (120, 180, 220),
    (240, 245, 248),
    (35, 35, 40),
    (120, 190, 160),
    (230, 150, 170),
    (90, 90, 160),
)
BEARDS = HAIRS[:4]


class Face(NamedTuple):
    """Where a face lies on the canvas: its middle, the half axes of its oval, and how it is turned."""

    x: float
    y: float
    width: float
    height: float
    tilt: float
    """Radians, clockwise."""
    yaw: float
    """-1 to 1: how far the features are shifted to a side."""

    def at(self, across: float, down: float) -> Point:
        """Return the canvas point at parts of the half axes from the middle; features follow the yaw."""
        dx, dy = across * self.width, down * self.height
        return (
            self.x + dx * math.cos(self.tilt) - dy * math.sin(self.tilt),
            self.y + dx * math.sin(self.tilt) + dy * math.cos(self.tilt),
        )


def draw_demo(folder: str | os.PathLike[str], *, count: int = 640, seed: int = 0) -> Path:
    """Draw `count` pictures into a new `folder` and return it; an earlier demo of that name is replaced.

    The folder holds images/, train_labels.csv, sample_submission.csv (a quarter of the pictures) and truth.csv, which
    has the labels of that quarter. The same seed draws the same bytes. Half of the pictures show a mask; beards and
    scarves are on faces of both kinds.
    """
    refuse_foreign_folder(folder, "a demo", _list_demo_files)
    chance = random.Random(seed)
    labels = [index % 2 for index in range(count)]
    chance.shuffle(labels)
    rows = [(f"{index:04d}.jpg", label) for index, label in enumerate(labels)]
    with replace_folder(folder) as temporary:
        (temporary / "images").mkdir()
        for number, (name, label) in enumerate(rows):
            (temporary / "images" / name).write_bytes(_encode(draw_face(seed * 1_000_003 + number, masked=bool(label))))
        _write_tables(temporary, rows)
    return Path(folder)


def _list_demo_files(folder: Path) -> list[str] | None:
    own = ["images/[0-9]*.jpg", "train_labels.csv", "sample_submission.csv", "truth.csv"]
    return own if (folder / "truth.csv").is_file() else None


def _write_tables(folder: Path, rows: Sequence[tuple[str, int]]) -> None:
    first_test = len(rows) - round(len(rows) * TEST_PART)
    tables = {
        "train_labels.csv": rows[:first_test],
        "truth.csv": rows[first_test:],
        "sample_submission.csv": [(name, 0) for name, _ in rows[first_test:]],
    }
    for table, content in tables.items():
        write_whole(folder / table, "image,target\n" + "".join(f"{name},{label}\n" for name, label in content))


def _encode(img: "Image.Image") -> bytes:
    stream = io.BytesIO()
    img.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def draw_face(seed: int, *, masked: bool) -> "Image.Image":
    """Return a picture of 128 x 128 pixels, RGB, of one person."""
    from PIL import Image, ImageDraw

    chance = random.Random(seed)
    img = Image.new("RGB", (_DRAWN, _DRAWN))
    draw = ImageDraw.Draw(img)
    _draw_background(img, draw, chance)
    face = _place_face(chance)
    skin, hair = chance.choice(SKINS), chance.choice(HAIRS)
    _draw_body(draw, face, skin, chance)
    _draw_head(draw, face, skin, hair, chance)
    _draw_features(draw, face, skin, chance)
    if chance.random() < 0.3:
        _draw_beard(draw, face, chance)
    if chance.random() < 0.3:
        _draw_scarf(draw, face, chance)
    if masked:
        _draw_mask(draw, face, chance)
    return _light(img, chance).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _place_face(chance: random.Random) -> Face:
    height = chance.uniform(0.24, 0.36) * _DRAWN
    return Face(
        x=_DRAWN * chance.uniform(0.4, 0.6),
        y=_DRAWN * chance.uniform(0.4, 0.52),
        width=height * chance.uniform(0.7, 0.85),
        height=height,
        tilt=math.radians(chance.uniform(-18, 18)),
        yaw=chance.uniform(-0.2, 0.2),
    )


def _pick(chance: random.Random) -> Colour:
    return chance.randrange(256), chance.randrange(256), chance.randrange(256)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(part * factor)) for part in colour)
    return red, green, blue


def _draw_background(img: "Image.Image", draw: "ImageDraw.ImageDraw", chance: random.Random) -> None:
    from PIL import Image, ImageOps

    ramp = Image.linear_gradient("L").rotate(chance.choice([0, 90, 180, 270])).resize(img.size)
    img.paste(ImageOps.colorize(ramp, _pick(chance), _pick(chance)))
    for _ in range(chance.randrange(7)):
        x, y, size = chance.uniform(0, _DRAWN), chance.uniform(0, _DRAWN), chance.uniform(10, 70)
        shape = chance.choice([draw.ellipse, draw.rectangle])
        shape((x, y, x + size, y + size * chance.uniform(0.4, 2)), fill=_pick(chance))


def _oval(face: Face, across: float, down: float, width: float, height: float) -> list[Point]:
    turns = [math.tau * step / 40 for step in range(40)]
    return [face.at(across + width * math.cos(turn), down + height * math.sin(turn)) for turn in turns]


def _draw_body(draw: "ImageDraw.ImageDraw", face: Face, skin: Colour, chance: random.Random) -> None:
    shirt = _pick(chance)
    draw.polygon(
        [face.at(-0.42, 0.6), face.at(0.42, 0.6), face.at(0.45, 1.6), face.at(-0.45, 1.6)], fill=_shade(skin, 0.85)
    )
    draw.ellipse(
        (face.x - 2.1 * face.width, face.y + 1.3 * face.height, face.x + 2.1 * face.width, 2 * _DRAWN), fill=shirt
    )


def _draw_head(draw: "ImageDraw.ImageDraw", face: Face, skin: Colour, hair: Colour, chance: random.Random) -> None:
    if chance.random() < 0.4:
        draw.polygon(_oval(face, 0, 0.15, 1.2, 1.15), fill=hair)
    draw.polygon(_oval(face, 0, -0.25, 1.08, 0.95), fill=hair)
    for side in (-1, 1):
        draw.polygon(_oval(face, side, 0.02, 0.13, 0.2), fill=_shade(skin, 0.92))
    draw.polygon(_oval(face, 0, 0, 1, 1), fill=skin)
    fringe = chance.uniform(-0.75, -0.5)
    top = [point for point in _oval(face, 0, 0, 1.02, 1.02) if _is_above(face, point, fringe)]
    if len(top) > 2:
        draw.polygon(top, fill=hair)


def _is_above(face: Face, point: Point, down: float) -> bool:
    dx, dy = point[0] - face.x, point[1] - face.y
    return (dy * math.cos(face.tilt) - dx * math.sin(face.tilt)) / face.height < down


def _draw_features(draw: "ImageDraw.ImageDraw", face: Face, skin: Colour, chance: random.Random) -> None:
    glasses = chance.random() < 0.25
    iris = chance.choice([(60, 40, 20), (40, 80, 120), (50, 90, 60), (20, 20, 20)])
    for side in (-1, 1):
        across = side * 0.38 + face.yaw
        draw.polygon(_oval(face, across, -0.15, 0.17, 0.09), fill=(245, 245, 245))
        draw.polygon(_oval(face, across, -0.15, 0.08, 0.08), fill=iris)
        draw.line([face.at(across - 0.2, -0.33), face.at(across + 0.2, -0.33)], fill=_shade(skin, 0.4), width=4)
        if glasses:
            rim = _oval(face, across, -0.15, 0.25, 0.17)
            draw.line([*rim, rim[0]], fill=(20, 20, 20), width=3)
    nose = face.yaw * 1.3
    draw.line(
        [face.at(nose, -0.1), face.at(nose + 0.1, 0.22), face.at(nose - 0.08, 0.24)], fill=_shade(skin, 0.7), width=4
    )
    lips = (max(40, skin[0] - 50), skin[1] // 2, skin[2] // 2)
    draw.polygon(_oval(face, face.yaw, 0.5, chance.uniform(0.22, 0.36), chance.uniform(0.05, 0.13)), fill=lips)


def _draw_beard(draw: "ImageDraw.ImageDraw", face: Face, chance: random.Random) -> None:
    colour = chance.choice(BEARDS)
    outer = [face.at(math.cos(turn) * 0.97, math.sin(turn) * 1.06) for turn in _arc(0.12, math.pi - 0.12)]
    inner = [
        face.at(face.yaw + math.cos(turn) * 0.5, 0.42 + math.sin(turn) * 0.22) for turn in _arc(math.pi + 0.4, -0.4)
    ]
    draw.polygon([*outer, *inner], fill=colour)


def _arc(start: float, stop: float) -> list[float]:
    return [start + (stop - start) * step / 24 for step in range(25)]


def _draw_scarf(draw: "ImageDraw.ImageDraw", face: Face, chance: random.Random) -> None:
    colour, stripe = _pick(chance), _pick(chance)
    top = chance.uniform(0.85, 1.0)
    draw.polygon(
        [face.at(-0.95, top), face.at(0, top + 0.12), face.at(0.95, top), face.at(1.1, 1.7), face.at(-1.1, 1.7)],
        fill=colour,
    )
    for step in range(5):
        across = -0.8 + 0.4 * step
        draw.line([face.at(across, top + 0.1), face.at(across + 0.15, 1.65)], fill=stripe, width=5)


def _draw_mask(draw: "ImageDraw.ImageDraw", face: Face, chance: random.Random) -> None:
    colour = chance.choice(MASKS)
    top, yaw = chance.uniform(-0.02, 0.1), face.yaw * 0.6
    outline = [
        face.at(-0.86, top + 0.12), face.at(yaw - 0.3, top), face.at(yaw, top - 0.07), face.at(yaw + 0.3, top),
        face.at(0.86, top + 0.12), face.at(0.78, 0.62), face.at(yaw + 0.35, 1.0), face.at(yaw - 0.35, 1.0),
        face.at(-0.78, 0.62),
    ]  # fmt: skip
    for side in (-1, 1):
        draw.line([face.at(side * 0.84, top + 0.14), face.at(side * 1.02, -0.12)], fill=(235, 235, 235), width=3)
        draw.line([face.at(side * 0.76, 0.6), face.at(side * 1.02, 0.15)], fill=(235, 235, 235), width=3)
    draw.polygon(outline, fill=colour, outline=_shade(colour, 0.75))
    for down in (0.3, 0.47, 0.64) if chance.random() < 0.7 else ():
        draw.line(
            [face.at(-0.7, down), face.at(yaw, down + 0.05), face.at(0.7, down)], fill=_shade(colour, 0.8), width=3
        )
    if chance.random() < 0.1:
        spot = _pick(chance)
        for across, down in ((-0.4, 0.35), (0.1, 0.5), (0.45, 0.3), (-0.1, 0.8)):
            draw.polygon(_oval(face, across, down, 0.1, 0.08), fill=spot)


def _light(img: "Image.Image", chance: random.Random) -> "Image.Image":
    from PIL import Image, ImageEnhance, ImageFilter

    ramp = Image.linear_gradient("L").rotate(chance.choice([0, 90, 180, 270])).resize(img.size)
    dimmed = ImageEnhance.Brightness(img).enhance(chance.uniform(0.6, 0.95))
    img = Image.composite(img, dimmed, ramp)
    img = ImageEnhance.Contrast(img).enhance(chance.uniform(0.8, 1.25))
    img = ImageEnhance.Color(img).enhance(0.0 if chance.random() < 0.04 else chance.uniform(0.7, 1.2))
    return img.filter(ImageFilter.GaussianBlur(chance.choice([0, 0, 1, 2])))
