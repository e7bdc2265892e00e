"""The picture formats that are read: takes the bytes of a file, says its format and what Pillow would not see in it."""

import re
from importlib import import_module

MAX_SCANS = 200
"""Scans of a progressive JPEG; cameras and editors write about ten, a decoding bomb writes thousands."""
MIN_SCANS = 20
"""So many a JPEG of any size may have."""
SCANNED_PIXELS = 2_400_000_000
"""Pixels times scans of a JPEG; a thousand million take about a second, however small the file is."""
MAX_BLOCKS = 2_000_000
"""Chunks of a PNG, blocks of a GIF; one of MAX_BYTES in full blocks has a million."""
MAX_BLOCKS_AHEAD = 5_000
"""Blocks before the first frame of a GIF, of 255 bytes at most: Pillow copies all comments anew at each."""

PLUGINS = {
    "JPEG": "PIL.JpegImagePlugin",
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
    "HEIF": "pillow_heif",
}
"""The allowed formats, and the module that teaches Pillow each."""

_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_EXIF = b"Exif\0\0"
_ISO_EXIF = re.compile(rb"(infe.{8,10})Exif", re.DOTALL)  # ISO/IEC 14496-12, 8.11.6: an item's entry, then its type
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}


def find_format(data: bytes) -> str | None:
    """Name the allowed format that the first bytes announce; None for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _find_iso_format(data)
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)


def _find_iso_format(data: bytes) -> str | None:
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & _HEIF_BRANDS else None


def import_plugin(name: str) -> None:
    """Teach Pillow the format `name`; raises ImportError, with what to do, where its plugin or codec is missing."""
    try:
        module = import_module(PLUGINS[name])
    except ModuleNotFoundError as error:
        raise ImportError(f"pip install {'pillow-heif' if name == 'HEIF' else '--upgrade pillow'}") from error
    if name == "HEIF":
        module.register_heif_opener()
    if not getattr(module, "SUPPORTED", True):
        raise ImportError(f"this Pillow was built without {name}")


def describe_flaw(data: bytes, name: str) -> str | None:
    """Say what Pillow would overlook in the bytes of format `name`: a missing end, too many parts; None if nothing."""
    if name == "PNG":
        return _describe_png(data)
    if name == "GIF":
        return _describe_gif(data)
    return None


def describe_scans(data: bytes, pixels: int) -> str | None:
    """Say where a JPEG of so many pixels has more scans than are decoded in a second or two; None if it has not."""
    most = min(MAX_SCANS, max(MIN_SCANS, SCANNED_PIXELS // pixels))
    return f"JPEG of more than {most} scans" if data.count(b"\xff\xda") > most else None


def drop_needless_exif(data: bytes, name: str) -> bytes:
    """Return the bytes of format `name` with no EXIF but what says how to turn the picture, as long as before.

    Pillow reads EXIF while it opens these formats, and copies each entry, of which many may be the same large place. In
    a JPEG one segment of it is bounded by its 64 KB, where Pillow would join many; AVIF and HEIF are turned by
    properties of their own, by which Pillow goes whatever the EXIF says.
    """
    if name == "JPEG" and data.count(_EXIF) > 1:
        first = data.index(_EXIF) + len(_EXIF)
        return data[:first] + data[first:].replace(_EXIF, bytes(len(_EXIF)))
    if name in ("AVIF", "HEIF"):
        return _ISO_EXIF.sub(rb"\1skip", data)
    return data


def _describe_png(data: bytes) -> str | None:
    at = 8
    for _ in range(MAX_BLOCKS):
        if at + 8 > len(data):
            return "truncated file"
        if data[at + 4 : at + 8] == b"IEND":
            return None
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return f"PNG of more than {MAX_BLOCKS} chunks"


def _describe_gif(data: bytes) -> str | None:
    # https://www.w3.org/Graphics/GIF/spec-gif89a.txt: blocks follow the screen's palette up to the trailer 0x3B
    at, blocks, most = 13 + _palette_size(data[10:11]), 0, MAX_BLOCKS_AHEAD
    while at < len(data):
        kind = data[at]
        if kind == 0x3B:
            return None
        if kind == 0x21:
            at += 2
        elif kind == 0x2C:
            at += 11 + _palette_size(data[at + 9 : at + 10])
            most = MAX_BLOCKS
        elif most == MAX_BLOCKS:
            return None if b"\x3b" in data[at:] else "truncated file"
        is_block = kind in (0x21, 0x2C)  # other bytes before the first frame Pillow skips
        while is_block and at < len(data) and data[at] and blocks <= most:
            at, blocks = at + data[at] + 1, blocks + 1
        at, blocks = at + 1, blocks + 1
        if blocks > most:
            return f"GIF of more than {most} blocks{'' if most == MAX_BLOCKS else ' before its first frame'}"
    return "truncated file"


def _palette_size(flags: bytes) -> int:
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
