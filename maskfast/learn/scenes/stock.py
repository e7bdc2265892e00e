"""Training rows of the items table flow in, what scenes are made from flows out: scenes, plain pictures and faces."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from maskfast.core.errors import ConfigError, ImageError
from maskfast.core.image import read_header
from maskfast.learn.scenes.shapes import Box, Picture, Window, grow_window, measure_seen

CLOSE_UP_PIXELS = 260
"""Small, nearly square photos of the web are cut around one face: up to so many pixels a side."""
CLOSE_UP_RATIO = 1.33
LEAST_FACE = 0.09
"""Faces of at least this part of their picture's side are large enough to be pasted elsewhere."""
FACE_MARGIN = 0.1
FACE_PART = (1 / 12, 1 / 12, 11 / 12, 11 / 12)
"""Where the box lies in a face that was cut with that margin."""
CLOSE_UP_MASK = (0.07, 0.4, 0.93, 0.9)
"""Where a close-up that is labelled mask is taken to have it: the lower middle, in parts of the side."""

Read = Callable[[str], NDArray[np.uint8]]


@dataclass(frozen=True)
class Source:
    """One picture of the stock: its file and its faces (pixels of the square as `Read` gives it)."""

    path: str
    boxes: tuple[Box, ...] = ()
    known: bool = True
    close_up: bool = False


@dataclass(frozen=True)
class Face:
    """A face that can be pasted: where it is cut from, and what part of that its box is."""

    path: str
    window: Window
    part: Window


@dataclass(frozen=True)
class Stock:
    """What training pictures are made from; `plain` and `faces` by class, 0 without and 1 with a mask."""

    read: Read
    side: int
    masked: list[Source] = field(default_factory=list)
    maskless: list[Source] = field(default_factory=list)
    plain: tuple[list[Source], list[Source]] = field(default_factory=lambda: ([], []))
    faces: tuple[list[Face], list[Face]] = field(default_factory=lambda: ([], []))

    @property
    def scenes(self) -> list[Source]:
        """All annotated scenes."""
        return self.masked + self.maskless

    def open(self, source: Source) -> Picture:
        """The picture of a source, with its faces."""
        return Picture(Image.fromarray(self.read(source.path)), source.boxes, source.known)

    def cut(self, face: Face) -> Image.Image:
        """The pixels of a face."""
        window = tuple(round(min(max(corner, 0), self.side)) for corner in face.window)
        return Image.fromarray(self.read(face.path)).crop(window)  # type: ignore[arg-type]


def gather_stock(items: pd.DataFrame, read: Read, side: int) -> Stock:
    """Sort the training rows of an items table (usable ones, column `boxes` where known) into a stock.

    `read` gives a file as a square of `side` pixels, squished. Raises ConfigError where there are no boxes of masks,
    or no faces without a mask: then no scene can be made.
    """
    stock = Stock(read, side)
    for row in items.itertuples(index=False):
        boxes = getattr(row, "boxes", None)
        if isinstance(boxes, list | tuple):
            _add_scene(stock, str(row.path), boxes)
        else:
            _add_plain(stock, str(row.path), int(row.label))  # type: ignore[arg-type]
    _check_stock(stock)
    return stock


def _add_scene(stock: Stock, path: str, boxes: list[tuple[float, ...]] | tuple[tuple[float, ...], ...]) -> None:
    width, height = _read_size(path)
    x, y = stock.side / width, stock.side / height
    placed = tuple(Box(bool(box[4]), box[0] * x, box[1] * y, box[2] * x, box[3] * y) for box in boxes)
    masks = [box for box in placed if box.mask]
    (stock.masked if masks else stock.maskless).append(Source(path, placed))
    for box in placed:
        window = grow_window(box.window, FACE_MARGIN)
        clean = box.mask or not any(measure_seen(mask.window, grow_window(window, 0.05)) for mask in masks)
        if clean and min(box.width, box.height) >= LEAST_FACE * stock.side:
            stock.faces[box.mask].append(Face(path, window, FACE_PART))


def _add_plain(stock: Stock, path: str, label: int) -> None:
    width, height = _read_size(path)
    near_square = 1 / CLOSE_UP_RATIO < width / height < CLOSE_UP_RATIO
    close_up = max(width, height) <= CLOSE_UP_PIXELS and near_square
    left, top, right, bottom = (part * stock.side for part in CLOSE_UP_MASK)
    box = Box(True, left, top, right, bottom)
    boxes = (box,) if label and close_up else ()
    stock.plain[label].append(Source(path, boxes, known=not label, close_up=close_up))
    if close_up:
        stock.faces[label].append(Face(path, (0.0, 0.0, float(stock.side), float(stock.side)), CLOSE_UP_MASK))


def _read_size(path: str) -> tuple[int, int]:
    try:
        header = read_header(path)
    except ImageError as error:
        raise ConfigError(f"{path}: can't be read any more ({error.reason}); start the training again") from error
    return header.width, header.height


def _check_stock(stock: Stock) -> None:
    if not stock.masked:
        raise ConfigError(
            "scenes: none of the data has boxes of masked faces; add a boxes set (a CSV or Pascal VOC of faces), "
            "or leave --scenes out"
        )
    if not stock.faces[0] or not stock.faces[1]:
        missing = "without a mask" if not stock.faces[0] else "with a mask"
        raise ConfigError(
            f"scenes: no face {missing} is large enough to be pasted (boxes of {LEAST_FACE:.0%} of the side, or "
            f"close-ups up to {CLOSE_UP_PIXELS} pixels); add such pictures, or leave --scenes out"
        )
