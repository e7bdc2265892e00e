"""Which table of a folder is meant: a folder goes in, its table of labels or of boxes comes out."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from maskfast.core.errors import DataError
from maskfast.data.boxes import has_boxes
from maskfast.data.columns import IMAGE_COLUMNS, find_image_column, find_label_columns
from maskfast.data.delimited import find_column, read_table
from maskfast.data.names import ends_like_picture

if TYPE_CHECKING:
    import pandas as pd

LABEL_TABLES = ("train_labels.csv", "labels.csv", "train.csv", "data.csv")
"""Names of tables that are meant whatever lies beside them, the likeliest first."""
CROP_MANIFEST = "manifest.csv"
"""What `crops.crop_faces` writes beside the class folders; it is no table to learn from."""
RESULT_COLUMNS = ({"image", "status", "reason"}, {"image", "label", "probability"}, {"image", "finding"})
"""Columns by which the tables that maskfast writes of its answers are known: they are no labels to learn from."""

Tables = Mapping[Path, "pd.DataFrame | DataError"]


def read_tables(folder: Path) -> Tables:
    """Read the CSV tables of `folder` that may say what its pictures show; one that can't be read is its error."""
    paths = [path for path in sorted(folder.glob("*.csv")) if not _is_by_product(path.name.casefold())]
    read = {path: _read_or_tell(path) for path in paths}
    return {path: table for path, table in read.items() if is_named(path) or not _is_result(table)}


def is_named(path: Path) -> bool:
    """Tell whether a table has one of the usual names, and is meant even beside class folders."""
    return path.name.casefold() in LABEL_TABLES


def choose_labels(tables: Tables) -> Path | None:
    """Return the table of labels, if there is one; raises DataError where several could be, or it can't be read."""
    _raise_named(tables)
    return _choose([path for path, df in tables.items() if _has_labels(path, df)])


def choose_boxes(tables: Tables) -> Path | None:
    """Return the table of boxes, if there is one; raises DataError where several could be, or it can't be read."""
    _raise_named(tables)
    return _choose([path for path, df in tables.items() if not isinstance(df, DataError) and has_boxes(df)])


def describe_tables(tables: Tables) -> str:
    """Say of each table, where none is meant, what was seen in it; "" where there are none."""
    return "".join(f"; {_describe(path, table)}" for path, table in tables.items())


def _describe(path: Path, table: "pd.DataFrame | DataError") -> str:
    return str(table) if isinstance(table, DataError) else f"{path.name} has no label among {say_columns(table)}"


def say_columns(df: "pd.DataFrame") -> str:
    """Name the columns of a table for a message."""
    return f"its columns {', '.join(map(str, df.columns))}"


def _is_by_product(name: str) -> bool:
    return "submission" in name or name == CROP_MANIFEST


def _read_or_tell(path: Path) -> "pd.DataFrame | DataError":
    try:
        return read_table(path)
    except DataError as error:
        return error


def _is_result(table: "pd.DataFrame | DataError") -> bool:
    return not isinstance(table, DataError) and any(names <= set(table.columns) for names in RESULT_COLUMNS)


def _raise_named(tables: Tables) -> None:
    for path, table in tables.items():
        if is_named(path) and isinstance(table, DataError):
            raise table


def _has_labels(path: Path, df: "pd.DataFrame | DataError") -> bool:
    if isinstance(df, DataError) or has_boxes(df) or (image := find_image_column(df)) is None:
        return False
    known = is_named(path) or find_column(df, IMAGE_COLUMNS) is not None or _names_pictures(df[image])
    return known and find_label_columns(df, image) is not None


def _names_pictures(names: "pd.Series[str]") -> bool:
    return any(ends_like_picture(name.strip()) for name in names)


def _choose(found: list[Path]) -> Path | None:
    named = [path for name in LABEL_TABLES for path in found if path.name.casefold() == name]
    if len(found) > 1 and not named:
        first, second = found[:2]
        raise DataError(f"{first.parent}: {first.name} and {second.name} could both be meant; give one by its path")
    return next(iter([*named, *found]), None)
