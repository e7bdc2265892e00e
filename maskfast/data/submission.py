"""What a challenge asks for: a folder or sample_submission.csv goes in, the ids to answer and their files come out."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskfast.core.errors import DataError
from maskfast.data.columns import read_header_label
from maskfast.data.delimited import read_table
from maskfast.data.finding import NameIndex
from maskfast.data.roots import find_picture_roots

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_NAME = "sample_submission.csv"


@dataclass(frozen=True)
class Submission:
    """The rows of a sample submission, in its order."""

    ids: list[str]
    """As the file writes them."""
    paths: list[Path | None]
    """The picture of each id; None where there is none."""
    reasons: list[str]
    """Why a path is None; "" where it is not."""
    id_column: str
    target_column: str


def read_submission(data: str | os.PathLike[str]) -> Submission:
    """Read the sample submission of a challenge folder (or the file itself) and find its pictures.

    Raises DataError where there is none, or where it has not two columns, the second for the probability of a mask.
    """
    sample = find_sample(Path(data))
    df = read_table(sample)
    columns = [str(column) for column in df.columns]
    if len(columns) != 2:
        seen = f"{len(columns)} columns, {', '.join(columns)}"
        raise DataError(f"{sample}: {seen}; expected two, an image and a target column")
    if read_header_label(columns[1]) == 0:
        raise DataError(f"{sample}: column {columns[1]!r} asks for no mask; expected one in which 1 is a mask")
    found = _find_pictures(df, sample)
    return Submission(
        [name for name, _, _ in found], [path for _, path, _ in found], [reason for _, _, reason in found], *columns
    )


def find_sample_pictures(sample: Path) -> list[tuple[str, Path | None, str]]:
    """Return the ids in the first column of a sample, each with its picture or the reason why there is none."""
    return _find_pictures(read_table(sample), sample)


def find_sample(data: Path) -> Path:
    """Return the path of the sample submission that `data` is or holds; raises DataError."""
    if data.is_file() and data.suffix.casefold() == ".csv":
        return data
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; give the challenge's folder or its {SAMPLE_NAME}")
    found = sorted(path for path in data.glob("*.csv") if "submission" in path.name.casefold())
    if len(found) != 1:
        raise DataError(f"{data}: {len(found)} files called like {SAMPLE_NAME}; give the right one by its path")
    return found[0]


def _find_pictures(df: "pd.DataFrame", sample: Path) -> list[tuple[str, Path | None, str]]:
    index = NameIndex(find_picture_roots(sample.parent, part="test"))
    return [(str(name), *_find(index, str(name))) for name in df.iloc[:, 0]]


def _find(index: NameIndex, name: str) -> tuple[Path | None, str]:
    try:
        return index.find(name), ""
    except LookupError as error:
        return None, str(error)
