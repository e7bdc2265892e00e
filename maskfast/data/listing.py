"""What is to be scored: paths, folders, patterns and zips go in, one name and picture after another comes out."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from maskfast.core.errors import DataError
from maskfast.core.formats import find_format
from maskfast.data.archives import ZipMember, list_members
from maskfast.data.names import ends_like_picture, is_hidden, may_be_file, natural_key, try_walk_files


@dataclass(frozen=True, slots=True)
class Unread:
    """What could not be read when it was listed or fetched; reading it says why."""

    reason: str

    def read_bytes(self) -> bytes:
        """Raise OSError with the reason."""
        raise OSError(self.reason)


Source: TypeAlias = Path | ZipMember | Unread
Picture: TypeAlias = tuple[str, Source]


def list_images(inputs: Sequence[str | os.PathLike[str]]) -> Iterator[Picture]:
    """Yield (name, source) for every picture of `inputs`, each input in natural order; `source.read_bytes()` reads it.

    A file is taken as it is, whatever its name, and even where it is missing: reading it then says so, as it does of a
    folder that cannot be listed. Of folders and archives those files count that end like a picture or start like one.
    Names begin with the input as it was given.
    Raises DataError where a folder, archive or pattern holds no picture, ArchiveError where an archive is unsafe.
    """
    for given in inputs:
        yield from _list_input(os.fspath(given))


def _list_input(given: str) -> Iterator[Picture]:
    path = Path(given)
    if os.path.isdir(given):
        yield from _at_least_one(_list_folder(path), given)
    elif os.path.isfile(given) and _is_zip(path):
        yield from _at_least_one(_list_zip(path), given)
    elif not os.path.exists(given) and glob.has_magic(given):
        yield from _at_least_one(_list_pattern(given), given)
    else:
        yield given, path


def _at_least_one(found: Iterator[Picture], given: str) -> Iterator[Picture]:
    first = next(found, None)
    if first is None:
        raise DataError(f"{given}: no pictures there; give pictures, folders, zip archives or patterns of them")
    yield first
    yield from found


def _list_folder(folder: Path) -> Iterator[Picture]:
    for found in try_walk_files(folder):
        if isinstance(found, OSError):
            yield str(found.filename), Unread(f"folder that cannot be listed: {(found.strerror or '').lower()}")
        elif is_picture(found):
            yield str(found), found


def _list_pattern(pattern: str) -> Iterator[Picture]:
    for found in sorted(glob.glob(pattern, recursive=True), key=natural_key):
        path = Path(found)
        if may_be_file(path) and _is_zip(path):
            yield from _list_zip(path)
        elif may_be_file(path) and is_picture(path):
            yield found, path


def _list_zip(archive: Path) -> Iterator[Picture]:
    for member in sorted(list_members(archive), key=lambda member: natural_key(member.name)):
        if not is_hidden(member.name) and ends_like_picture(member.name):
            yield f"{archive}/{member.name}", member


def is_picture(path: Path) -> bool:
    """Tell whether a file is to be taken for a picture: it ends like one, or its first bytes are those of one."""
    if ends_like_picture(path.name):
        return True
    try:
        with path.open("rb") as stream:
            return find_format(stream.read(256)) is not None
    except OSError:
        return False


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) in (b"PK\3\4", b"PK\5\6")
    except OSError:
        return False
