"""Rows of predictions go in, a CSV, JSON lines or Parquet file comes out, streamed and whole."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import IO, Any

from maskfast.core.errors import ConfigError
from maskfast.core.files import find_target, open_whole
from maskfast.data.names import disarm_name
from maskfast.score.predictor import Prediction

COLUMNS = tuple(field.name for field in fields(Prediction))
GROUP = 4096
"""Rows of one Parquet row group."""


def check_rows_file(out: Path) -> None:
    """Make the folder of `out`; ConfigError or DataError, before any scoring, where rows cannot be written there."""
    if out.suffix.lower() not in ROW_WRITERS:
        raise ConfigError(f"--out {out}: unknown ending; use {', '.join(ROW_WRITERS)}")
    if out.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ModuleNotFoundError as error:
            raise ConfigError(f"--out {out}: {error.name} is not installed; pip install pyarrow") from error
    find_target(out)


def write_rows(out: Path, rows: Iterable[Prediction]) -> None:
    """Write `rows` to `out`, in the format of its ending; the file appears under its name when it is whole."""
    with open_whole(out, "wb") as file:
        ROW_WRITERS[out.suffix.lower()](file, iter(rows))


def format_csv(rows: Iterable[Prediction]) -> Iterator[str]:
    """Yield the lines of a CSV table."""
    yield format_csv_row(None)
    yield from map(format_csv_row, rows)


def format_json(rows: Iterable[Prediction]) -> Iterator[str]:
    """Yield the parts of a JSON list of objects, one a row."""
    start = "["
    for row in rows:
        yield f"{start}\n  {json.dumps(asdict(row))}"
        start = ","
    yield "[]\n" if start == "[" else "\n]\n"


def format_csv_row(row: Prediction | None) -> str:
    """Return the line of one prediction, or of the header; names that look like formulas get `./` in front."""
    line = io.StringIO()
    cells = {} if row is None else asdict(row) | {"image": disarm_name(row.image)}
    values = ["" if value is None else value for value in cells.values()] or COLUMNS
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _write_csv(file: IO[bytes], rows: Iterator[Prediction]) -> None:
    for line in format_csv(rows):
        file.write(line.encode("utf-8", "surrogateescape"))


def _write_jsonl(file: IO[bytes], rows: Iterator[Prediction]) -> None:
    for row in rows:
        file.write(json.dumps(asdict(row)).encode() + b"\n")


def _write_parquet(file: IO[bytes], rows: Iterator[Prediction]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    schema = pa.schema([(name, pa.float64() if name == "probability" else pa.string()) for name in COLUMNS])
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, GROUP)):
            writer.write_table(pa.Table.from_pylist([_clean(row) for row in group], schema=schema))


def _clean(row: Prediction) -> dict[str, Any]:
    """Parquet knows valid Unicode only; bytes of a name that are none are shown as replacement characters."""
    return asdict(row) | {"image": row.image.encode("utf-8", "surrogateescape").decode("utf-8", "replace")}


ROW_WRITERS: dict[str, Callable[[IO[bytes], Iterator[Prediction]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
