"""Boxes of faces and pictures with them: what the makers of training pictures pass on to each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import Image

Window = tuple[float, float, float, float]
"""left, top, right, bottom in pixels."""
WHOLE = 0.5
"""A mask of which this part is seen counts as seen."""


class Box(NamedTuple):
    """A face, in pixels of its picture, that wears a mask or none; `hidden` where another covers much of it."""

    mask: bool
    left: float
    top: float
    right: float
    bottom: float
    hidden: bool = False

    @property
    def window(self) -> Window:
        """The corners alone."""
        return self.left, self.top, self.right, self.bottom

    @property
    def width(self) -> float:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """In pixels."""
        return self.bottom - self.top


@dataclass(frozen=True)
class Picture:
    """A square picture with the faces whose places are known.

    `known`: there is no mask elsewhere; else there may be, since only the label of the whole picture is known.
    """

    image: Image.Image
    boxes: Sequence[Box] = field(default=())
    known: bool = True

    @property
    def side(self) -> int:
        """In pixels."""
        return self.image.width

    @property
    def shows_mask(self) -> bool:
        """Whether any masked face is seen by at least half."""
        frame = (0.0, 0.0, float(self.side), float(self.side))
        return any(box.mask and not box.hidden and measure_seen(box.window, frame) >= WHOLE for box in self.boxes)


def measure_seen(part: Window, window: Window) -> float:
    """The part, 0..1, of the area of `part` that lies inside `window`."""
    width = max(0.0, min(part[2], window[2]) - max(part[0], window[0]))
    height = max(0.0, min(part[3], window[3]) - max(part[1], window[1]))
    return width * height / max(1e-6, (part[2] - part[0]) * (part[3] - part[1]))


def grow_window(window: Window, part: float) -> Window:
    """The window with `part` of its width and height more on each side."""
    width, height = window[2] - window[0], window[3] - window[1]
    return (
        window[0] - part * width, window[1] - part * height, window[2] + part * width, window[3] + part * height
    )  # fmt: skip


def cut_window(picture: Picture, window: Window, side: int) -> Picture:
    """The part of `picture` in `window`, squished to a square of `side` pixels, with the boxes that it shows."""
    boxes = [move_box(box, window, side, side) for box in picture.boxes if measure_seen(box.window, window) > 0]
    return Picture(picture.image.resize((side, side), Image.Resampling.BILINEAR, box=window), boxes, picture.known)


def move_box(box: Box, window: Window, width: float, height: float) -> Box:
    """The box in the coordinates of `window`, scaled to `width` and `height` pixels."""
    x, y = width / (window[2] - window[0]), height / (window[3] - window[1])
    left, top, right, bottom = box.window
    return box._replace(
        left=(left - window[0]) * x, top=(top - window[1]) * y, right=(right - window[0]) * x,
        bottom=(bottom - window[1]) * y,
    )  # fmt: skip


def mirror_picture(picture: Picture) -> Picture:
    """The picture turned left to right, its boxes with it."""
    boxes = [box._replace(left=picture.side - box.right, right=picture.side - box.left) for box in picture.boxes]
    return Picture(picture.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), boxes, picture.known)
