"""Small drawn data: pictures with a blue square are masks, noise is none."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image


def draw_toy(folder: Path, *, count: int = 32, size: int = 40, seed: int = 0) -> Path:
    """Draw `count` noisy pictures in the challenge's layout, every second with a blue square."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        pixels = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
        if number % 2:
            pixels[size // 2 :, 4 : size - 4] = (30, 60, 230)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        rows.append((f"{number}.png", number % 2))
    pd.DataFrame(rows, columns=["image", "target"]).to_csv(folder / "train_labels.csv", index=False)
    return folder
