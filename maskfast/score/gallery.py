"""An evaluation's costliest answers in, their pictures with heat maps out, small enough to embed in a page."""

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from maskfast.core.errors import ImageError
from maskfast.core.image import Method, Pixels, load_image, open_image
from maskfast.score.explain import Explainer, Heat, overlay_heat

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

SHOWN_SIDE = 360
"""Longer side of a picture shown in a page, in pixels."""
JPEG_QUALITY = 82


@dataclass(frozen=True, kw_only=True)
class ShownPicture:
    """One row of an evaluation with its picture and the picture under its heat map, as JPEG bytes.

    Both are empty where the picture can no longer be read.
    """

    image: str
    source: str
    label: str
    answer: str
    probability: float
    loss: float
    picture: bytes
    heat: bytes


def show_worst(
    scored: "pd.DataFrame", explainer: Explainer, *, count: int = 12, method: Method = "squish"
) -> Iterable[ShownPicture]:
    """Yield the `count` rows of highest loss (columns of Evaluation.rows), the worst first, with their pictures.

    `method` is how the predictor makes a picture square: a squished one is shown in its own proportions.
    """
    for row in scored.nlargest(count, "loss").to_dict("records"):
        try:
            picture, heat = _draw_picture(str(row["path"]), explainer, method)
            picture_jpeg, heat_jpeg = write_jpeg(picture), write_jpeg(overlay_heat(picture, heat))
        except ImageError:  # the page says so in the picture's place
            picture_jpeg = heat_jpeg = b""
        yield ShownPicture(
            image=str(row["image"]),
            source=str(row.get("source", "")),
            label="mask" if row["label"] else "no_mask",
            answer=str(row["answer"]),
            probability=float(row["probability"]),
            loss=float(row["loss"]),
            picture=picture_jpeg,
            heat=heat_jpeg,
        )


def write_jpeg(pixels: Pixels) -> bytes:
    """Return (H, W, 3) uint8 pixels as a JPEG."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def draw_thumbnail(path: str, *, side: int = SHOWN_SIDE) -> "Image.Image":
    """Return the picture at `path`, upright, RGB, no side longer than `side` pixels."""
    image = open_image(path)
    image.thumbnail((side, side))
    return image


def _draw_picture(path: str, explainer: Explainer, method: Method) -> tuple[Pixels, Heat]:
    heat = explainer(path)
    if method == "squish":
        picture = np.asarray(draw_thumbnail(path))
        return picture, _resize_heat(heat, picture.shape[1], picture.shape[0])
    picture = load_image(path, SHOWN_SIDE, method)
    return picture, _resize_heat(heat, SHOWN_SIDE, SHOWN_SIDE)


def _resize_heat(heat: Heat, width: int, height: int) -> Heat:
    from PIL import Image

    resized: Any = Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)
