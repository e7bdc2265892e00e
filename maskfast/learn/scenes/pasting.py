"""Faces are laid over places of a picture, softly at the rim and wholly inside."""

import random
from functools import cache

import numpy as np
from PIL import Image

from maskfast.learn.scenes.shapes import Window, grow_window

SOFT, HARD = 0.25, 0.08
"""Width of the rim that is blended, in parts of the half side."""
COVERING = {SOFT: (0.26, 0.4), HARD: (0.12, 0.3)}
"""How much larger than a box a face must be, on each side, so that its rim lies wholly outside the box."""
POWER = 6.0
"""Of the superellipse |x|^p + |y|^p = 1 that the pasted face fills."""


def cover_box(image: Image.Image, face: Image.Image, box: Window, rng: random.Random) -> Window:
    """Paste `face` so that nothing of what was in `box` stays to be seen; return the window that it fills."""
    rim = SOFT if rng.random() < 0.7 else HARD
    window = grow_window(box, rng.uniform(*COVERING[rim]))
    return paste_face(image, face, window, rng, rim=rim)


def paste_face(
    image: Image.Image, face: Image.Image, window: Window, rng: random.Random, *, rim: float = HARD, tone: bool = True
) -> Window:
    """Paste `face`, mirrored or not, into `window` of `image` in place; return the window in whole pixels.

    `tone` moves its mean colour towards that of what was there.
    """
    left, top, right, bottom = (round(corner) for corner in window)
    size = max(4, right - left), max(4, bottom - top)
    face = face.resize(size, Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        face = face.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if tone:
        face = _match_tone(face, image.crop((left, top, left + size[0], top + size[1])), rng.uniform(0.2, 0.8))
    image.paste(face, (left, top), _draw_alpha(rim).resize(size))
    return float(left), float(top), float(left + size[0]), float(top + size[1])


def _match_tone(face: Image.Image, below: Image.Image, part: float) -> Image.Image:
    pixels, under = np.asarray(face, np.float32), np.asarray(below, np.float32)
    moved = pixels + part * (under.mean((0, 1)) - pixels.mean((0, 1)))
    return Image.fromarray(moved.clip(0, 255).astype(np.uint8))


@cache
def _draw_alpha(rim: float) -> Image.Image:
    y, x = np.abs(np.mgrid[:64, :64] / 31.5 - 1)
    distance = (x**POWER + y**POWER) ** (1 / POWER)
    return Image.fromarray((((1 - distance) / rim).clip(0, 1) * 255).astype(np.uint8))
