"""Pictures of any of Pillow's modes go in, 8-bit RGB comes out."""

from PIL import Image

_ROWS = 64
"""Rows that are scaled at a time, so that the float pixels of a large picture never exist all at once."""


def convert_to_rgb(img: Image.Image) -> Image.Image:
    """Return a decoded picture in RGB: transparency on white, 16-bit and float pixels scaled, CMYK and LAB converted.

    One that is RGB already is returned itself.
    Raises ValueError for float pixels that are not finite.
    """
    if img.mode.startswith(("I", "F")):
        return _scale_deep(img).convert("RGB")
    if img.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in img.info:
        return _lay_on_white(img if img.mode == "RGBA" else img.convert("RGBA"))
    if img.mode == "LAB":
        return _convert_lab(img)
    return img if img.mode == "RGB" else img.convert("RGB")


def _lay_on_white(img: Image.Image) -> Image.Image:
    white = Image.new("RGB", img.size, "white")
    white.paste(img, mask=img.getchannel("A"))
    return white


def _convert_lab(img: Image.Image) -> Image.Image:
    from PIL import ImageCms

    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    converted = ImageCms.applyTransform(img, transform)
    assert converted is not None, "only in-place transforms return nothing"
    return converted


def _scale_deep(img: Image.Image) -> Image.Image:
    """Bring 16-bit, 32-bit and float pixels to 0..255: by the smallest usual range (1, 255, 65535) that holds them.

    16-bit modes always span 65535. Values beyond 65535 or below zero are stretched from their minimum and maximum.
    """
    import numpy as np

    values = np.asarray(img)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("has pixels that are not finite")
    tops = [65535.0] if img.mode.startswith("I;16") else [255.0, 65535.0] if img.mode == "I" else [1.0, 255.0, 65535.0]
    bottom, top = (0.0, min(top for top in tops if high <= top)) if low >= 0 and high <= tops[-1] else (low, high)
    scale = 255.0 / max(top - bottom, 1e-12)
    scaled = np.empty(values.shape, dtype=np.uint8)
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS].astype(np.float64)
        scaled[start : start + _ROWS] = np.rint((part - bottom) * scale).clip(0, 255)
    return Image.fromarray(scaled)
