"""What is to be scored: paths, folders, patterns and zips go in, one name and picture after another comes out."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from maskfast.core.errors import DataError
from maskfast.core.formats import find_format
from maskfast.data.archives import ZipMember, list_members
from maskfast.data.names import PICTURE_SUFFIXES, is_hidden, natural_key, walk_files


def list_images(inputs: Sequence[str | os.PathLike[str]]) -> Iterator[tuple[str, Path | ZipMember]]:
    """Yield (name, source) for every picture of `inputs`, each input in natural order; `source.read_bytes()` reads it.

    A file is taken as it is, whatever its name, and even where it is missing: reading it then says so. Of folders and
    archives those files count that end like a picture or start like one. Names begin with the input as it was given.
    Raises DataError where a folder, archive or pattern holds no picture, ArchiveError where an archive is unsafe.
    """
    for given in inputs:
        yield from _list_input(os.fspath(given))


def _list_input(given: str) -> Iterator[tuple[str, Path | ZipMember]]:
    path = Path(given)
    if path.is_dir():
        yield from _at_least_one(_list_folder(path), given)
    elif path.is_file() and _is_zip(path):
        yield from _at_least_one(_list_zip(path), given)
    elif not path.exists() and glob.has_magic(given):
        yield from _at_least_one(_list_pattern(given), given)
    else:
        yield given, path


def _at_least_one(found: Iterator[tuple[str, Path | ZipMember]], given: str) -> Iterator[tuple[str, Path | ZipMember]]:
    first = next(found, None)
    if first is None:
        raise DataError(f"{given}: no pictures there; give pictures, folders, zip archives or patterns of them")
    yield first
    yield from found


def _list_folder(folder: Path) -> Iterator[tuple[str, Path | ZipMember]]:
    return ((str(path), path) for path in walk_files(folder) if is_picture(path))


def _list_pattern(pattern: str) -> Iterator[tuple[str, Path | ZipMember]]:
    for found in sorted(glob.glob(pattern, recursive=True), key=natural_key):
        path = Path(found)
        if path.is_file() and _is_zip(path):
            yield from _list_zip(path)
        elif path.is_file() and is_picture(path):
            yield found, path


def _list_zip(archive: Path) -> Iterator[tuple[str, Path | ZipMember]]:
    for member in sorted(list_members(archive), key=lambda member: natural_key(member.name)):
        if not is_hidden(member.name) and PurePosixPath(member.name).suffix.casefold() in PICTURE_SUFFIXES:
            yield f"{archive}/{member.name}", member


def is_picture(path: Path) -> bool:
    """Tell whether a file is to be taken for a picture: it ends like one, or its first bytes are those of one."""
    if path.suffix.casefold() in PICTURE_SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            return find_format(stream.read(256)) is not None
    except OSError:
        return False


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) in (b"PK\3\4", b"PK\5\6")
