"""From the model's square to a transparent PNG that shows where the model looked."""

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from maskfast.score.predictor import Predictor

STOPS = np.array([0.0, 0.35, 0.65, 1.0])
COLOURS = np.array([(48, 18, 130), (196, 30, 120), (250, 110, 40), (255, 240, 120)], float)
"""Dark violet over red to yellow: readable without telling red from green."""
MAX_ALPHA = 215
FAINT = 0.12
"""Heat below this is not drawn, so that the picture stays clear where nothing was found."""


def draw_heat_map(predictor: "Predictor", array: np.ndarray) -> bytes:
    """A PNG of `array`'s height and width: transparent where the model did not look, yellow where it looked most."""
    from maskfast.score.explain import explain

    return colour_heat(explain(predictor, array))


def colour_heat(heat: np.ndarray) -> bytes:
    """The RGBA PNG of a heat map in 0..1, float (H, W)."""
    level = np.clip(heat, 0, 1)
    bands = [np.interp(level, STOPS, COLOURS[:, band]) for band in range(3)]
    rgba = (
        np.stack([*bands, np.clip((level - FAINT) / (1 - FAINT), 0, 1) * MAX_ALPHA], axis=-1).round().astype(np.uint8)
    )
    buffer = io.BytesIO()
    Image.fromarray(rgba, "RGBA").save(buffer, "PNG")
    return buffer.getvalue()
