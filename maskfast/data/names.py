"""Names of pictures: what a user or a table wrote goes in, a comparable, safe or findable name comes out."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
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
    return name.startswith("/") or bool(_DRIVE.match(name))


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


class NameIndex:
    """Finds the file that a table means: by relative path, else by bare name, by stem or without regard to case."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = tuple(roots)
        self._spellings: dict[str, set[Path]] | None = None
        self._unlisted: list[OSError] = []

    def find(self, name: str, *, absolute: bool = False) -> Path:
        """Return the file that `name` means below the roots (or, where `absolute` is allowed, anywhere).

        Raises LookupError with the reason: outside the folder, missing, or several files of that name.
        """
        cleaned = clean_name(name)
        if not cleaned:
            raise LookupError("empty name")
        if leaves_folder(cleaned) or "\0" in cleaned:
            raise LookupError("the name leads outside the folder")
        if cleaned.startswith("/"):
            return self._find_absolute(Path(name.strip()), allowed=absolute)
        return self._find_direct(cleaned) or self._find_spelling(cleaned)

    def _find_absolute(self, path: Path, *, allowed: bool) -> Path:
        if not allowed:
            raise LookupError("the name leads outside the folder")
        if not path.is_file():
            raise LookupError("no such file")
        return path

    def _find_direct(self, name: str) -> Path | None:
        if _DRIVE.match(name):
            return None
        return next((root / name for root in self._roots if _is_file(root / name)), None)

    def _find_spelling(self, name: str) -> Path:
        if self._spellings is None:
            self._spellings = self._read_spellings()
        bare = name.rsplit("/", 1)[-1]
        for spelling in (name, bare, bare.casefold()):
            found = self._spellings.get(spelling, set())
            if len(found) > 1:
                raise LookupError(f"{len(found)} files fit the name")
            if found:
                return next(iter(found))
        unlisted = f" (and {self._unlisted[0].filename} cannot be listed)" if self._unlisted else ""
        raise LookupError(f"no such file{unlisted}")

    def _read_spellings(self) -> dict[str, set[Path]]:
        spellings: dict[str, set[Path]] = defaultdict(set)
        for root in self._roots:
            for path in try_walk_files(root):
                if isinstance(path, OSError):
                    self._unlisted.append(path)
                    continue
                relative = clean_name(path.relative_to(root).as_posix())
                for spelling in _spell(relative):
                    spellings[spelling].add(path)
        return spellings


def _spell(relative: str) -> set[str]:
    bare = relative.rsplit("/", 1)[-1]
    forms = {relative, bare, bare.casefold()}
    if PurePosixPath(bare).suffix.casefold() in PICTURE_SUFFIXES:
        forms |= {str(PurePosixPath(form).with_suffix("")) for form in forms}
    return forms


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long or of bytes that no file can have
        return False
