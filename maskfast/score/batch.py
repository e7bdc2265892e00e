"""Pictures, folders, patterns and zips go in; one row a picture comes out, in order, as a stream or as a file."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskfast._version import __version__
from maskfast.bundle.manifest import format_manifest
from maskfast.core.errors import MaskfastError
from maskfast.data.listing import Picture, list_images
from maskfast.score.decoders import DecoderPool
from maskfast.score.journal import Journal
from maskfast.score.predictor import BATCH, Prediction, Predictor
from maskfast.score.rows import check_rows_file, write_rows

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
    return len(pictures), _score_rest(predictor, pictures, tta, done=0, total=len(pictures))


def _score_rest(
    predictor: Predictor, rest: Iterable[Picture], tta: bool, *, done: int, total: int
) -> Iterator[Prediction]:
    if total - done == 1:  # starting a process takes longer than decoding one picture
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
    the same way, and ends in the same bytes; rows from the first picture that changed since are scored again. `out`
    itself appears whole, at the end. Raises ConfigError for another ending, DataError where `out` can be no file or
    OUT.partial is something else, MaskfastError where the disk is full.
    """
    out = Path(out)
    check_rows_file(out)
    pictures = list(list_images(inputs))
    journal = Journal(out, _describe_run(predictor, tta, pictures))
    try:
        with journal:
            done = journal.open(pictures)
            rest = journal.watch(pictures[done:])
            rows = _score_rest(predictor, rest, tta, done=done, total=len(pictures))
            for row in track(journal.keep(rows), len(pictures), done):
                del row
        write_rows(out, journal.read())
        counts = _count(journal.read(), done)
        journal.path.unlink()
    except OSError as error:
        kept = "; finished rows are kept, run the same again to go on" if os.path.isfile(journal.path) else ""
        raise MaskfastError(f"{out}: {error.strerror or error}{kept}") from error
    return counts


def _describe_run(predictor: Predictor, tta: bool, pictures: Sequence[Picture]) -> dict[str, Any]:
    """What must be the same for rows of an earlier run to be of use."""
    undated = predictor.manifest.model_copy(update={"created": ""})  # of an export.pkl it is when it was opened
    model = hashlib.sha256(format_manifest(undated)).hexdigest()
    names = hashlib.sha256()
    for name, _ in pictures:
        names.update(name.encode("utf-8", "surrogatepass") + b"\0")
    fields = {"version": __version__, "model": model, "images": names.hexdigest()}
    backend = predictor.backend
    return fields | {"tta": tta, "batch": BATCH, "backend": backend.name, "lanes": backend.lanes}


def _count(rows: Iterable[Prediction], resumed: int) -> Counts:
    images = failed = 0
    first = ""
    for row in rows:
        images += 1
        if row.status == "failed":
            failed += 1
            first = first or f"{row.image}: {row.reason}"
    return Counts(images, failed, resumed, first)
