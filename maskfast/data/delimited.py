"""Tables as people save them: a CSV or Parquet file goes in, a frame of text cells comes out."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskfast.core.errors import DataError
from maskfast.core.files import open_whole
from maskfast.data.names import disarm_name, ends_like_picture

if TYPE_CHECKING:
    import pandas as pd

MAX_TABLE_BYTES = 512 * 2**20
"""The largest CSV that is read."""

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq")
"""Endings of files that are taken for tables."""

_DELIMITERS = ",;\t|"
_ROWS = 2048


def read_table(path: Path) -> "pd.DataFrame":
    """Return the table with every cell as text, "" where empty, and header names without blanks around them.

    CSV may have a BOM (UTF-8 or UTF-16), any line ends, and commas, semicolons, tabs or bars between cells.
    Raises DataError: missing, empty, not text, without header or rows, with rows of different lengths, or repeated
    columns.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a CSV or Parquet table")
    df = _read_parquet(path) if path.suffix.casefold() in (".parquet", ".pq") else _read_csv(path)
    df.columns = [str(column).strip() for column in df.columns]
    if df.empty:
        raise DataError(f"{path}: the table has no rows")
    return df


def _read_parquet(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        df = pd.read_parquet(path)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise DataError(f"{path}: not a readable Parquet table: {error}") from error
    return df.astype("object").where(df.notna(), "").astype(str)


def _read_csv(path: Path) -> "pd.DataFrame":
    import warnings

    import pandas as pd

    text = _read_text(path)
    header = next((line for line in text.splitlines() if line.strip()), "")
    if not header:
        raise DataError(f"{path}: the file is empty")
    delimiter = max(_DELIMITERS, key=header.count)
    try:
        _check_header(path, next(csv.reader([header], delimiter=delimiter)))
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the header
            return pd.read_csv(
                io.StringIO(text),
                sep=delimiter,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                skipinitialspace=True,
            ).fillna("")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table: {' '.join(str(error).split())}") from error


def _check_header(path: Path, columns: list[str]) -> None:
    names = [column.strip() for column in columns]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{path}: column {repeated!r} appears twice; rename one")
    if any(map(ends_like_picture, names)) or _is_row(names):
        raise DataError(f"{path}: its first line, {', '.join(names)}, is no header; put one above, such as image,label")


def _is_row(names: list[str]) -> bool:
    """Tell whether a header is a name and a label; 0,1 is what pandas writes above columns without names."""
    return len(names) == 2 and names[0] != "0" and bool(re.fullmatch(r"[01](\.0*)?", names[1]))


def _read_text(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_TABLE_BYTES:
        raise DataError(f"{path}: {size} bytes are more than {MAX_TABLE_BYTES}; split the table")
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8; save the table as CSV in UTF-8") from error
    if "\0" in text:
        raise DataError(f"{path}: not text; save the table as CSV in UTF-8")
    return text


def find_column(df: "pd.DataFrame", names: Sequence[str]) -> str | None:
    """Return the column of `df` that is called like the first of `names` that is there, without regard to case."""
    spelled = {column.casefold().replace(" ", "_"): column for column in df.columns}
    return next((spelled[name] for name in names if name in spelled), None)


def write_csv(path: Path, df: "pd.DataFrame") -> None:
    """Write `df` as CSV to `path`, whole or not at all, with text that begins like a formula disarmed.

    Memory beside the frame is that of some thousand rows.
    """
    texts = df.select_dtypes(include=["object", "string"]).columns
    with open_whole(path, "w") as stream:
        for start in range(0, max(len(df), 1), _ROWS):
            part = df.iloc[start : start + _ROWS]
            safe = part.assign(**{name: part[name].map(_disarm) for name in texts})
            safe.to_csv(stream, index=False, header=start == 0, lineterminator="\n")


def _disarm(cell: object) -> object:
    return disarm_name(cell) if isinstance(cell, str) else cell
