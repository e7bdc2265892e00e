"""What a cluster is to score: paths, lists and fsspec URLs go in, one name and source after another comes out.

The order depends on the inputs alone; of folders and lists no more than one folder's or batch's names are held.
"""

import csv
import io
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeAlias

from maskfast.core.errors import DataError
from maskfast.core.extras import import_extra
from maskfast.core.image import MAX_BYTES
from maskfast.data import listing
from maskfast.data.archives import ZipMember
from maskfast.data.names import ends_like_picture, is_hidden, natural_key

TABLES = (".csv", ".parquet")
NAME_COLUMNS = ("path", "image")
READ_ATTEMPTS = 3
READ_PAUSE = 0.5
"""Seconds before a failed read from a store is tried again; doubled each time."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture at an fsspec URL, read where it is decoded."""

    url: str

    def read_bytes(self) -> bytes:
        """Return the file's bytes; a store that fails is asked again before that becomes an OSError."""
        import fsspec

        for attempt in range(1, READ_ATTEMPTS + 1):
            try:
                with fsspec.open(self.url, "rb") as stream:
                    content: bytes = stream.read(MAX_BYTES + 1)
                    return content
            except (FileNotFoundError, PermissionError) as error:
                raise OSError(_describe_missing(error)) from error
            except OSError:
                if attempt == READ_ATTEMPTS:
                    raise
                time.sleep(READ_PAUSE * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")


Source: TypeAlias = listing.Source | Stored | bytes
Picture: TypeAlias = tuple[str, Source]


def list_pictures(inputs: Sequence[str | os.PathLike[str]]) -> Iterator[Picture]:
    """Yield (name, source) for every picture of `inputs`: what `list_images` takes, lists and fsspec URLs.

    A list is a CSV or Parquet file with a column `path` (or `image`) of files and URLs, relative to the list itself.
    Raises DataError where an input holds no picture or cannot be listed.
    """
    for given in [os.fspath(each) for each in inputs]:
        if _is_table(given):
            yield from _at_least_one(_list_table(given), given)
        elif is_url(given):
            yield from _at_least_one(_list_url(given), given)
        else:
            yield from ((name, _make_absolute(source)) for name, source in listing.list_images([given]))


def is_url(given: str) -> bool:
    """Tell whether `given` names a file of an fsspec filesystem: protocol://path."""
    return "://" in given


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of `url` and the path in it.

    Raises DataError where the protocol is unknown or its package is missing.
    """
    core = import_extra("fsspec", "ray").core
    try:
        filesystem, path = core.url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise DataError(f"{url}: {' '.join(str(error).split())}") from error
    return filesystem, path


def _make_absolute(source: listing.Source) -> Source:
    """A worker stands in another folder."""
    if isinstance(source, ZipMember):
        return replace(source, archive=source.archive.absolute())
    return source.absolute() if isinstance(source, Path) else source


def _describe_missing(error: OSError) -> str:
    return "no such file" if isinstance(error, FileNotFoundError) else "permission denied"


def _is_table(given: str) -> bool:
    return PurePosixPath(given).suffix.lower() in TABLES and (is_url(given) or Path(given).is_file())


def _at_least_one(found: Iterator[Picture], given: str) -> Iterator[Picture]:
    try:
        first = next(found, None)
    except OSError as error:
        raise DataError(f"{given}: {' '.join(str(error).split())}") from error
    if first is None:
        raise DataError(f"{given}: no pictures there; give pictures, folders, zips, lists, patterns or URLs of them")
    yield first
    yield from found


def _list_url(url: str) -> Iterator[Picture]:
    filesystem, path = open_filesystem(url)
    if has_magic(path):
        names: Iterator[str] = filter(_is_picture_name, sorted(filesystem.glob(path), key=natural_key))
    elif filesystem.isdir(path):
        names = _walk(filesystem, path)
    else:
        names = iter([path])
    for name in names:
        full = filesystem.unstrip_protocol(name)
        yield full, _make_source(full, filesystem)


def _walk(filesystem: Any, top: str) -> Iterator[str]:
    for parent, folders, files in filesystem.walk(top, topdown=True):
        folders[:] = sorted((name for name in folders if not is_hidden(name)), key=natural_key)
        for name in sorted(files, key=natural_key):
            if _is_picture_name(name):
                yield f"{parent.rstrip('/')}/{name}"


def _is_picture_name(name: str) -> bool:
    return ends_like_picture(name) and not is_hidden(PurePosixPath(name).name)


def _make_source(url: str, filesystem: Any = None) -> Source:
    """A memory filesystem lives in this process alone, so its pictures travel with the work."""
    if url.startswith("memory://"):
        filesystem = filesystem or open_filesystem(url)[0]
        content: bytes = filesystem.cat_file(url)
        return content
    return Stored(url)


def _list_table(table: str) -> Iterator[Picture]:
    base = table.rsplit("/", 1)[0] if is_url(table) else str(Path(table).parent)
    read = _read_csv if table.lower().endswith(".csv") else _read_parquet
    for name in read(table):
        yield name, _find_entry(base, name)


def _find_entry(base: str, name: str) -> Source:
    if is_url(name):
        return _make_source(name)
    return _make_source(f"{base}/{name}") if is_url(base) else Path(base, name).absolute()


def _open_table(table: str) -> AbstractContextManager[IO[bytes]]:
    if not is_url(table):
        return open(table, "rb")
    filesystem, path = open_filesystem(table)
    opened: AbstractContextManager[IO[bytes]] = filesystem.open(path, "rb")
    return opened


def _read_csv(table: str) -> Iterator[str]:
    with _open_table(table) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
        rows = csv.reader(text)
        column = _find_column(table, next(rows, []))
        for number, row in enumerate(rows, start=2):
            if len(row) <= column:
                raise DataError(f"{table}, line {number}: has {len(row)} columns, the path is missing")
            yield row[column]


def _read_parquet(table: str) -> Iterator[str]:
    parquet = import_extra("pyarrow.parquet", "ray")
    with _open_table(table) as stream:
        file = parquet.ParquetFile(stream)
        name = file.schema_arrow.names[_find_column(table, file.schema_arrow.names)]
        for batch in file.iter_batches(columns=[name]):
            for value in batch.column(0).to_pylist():
                if value is None:
                    raise DataError(f"{table}: the column {name} has a row without a value")
                yield str(value)


def _find_column(table: str, header: Sequence[str]) -> int:
    for name in NAME_COLUMNS:
        if name in header:
            return list(header).index(name)
    raise DataError(f"{table}: has the columns {', '.join(header) or '(none)'}; one of them must be path")
