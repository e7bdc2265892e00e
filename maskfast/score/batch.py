"""Pictures, folders, patterns and zips go in; one row a picture comes out, in order, as a stream or as a file."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from maskfast.bundle.manifest import format_manifest
from maskfast.core.errors import MaskfastError
from maskfast.data.archives import ZipMember
from maskfast.data.listing import list_images
from maskfast.score.decoders import DecoderPool
from maskfast.score.predictor import BATCH, Prediction, Predictor
from maskfast.score.rows import check_rows_file, write_rows

Pictures = list[tuple[str, Path | ZipMember]]
Track = Callable[[Iterator[Prediction], int, int], Iterable[Prediction]]
"""Passes rows on while it shows progress; it is told how many there will be and how many were there before."""


@dataclass(frozen=True)
class Counts:
    """How many pictures were asked for, how many failed, and how many rows an interrupted run had left."""

    images: int
    failed: int
    resumed: int
    first_failure: str


def score_inputs(
    predictor: Predictor, inputs: Sequence[str | os.PathLike[str]], *, tta: bool = False
) -> Iterator[Prediction]:
    """Score every picture of `inputs` (pictures, folders, patterns, zips) in order, decoding beside the network.

    Decoders run in processes of their own: one that crashes or takes too long costs its row alone.
    """
    return score_listed(predictor, inputs, tta=tta)[1]


def score_listed(
    predictor: Predictor, inputs: Sequence[str | os.PathLike[str]], *, tta: bool = False
) -> tuple[int, Iterator[Prediction]]:
    """Return how many pictures `inputs` are, and their rows as `score_inputs` gives them."""
    pictures = list(list_images(inputs))
    return len(pictures), _score_pictures(predictor, pictures, tta)


def _score_pictures(predictor: Predictor, pictures: Pictures, tta: bool, done: int = 0) -> Iterator[Prediction]:
    total, rest = len(pictures), pictures[done:]
    if len(rest) == 1:  # starting a process takes longer than decoding one picture
        yield from predictor.predict_many(rest, tta=tta, total=total)
        return
    with DecoderPool(predictor.size, predictor.method) as pool:
        yield from predictor.predict_many(rest, tta=tta, decode=pool.decode, total=total)


def score_to_file(
    predictor: Predictor,
    inputs: Sequence[str | os.PathLike[str]],
    out: str | Path,
    *,
    tta: bool = False,
    track: Track = lambda rows, total, done: rows,  # noqa: ARG005
) -> Counts:
    """Score `inputs` as `score_inputs` does and write the rows to `out`: .csv, .jsonl or .parquet.

    Rows are kept in OUT.partial as they come. A run that was stopped goes on from there when it is called again in
    the same way, and ends in the same bytes; `out` itself appears whole, at the end.
    Raises ConfigError for another ending, DataError where `out` can be no file, MaskfastError where the disk is full.
    """
    out = Path(out)
    check_rows_file(out)
    pictures = list(list_images(inputs))
    journal = _Journal(out, _describe_run(predictor, tta, [name for name, _ in pictures]))
    done = journal.open()
    try:
        with journal:
            rows = _score_pictures(predictor, pictures, tta, done)
            for row in track(journal.keep(rows), len(pictures), done):
                del row
        write_rows(out, journal.read())
    except OSError as error:
        raise MaskfastError(f"{out}: {error.strerror}; finished rows are kept, run the same again to go on") from error
    counts = _count(journal.read(), done)
    journal.path.unlink()
    return counts


def _describe_run(predictor: Predictor, tta: bool, names: list[str]) -> dict[str, Any]:
    """What must be the same for rows of an earlier run to be of use."""
    listing = hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape"))
    model = hashlib.sha256(format_manifest(predictor.manifest))
    fields = {"model": model.hexdigest(), "images": listing.hexdigest(), "tta": tta, "batch": BATCH}
    backend = predictor.backend
    return {"maskfast": "partial", **fields, "backend": backend.name, "lanes": backend.lanes}


def _count(rows: Iterable[Prediction], resumed: int) -> Counts:
    images = failed = 0
    first = ""
    for row in rows:
        images += 1
        if row.status == "failed":
            failed += 1
            first = first or f"{row.image}: {row.reason}"
    return Counts(images, failed, resumed, first)


class _Journal:
    """The file OUT.partial: a line that describes the run, then a line a row, as JSON."""

    def __init__(self, out: Path, run: dict[str, Any]) -> None:
        self.path = out.with_name(out.name + ".partial")
        self._run = run
        self._file: IO[bytes]

    def __enter__(self) -> "_Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def open(self) -> int:
        """Open for going on and return how many rows are kept: whole batches only, since rows share a batch."""
        keep, done = self._find_end()
        self._file = self.path.open("r+b" if keep else "wb")
        self._file.truncate(keep)
        self._file.seek(keep)
        if not keep:
            self._write(self._run)
            self._file.flush()
        return done

    def keep(self, rows: Iterator[Prediction]) -> Iterator[Prediction]:
        """Yield `rows` once they are written; what is handed to the system survives this process."""
        while chunk := list(islice(rows, BATCH)):
            for row in chunk:
                self._write(asdict(row))
            self._file.flush()
            yield from chunk

    def read(self) -> Iterator[Prediction]:
        """Yield the rows that are kept."""
        with self.path.open("rb") as file:
            next(file)
            for line in file:
                yield Prediction(**json.loads(line))

    def _write(self, fields: dict[str, Any]) -> None:
        self._file.write(json.dumps(fields).encode() + b"\n")

    def _find_end(self) -> tuple[int, int]:
        """Return the byte after the last whole batch of rows of the same run and their number, else (0, 0)."""
        if not self.path.is_file():
            return 0, 0
        with self.path.open("rb") as file:
            if file.readline() != json.dumps(self._run).encode() + b"\n":
                return 0, 0
            end, done = file.tell(), 0
            for count, line in enumerate(file, start=1):
                if line.endswith(b"\n") and count % BATCH == 0:
                    end, done = file.tell(), count
        return end, done
