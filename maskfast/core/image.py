"""The one image loader: a path, bytes, a Pillow picture or an array goes in, upright 8-bit RGB comes out.

Every way of training and scoring reads its pixels here, so what was measured is what is served. The policy:
formats are told by content, never by the file's name (`core.formats`); the number of pixels is bounded before they are
decoded; truncated files are refused; the EXIF orientation is applied; 16-bit and float pixels are scaled; transparency
is laid on white; of an animation the first frame counts; colour profiles are ignored.
"""

import math
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from maskfast.core.bounded import BoundedBytes
from maskfast.core.colour import convert_to_rgb
from maskfast.core.errors import ImageError
from maskfast.core.formats import PLUGINS, describe_flaw, describe_scans, drop_needless_exif, find_format, import_plugin

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Pixels: TypeAlias = "npt.NDArray[np.uint8]"
ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]"
Method: TypeAlias = Literal["squish", "pad", "crop"]

MAX_PIXELS = 120_000_000
"""The most pixels a picture may have; the largest cameras of 2025 make 102 million."""
MAX_BYTES = 256 * 1024 * 1024
"""The largest file that is read."""
MAX_EXIF_BYTES = 2**16
"""Of the EXIF that says how to turn a picture so many are read; a segment of a JPEG has no room for more."""
DRAFT_MARGIN = 1.5
"""A JPEG is decoded at reduced scale only where that leaves this many times the pixels asked for on both sides: the
smoothing that follows then nearly hides the difference from a full decode (on 606 photos of spot-the-mask, scaled to
224, 0.03 levels of 255 on average, and 0.9 in the worst photo)."""

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TRANSPOSE[orientation] for orientation in (5, 6, 7, 8)}
_TILE_WIDTH, _TILE_LENGTH, _ORIENTATION = 322, 323, 0x0112
_ALLOWED = ", ".join(PLUGINS)


def load_image(
    source: ImageSource,
    size: int = 224,
    method: Method = "squish",
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Pixels:
    """Return the picture as a new (size, size, 3) uint8 array, RGB.

    `method`: "squish" scales both sides to `size`, "pad" fits the whole picture and fills up with black, "crop" fills
    the square and cuts what hangs over, evenly on both ends. Scaling is Pillow's antialiased bilinear.
    Raises ImageError, with `name` (default: the path) and the reason, for anything that is no usable picture.
    """
    import numpy as np

    return np.array(load_square(source, size, method, name=name, max_pixels=max_pixels))


def load_square(
    source: ImageSource,
    size: int,
    method: Method,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Return what `load_image` returns as a Pillow picture (whose bytes are a process's answer); raises ImageError."""
    img = open_image(source, name=name, max_pixels=max_pixels, at_least=math.ceil(DRAFT_MARGIN * size))
    with _one_error(_name(source, name)):
        return _RESIZE[method](img, size)


def open_image(
    source: ImageSource,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
) -> Image.Image:
    """Return the picture upright, in RGB, decoded; an array must be height x width x 3, uint8.

    `at_least`: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its scale where both sides keep that many pixels.
    A Pillow picture that is not decoded yet is read from its own file, as the file itself would be.
    Raises ImageError.
    """
    with _one_error(_name(source, name)), _hush_pillow():
        img = _open(source)
        for width, height, what in (*img.size, "pixels"), (*_find_tile(img), "pixels of a tile"):
            if width * height > max_pixels:
                raise _RefusedError(f"{width} x {height} {what} are more than {max_pixels}")
        if at_least and img.format == "JPEG" and img is not source:
            img.draft(None, (at_least, at_least))
        img.load()
        rgb = convert_to_rgb(_turn_upright(img))
        if rgb is source:
            rgb = rgb.copy()
        rgb.info.clear()  # what it says of orientation and transparency is done; said again it would be done again
        return rgb


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a regular file of at most MAX_BYTES; raises ImageError."""
    with _one_error(os.fspath(path)):
        return _read_file(Path(path))


class Header(NamedTuple):
    """What a picture's header says, without its pixels."""

    format: str
    """JPEG, PNG, ...; "" for a picture that comes from no file."""
    mode: str
    """Pillow's name of the stored pixels: RGB, RGBA, L, P, CMYK, I;16, ..."""
    width: int
    """When upright, as is the height."""
    height: int


def read_header(source: ImageSource, *, name: str | None = None) -> Header:
    """Return the header of the picture; raises ImageError. That the pixels can be read is not said by it."""
    with _one_error(_name(source, name)), _hush_pillow():
        img = _open(source)
        width, height = (img.height, img.width) if _find_turn(img) in _SIDEWAYS else img.size
        return Header(img.format or "", img.mode, width, height)


class _RefusedError(Exception):
    """The reason why a source is refused; becomes an ImageError with the source's name."""


@contextmanager
def _one_error(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Pillow raises nearly every built-in exception on hostile bytes
        raise ImageError(name, _describe(error)) from error


def _describe(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its header is broken"
    if isinstance(error, MemoryError):
        return "too large for the memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split())
    return "truncated file" if "truncated" in text.casefold() else text or type(error).__name__


def _name(source: ImageSource, name: str | None) -> str:
    if name is not None:
        return name
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "filename", "")) or f"<{type(source).__name__}>"


_hush_lock = threading.Lock()
_hushed: "list[warnings.catch_warnings[None]]" = []
_hush_users = 0


@contextmanager
def _hush_pillow() -> Iterator[None]:
    """Keep Pillow's warnings about what it reads from leaking; its errors are what counts here.

    `warnings.catch_warnings` swaps a list of the whole process, so overlapping threads share one swap.
    """
    global _hush_users
    with _hush_lock:
        _hush_users += 1
        if _hush_users == 1:
            _hushed.append(warnings.catch_warnings())
            _hushed[0].__enter__()
            warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif|maskfast\.core\.image)\b")
    try:
        yield
    finally:
        with _hush_lock:
            _hush_users -= 1
            if _hush_users == 0:
                _hushed.pop().__exit__(None, None, None)


def _open(source: ImageSource) -> Image.Image:
    if isinstance(source, Image.Image):
        data = _read_behind(source)
        return source if data is None else _open_bytes(data)
    if isinstance(source, bytes | bytearray | memoryview):
        return _open_bytes(bytes(source))
    if isinstance(source, str | os.PathLike):
        return _open_bytes(_read_file(Path(source)))
    return _open_array(source)


def _read_behind(img: Image.Image) -> bytes | None:
    """Return the bytes of the file of a picture that is not decoded yet; None where there is none."""
    if not isinstance(img, ImageFile.ImageFile) or not img.tile or img.tell() != 0:
        return None
    stream = img.fp
    if stream is None or stream.closed or not stream.seekable():
        return None
    before = stream.tell()
    stream.seek(0)
    data = stream.read()
    stream.seek(before)
    return data


def _open_array(array: "npt.NDArray[np.uint8]") -> Image.Image:
    import numpy as np  # a process that decodes never meets one, and starts in half the time without

    if not isinstance(array, np.ndarray):
        raise _RefusedError(f"a {type(array).__name__} is no path, bytes, Pillow picture or array")
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or array.size == 0:
        raise _RefusedError(
            f"an array of shape {array.shape} and type {array.dtype} is not height x width x 3 of uint8"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _read_file(path: Path) -> bytes:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise _RefusedError("is a folder" if stat.S_ISDIR(found.st_mode) else "is no regular file")
    if found.st_size > MAX_BYTES:
        raise _RefusedError(f"more than {MAX_BYTES} bytes")
    return path.read_bytes()


def _open_bytes(data: bytes) -> Image.Image:
    if not data:
        raise _RefusedError("empty file")
    if len(data) > MAX_BYTES:
        raise _RefusedError(f"more than {MAX_BYTES} bytes")
    kind = find_format(data)
    if kind is None:
        raise _RefusedError(f"not a picture of a format that is read ({_ALLOWED})")
    if flaw := describe_flaw(data, kind):
        raise _RefusedError(flaw)
    try:
        import_plugin(kind)
    except ImportError as error:
        raise _RefusedError(f"{kind} cannot be read here: {error}") from error
    img = Image.open(BoundedBytes(drop_needless_exif(data, kind)), formats=[kind])
    if kind == "JPEG" and (flaw := describe_scans(data, img.width * img.height)):
        raise _RefusedError(flaw)
    return img


def _find_tile(img: Image.Image) -> tuple[int, int]:
    """Return width and height of the tiles of a TIFF, each of which is decoded whole, however small the picture is."""
    tags = getattr(img, "tag_v2", {})
    width, height = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
    return (width, height) if isinstance(width, int) and isinstance(height, int) else (0, 0)


def _turn_upright(img: Image.Image) -> Image.Image:
    turn = _find_turn(img)
    return img if turn is None else img.transpose(turn)


def _find_turn(img: Image.Image) -> Image.Transpose | None:
    try:
        orientation = _read_exif(img).get(_ORIENTATION, 1)
    except Exception:  # broken metadata around whole pixels: the picture is taken as it lies
        orientation = 1
    return _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None


def _read_exif(img: Image.Image) -> Image.Exif:
    """Return the EXIF of a picture, of a long one the beginning; raises anything where it is broken.

    Each of its entries may tell of one and the same place, which Pillow copies for each.
    """
    if img.format == "PNG" and "exif" not in img.info:
        img.load()  # a PNG may have it behind its pixels
    if len(img.info.get("Raw profile type exif", "")) > 2 * MAX_EXIF_BYTES:  # in hexadecimal
        raise _RefusedError("its EXIF is too long")
    told = img.info.get("exif", b"")
    if len(told) <= MAX_EXIF_BYTES:
        return img.getexif()
    exif = Image.Exif()
    exif.load(told[:MAX_EXIF_BYTES])
    return exif


def _squish(img: Image.Image, size: int) -> Image.Image:
    return img.resize((size, size), Image.Resampling.BILINEAR)


def _pad(img: Image.Image, size: int) -> Image.Image:
    scale = size / max(img.size)
    inner = img.resize((max(1, round(img.width * scale)), max(1, round(img.height * scale))), Image.Resampling.BILINEAR)
    square = Image.new("RGB", (size, size))
    square.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return square


def _crop(img: Image.Image, size: int) -> Image.Image:
    return ImageOps.fit(img, (size, size), Image.Resampling.BILINEAR)


_RESIZE: dict[str, Callable[[Image.Image, int], Image.Image]] = {"squish": _squish, "pad": _pad, "crop": _crop}
