"""Drawn scenes with boxes: everything is grey but masks, whose left half is red and right half blue.

Toning, blending and scaling of grey stays grey, and the mean of a mask is grey too; so colour is where a mask is.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

COLOURED = 90
"""Difference of red and blue from which on a pixel shows a mask."""


def paint_mask(pixels: np.ndarray, left: int, top: int, right: int, bottom: int) -> None:
    middle = (left + right) // 2
    pixels[top:bottom, left:middle] = (240, 30, 30)
    pixels[top:bottom, middle:right] = (30, 30, 240)


def find_masks(image: Image.Image) -> np.ndarray:
    """Where pixels show a mask, (H, W) of bool."""
    pixels = np.asarray(image).astype(int)
    return np.abs(pixels[..., 0] - pixels[..., 2]) > COLOURED


def draw_scenes(folder: Path, *, count: int = 24, size: int = 96, seed: int = 0) -> Path:
    """Draw grey scenes of four faces in a folder with a table of boxes; in two thirds of them some wear a mask."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        pixels = np.repeat(rng.integers(90, 160, (size, size, 1), dtype=np.uint8), 3, axis=2)
        for corner in range(4):
            side = int(rng.integers(12, 24))
            left, top = (rng.integers(0, 18, 2) + 44 * np.array(divmod(corner, 2)) + 4).tolist()
            box = (left, top, left + side - side % 2, top + side)
            pixels[top : box[3], left : box[2]] = int(rng.integers(170, 220))
            masked = number % 3 > 0 and (corner == number % 4 or rng.random() < 0.3)
            if masked:
                paint_mask(pixels, *box)
            rows.append((f"{number}.png", *box, "with_mask" if masked else "without_mask"))
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    columns = ["name", "xmin", "ymin", "xmax", "ymax", "classname"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "train.csv", index=False)
    return folder


def draw_close_ups(folder: Path, *, count: int = 24, size: int = 96, seed: int = 1) -> Path:
    """Draw grey close-ups in the challenge's layout, every second with a mask in its lower middle."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        pixels = np.repeat(rng.integers(120, 200, (size, size, 1), dtype=np.uint8), 3, axis=2)
        if number % 2:
            paint_mask(pixels, size // 16, size * 2 // 5, size * 15 // 16, size * 9 // 10)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        rows.append((f"{number}.png", number % 2))
    pd.DataFrame(rows, columns=["image", "target"]).to_csv(folder / "train_labels.csv", index=False)
    return folder
