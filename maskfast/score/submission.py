"""A challenge's sample submission goes in; a submission with exactly its rows, checked, comes out."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from maskfast.core.errors import ConfigError, DataError
from maskfast.core.files import find_target, write_whole
from maskfast.score.batch import Track
from maskfast.score.decoders import DecoderPool
from maskfast.score.predictor import Prediction, Predictor
from maskfast.score.rows import format_line

if TYPE_CHECKING:
    from maskfast.data.submission import Submission


@dataclass(frozen=True)
class SubmissionCounts:
    """How many rows were written, and for which of them (id and reason) the probability is the one for missing."""

    rows: int
    filled: tuple[str, ...]


def write_submission(
    predictor: Predictor,
    data: str | os.PathLike[str],
    out: str | Path,
    *,
    tta: bool = False,
    missing: float | None = None,
    track: Track = lambda rows, total, done: rows,  # noqa: ARG005
) -> SubmissionCounts:
    """Score exactly the rows of the sample submission in `data` and write them, in its order and header, to `out`.

    `missing` is the probability to write where a picture is missing or unusable; without it such a row is a DataError
    and nothing is written. Ids, order, number and range are checked before the file appears.
    """
    from maskfast.data.submission import read_submission

    if missing is not None and not 0 <= missing <= 1:
        raise ConfigError(f"--missing {missing}: is no probability; use a number from 0 to 1")
    sample = read_submission(data)
    find_target(out)  # before the pictures are scored, which takes long
    rows = list(track(_score_sample(predictor, sample, tta), len(sample.ids), 0))
    filled = tuple(f"{row.image}: {row.reason}" for row in rows if row.status == "failed")
    if filled and missing is None:
        raise DataError(
            f"{data}: {len(filled)} of {len(rows)} pictures cannot be scored, the first: {filled[0]}; mend them, "
            "or say which probability to write for them with --missing"
        )
    rows = [replace(row, probability=missing) if row.status == "failed" else row for row in rows]
    check_submission(sample.ids, rows)
    write_whole(out, format_submission(sample, rows))
    return SubmissionCounts(len(rows), filled)


def check_submission(ids: list[str], rows: list[Prediction]) -> None:
    """Raise DataError where `rows` are not those ids in that order with a probability each."""
    if len(rows) != len(ids):
        raise DataError(f"submission: {len(rows)} rows, the sample has {len(ids)}")
    for number, (name, row) in enumerate(zip(ids, rows, strict=True), start=1):
        if row.image != name:
            raise DataError(f"submission: row {number} is {row.image}, the sample has {name}")
        if row.probability is None or not math.isfinite(row.probability) or not 0 <= row.probability <= 1:
            raise DataError(f"submission: row {number} ({name}): {row.probability} is no probability")


def format_submission(sample: "Submission", rows: list[Prediction]) -> str:
    """Return the submission's CSV with the sample's header."""
    lines = [(sample.id_column, sample.target_column), *((row.image, repr(row.probability)) for row in rows)]
    return "".join(map(format_line, lines))


def _score_sample(predictor: Predictor, sample: "Submission", tta: bool) -> Iterator[Prediction]:
    """Yield a row an id; ids without a picture are failed rows and never reach the network."""
    found = [(name, path) for name, path in zip(sample.ids, sample.paths, strict=True) if path is not None]
    with DecoderPool(predictor.size, predictor.method) as pool:
        scored = predictor.predict_many(found, tta=tta, decode=pool.decode)
        for name, path, reason in zip(sample.ids, sample.paths, sample.reasons, strict=True):
            yield Prediction(name, None, "", "failed", reason) if path is None else next(scored)
