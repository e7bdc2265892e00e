"""Rows of a run that may be stopped go in, a line each; where the run goes on, those that still hold come out."""

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import IO, Any
from zlib import crc32

from maskfast.core.errors import DataError, MaskfastError
from maskfast.data.archives import ZipMember
from maskfast.data.listing import Picture, Source
from maskfast.score.predictor import BATCH, Prediction

MARK = b'{"maskfast": "partial"'
"""How every file begins that a run left."""


class Journal:
    """The file OUT.partial: a line that describes the run, then a line a row.

    The line of a row begins with a checksum of all lines up to its end, so that what comes before a damage is told from
    what does not; with the row it holds the stamp that its picture had before it was read.
    """

    def __init__(self, out: Path, run: dict[str, Any]) -> None:
        self.path = out.with_name(out.name + ".partial")
        self._head = json.dumps({"maskfast": "partial", **run}).encode() + b"\n"
        self._check = crc32(self._head)
        self._stamps: deque[list[int]] = deque()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def open(self, pictures: Sequence[Picture]) -> int:
        """Open for going on with `pictures` and return how many rows are kept: whole batches, since rows share a batch.

        Kept are those of the same run before the first damaged line and before the first picture that changed since.
        Raises DataError where the file is none that a run left.
        """
        self._refuse_foreign()
        end, done = self._find_end(pictures)
        self._file = self.path.open("r+b" if end else "wb")
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._file.write(self._head)
            self._file.flush()
        return done

    def watch(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Pass `pictures`, whose rows will come in the same order, on to be read."""
        for name, source in pictures:
            self._stamps.append(find_stamp(source))
            yield name, source

    def keep(self, rows: Iterator[Prediction]) -> Iterator[Prediction]:
        """Yield `rows` once they are written; what is handed to the system survives this process."""
        assert self._file
        while chunk := list(islice(rows, BATCH)):
            self._file.writelines(map(self._format, chunk))
            self._file.flush()
            yield from chunk

    def read(self) -> Iterator[Prediction]:
        """Yield the rows that are kept; MaskfastError where another program changed them meanwhile."""
        with self.path.open("rb") as file:
            check = crc32(next(file, b""))
            for line in file:
                parsed = _parse(line, check)
                if parsed is None:
                    raise MaskfastError(f"{self.path}: another program changed it meanwhile; run the same again")
                check, _, row = parsed
                yield row

    def _format(self, row: Prediction) -> bytes:
        content = json.dumps({"stamp": self._stamps.popleft(), **asdict(row)}).encode() + b"\n"
        self._check = crc32(content, self._check)
        return b"%08x %s" % (self._check, content)

    def _refuse_foreign(self) -> None:
        if not os.path.lexists(self.path):
            return
        if self.path.is_symlink() or not self.path.is_file() or not self._is_own():
            raise DataError(f"{self.path}: is not what a stopped run left; move it, or name another --out")

    def _is_own(self) -> bool:
        """A run that was killed at its start left a part of the mark, or nothing."""
        with self.path.open("rb") as file:
            return MARK.startswith(file.read(len(MARK)))

    def _find_end(self, pictures: Sequence[Picture]) -> tuple[int, int]:
        """Return the byte after the last whole batch of rows that hold and their number, else (0, 0)."""
        if not self.path.exists():
            return 0, 0
        with self.path.open("rb") as file:
            if file.readline() != self._head:
                return 0, 0
            end, done, size, check = len(self._head), 0, len(self._head), self._check
            for count, (line, (name, source)) in enumerate(zip(file, pictures, strict=False), start=1):
                parsed = _parse(line, check)
                if parsed is None or parsed[2].image != name or parsed[1] != find_stamp(source):
                    break
                check, size = parsed[0], size + len(line)
                if count % BATCH == 0:
                    end, done, self._check = size, count, check
        return end, done


def find_stamp(source: Source) -> list[int]:
    """Return what changes with a picture: size and time of a file, size and checksum in a zip; [] where there is none.

    The time is that of the last change of its content, in nanoseconds.
    """
    if isinstance(source, ZipMember):
        return [source.size, source.crc]
    if not isinstance(source, Path):
        return []
    try:
        found = source.stat()
    except (OSError, ValueError):  # a name of bytes that no file can have
        return []
    return [found.st_size, found.st_mtime_ns]


def _parse(line: bytes, check: int) -> tuple[int, list[int], Prediction] | None:
    """Return checksum, stamp and row of a line after lines of the checksum `check`, None where it is damaged."""
    told, _, content = line.partition(b" ")
    check = crc32(content, check)
    if told != b"%08x" % check:
        return None
    fields = json.loads(content)
    return check, fields.pop("stamp"), Prediction(**fields)
