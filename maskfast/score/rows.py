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
from maskfast.data.names import disarm_name, show_name
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
    if row is None:
        return format_line(COLUMNS)
    cells = asdict(row) | {"image": disarm_name(row.image), "reason": disarm_name(row.reason)}
    return format_line("" if value is None else value for value in cells.values())


def format_line(cells: Iterable[Any]) -> str:
    """Return a line of CSV, which ends in a newline."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # which has it quote a carriage return in a cell
    return line.getvalue().removesuffix("\r\n") + "\n"


def list_cells(row: Prediction) -> dict[str, Any]:
    """Return a row's cells by column in valid Unicode, for tables that know nothing else (see `show_name`)."""
    return asdict(row) | {"image": show_name(row.image), "reason": show_name(row.reason)}


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
            writer.write_table(pa.Table.from_pylist([list_cells(row) for row in group], schema=schema))


ROW_WRITERS: dict[str, Callable[[IO[bytes], Iterator[Prediction]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
