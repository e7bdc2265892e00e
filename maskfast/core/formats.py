"""The picture formats that are read: takes the bytes of a file, says its format and whether its end is there."""

from importlib import import_module

MAX_SCANS = 200
"""Scans of a progressive JPEG; cameras and editors write about ten, a decoding bomb writes thousands."""

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
    """Teach Pillow the format `name`; ImportError where the plugin or its codec is not installed."""
    module = import_module(PLUGINS[name])
    if name == "HEIF":
        module.register_heif_opener()
    if not getattr(module, "SUPPORTED", True):
        raise ImportError(f"this Pillow was built without {name}")


def describe_flaw(data: bytes, name: str) -> str | None:
    """Say what Pillow would overlook in the bytes of format `name`: a missing end, too many scans; None if nothing."""
    if name == "PNG" and not _png_is_whole(data):
        return "truncated file"
    if name == "GIF" and not _gif_is_whole(data):
        return "truncated file"
    if name == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
        return f"JPEG of more than {MAX_SCANS} scans"
    return None


def _png_is_whole(data: bytes) -> bool:
    at = 8
    while at + 8 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _gif_is_whole(data: bytes) -> bool:
    # https://www.w3.org/Graphics/GIF/spec-gif89a.txt: blocks follow the screen's palette up to the trailer 0x3B
    at = 13 + _palette_size(data[10:11])
    while at < len(data):
        kind = data[at]
        if kind == 0x3B:
            return True
        if kind == 0x21:
            at = _skip_sub_blocks(data, at + 2)
        elif kind == 0x2C:
            at = _skip_sub_blocks(data, at + 11 + _palette_size(data[at + 9 : at + 10]))
        else:
            return b"\x3b" in data[at:]
    return False


def _palette_size(flags: bytes) -> int:
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _skip_sub_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += data[at] + 1
    return at + 1
