"""What a challenge asks for: a folder or sample_submission.csv goes in, the ids to answer and their files come out."""

import os
from dataclasses import dataclass
from pathlib import Path

from maskfast.core.errors import DataError
from maskfast.data.delimited import read_table
from maskfast.data.names import NameIndex
from maskfast.data.roots import find_picture_roots

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

    Raises DataError where there is none, or where it has not two columns.
    """
    sample = find_sample(Path(data))
    df = read_table(sample)
    if len(df.columns) < 2:
        raise DataError(f"{sample}: one column {df.columns[0]!r}; expected an image and a target column")
    ids = [str(name) for name in df.iloc[:, 0]]
    index = NameIndex(find_picture_roots(sample.parent))
    found = [_find(index, name) for name in ids]
    paths, reasons = [path for path, _ in found], [reason for _, reason in found]
    return Submission(ids, paths, reasons, str(df.columns[0]), str(df.columns[1]))


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


def _find(index: NameIndex, name: str) -> tuple[Path | None, str]:
    try:
        return index.find(name), ""
    except LookupError as error:
        return None, str(error)
