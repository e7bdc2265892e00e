"""A picture with boxes and a wish flow in; a window that shows a mask, or surely none, flows out."""

import math
import random

from maskfast.learn.scenes.shapes import Box, Picture, Window, measure_seen

HALF_CUT = (0.15, 0.75)
"""A mask seen by a part between these is neither there nor not: such windows are not used."""
TRIES = 30


def find_window(
    picture: Picture, rng: random.Random, *, mask: bool, scales: tuple[float, float] = (0.35, 1.0), aim: float = 0.7
) -> Window | None:
    """Find a window that shows at least one whole mask, or (`mask` false) no part of any; None where none is found.

    `scales`: its side in parts of the picture's, from and to; after ten vain tries for no mask, 0.2 to 0.8. `aim`: how
    often it is laid around a face of the wanted kind.
    """
    for attempt in range(TRIES):
        low, high = scales if mask or attempt < 10 else (0.2, 0.8)
        window = _draw_window(picture, rng, rng.uniform(low, high), mask=mask, aim=aim)
        if is_clear(picture, window, mask=mask):
            return window
    return None


def is_clear(picture: Picture, window: Window, *, mask: bool) -> bool:
    """Whether `window` shows a mask as wished, and none half cut."""
    seen = [measure_seen(box.window, window) for box in picture.boxes if box.mask]
    if not mask:
        return not any(seen)
    return any(part >= HALF_CUT[1] for part in seen) and not any(HALF_CUT[0] < part < HALF_CUT[1] for part in seen)


def draw_near_whole(side: int, rng: random.Random, smallest: float) -> Window:
    """A window of `smallest` to 1 of the side, at any place, its sides in a ratio near 1."""
    return _place(side, rng, *_draw_sides(side, rng, rng.uniform(smallest, 1.0), 0.15))


def _draw_window(picture: Picture, rng: random.Random, scale: float, *, mask: bool, aim: float) -> Window:
    width, height = _draw_sides(picture.side, rng, scale, 0.25)
    faces = [box for box in picture.boxes if box.mask == mask]
    if faces and rng.random() < aim:
        return _place_around(picture.side, rng, rng.choice(faces), width, height)
    return _place(picture.side, rng, width, height)


def _draw_sides(side: int, rng: random.Random, scale: float, log_ratio: float) -> tuple[float, float]:
    ratio = math.exp(rng.uniform(-log_ratio, log_ratio))
    return min(float(side), side * scale * ratio), min(float(side), side * scale / ratio)


def _place(side: int, rng: random.Random, width: float, height: float) -> Window:
    left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
    return left, top, left + width, top + height


def _place_around(side: int, rng: random.Random, face: Box, width: float, height: float) -> Window:
    x = (face.left + face.right) / 2 + rng.uniform(-0.4, 0.4) * width
    y = (face.top + face.bottom) / 2 + rng.uniform(-0.4, 0.4) * height
    left, top = min(max(0.0, x - width / 2), side - width), min(max(0.0, y - height / 2), side - height)
    return left, top, left + width, top + height
