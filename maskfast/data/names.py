"""Names of pictures: what a user or a table wrote goes in, a comparable, safe or findable name comes out."""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from maskfast.core.errors import DataError

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"}
)
"""Endings of files that are taken for pictures when a folder is listed; what they hold is told by content."""

_DRIVE = re.compile(r"^[A-Za-z]:")
_NO_UNICODE = re.compile("[\ud800-\udfff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def clean_name(name: str) -> str:
    r"""Return `name` in one spelling: Unicode NFC, `\` as `/`, without leading `./` and surrounding blanks."""
    cleaned = unicodedata.normalize("NFC", name.strip()).replace("\\", "/")
    while cleaned.startswith("./"):
        cleaned = cleaned[2:].lstrip("/").strip()
    return cleaned


def is_absolute(name: str) -> bool:
    """Tell whether a cleaned name starts at a root or at a Windows drive."""
    return name.startswith("/") or has_drive(name)


def has_drive(name: str) -> bool:
    """Tell whether a cleaned name starts at a Windows drive."""
    return bool(_DRIVE.match(name))


def leaves_folder(name: str) -> bool:
    """Tell whether a cleaned name climbs out of its folder by `..`."""
    return ".." in name.split("/")


def disarm_name(name: str) -> str:
    """Return a name that a spreadsheet does not take for a formula, and that still names the same file.

    Names that start with = + - @, tab or carriage return get `./` in front, which every reader here ignores.
    The rows of a submission are the exception: their ids are the challenge's and stay as they are.
    """
    return f"./{name}" if name.startswith(_FORMULA) else name


def show_name(name: str) -> str:
    """Return a name in valid Unicode: its bytes that are none are shown as replacement characters."""
    return _NO_UNICODE.sub("\N{REPLACEMENT CHARACTER}", name)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which `a2` comes before `a10`; equal only for equal names."""
    parts = re.split(r"(\d+)", name)
    return (*((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts), (2, 0, name))


def is_hidden(name: str) -> bool:
    """Tell whether a relative name lies in or is a hidden file or one that macOS adds to archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def ends_like_picture(name: str) -> bool:
    """Tell whether a name or path ends as those of pictures do; what the file holds is told by its content alone."""
    return PurePosixPath(name).suffix.casefold() in PICTURE_SUFFIXES


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield the regular files below `folder` in natural order, without hidden files and without linked folders.

    Raises DataError where a folder there cannot be listed: what it holds would be missing unnoticed.
    """
    for found in try_walk_files(folder):
        if isinstance(found, OSError):
            raise DataError(f"{found.filename}: cannot be listed: {found.strerror}; make it readable or move it away")
        yield found


def try_walk_files(folder: Path) -> Iterator[Path | OSError]:
    """Yield what `walk_files` does, and for a folder that cannot be listed the error, with its name."""
    unlisted: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=unlisted.append):
        yield from unlisted
        unlisted.clear()
        folders[:] = sorted((name for name in folders if not is_hidden(name)), key=natural_key)
        for name in sorted(files, key=natural_key):
            path = Path(parent, name)
            if not is_hidden(name) and may_be_file(path):
                yield path
    yield from unlisted


def may_be_file(path: Path) -> bool:
    """Tell whether `path` is a regular file; one whose folder does not let us look may be: reading it then says so."""
    try:
        return path.is_file()
    except OSError:
        return True
