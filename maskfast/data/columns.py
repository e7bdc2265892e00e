"""What the columns of a table hold: a frame goes in, those of its pictures' names and labels come out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskfast.data.delimited import find_column
from maskfast.data.labels import SPELLINGS, fold_spelling, read_label

if TYPE_CHECKING:
    import pandas as pd

IMAGE_COLUMNS = ("image", "path", "file", "filename", "file_name", "name", "image_id", "img", "picture", "id")
LABEL_COLUMNS = ("label", "target", "class", "classname", "class_name")
"""Columns that say what a picture shows, the likeliest first; those whose header names a class come next."""
VAGUE_COLUMNS = ("y", "category")
OWN_COLUMNS = frozenset({"split", "fold", "source", "group"})
"""Columns that are read for something else and are never labels, even where there is no other."""


@dataclass(frozen=True)
class LabelColumns:
    """The columns that say what a picture shows: one, or one for each class."""

    mask: tuple[str, ...] = ()
    """Here 1 is a mask."""
    no_mask: tuple[str, ...] = ()
    """Here 1 is no mask."""


def find_image_column(df: "pd.DataFrame") -> str | None:
    """Return the column that names the pictures: by its header, or the first of two."""
    return find_column(df, IMAGE_COLUMNS) or (str(df.columns[0]) if len(df.columns) == 2 else None)


def find_label_columns(df: "pd.DataFrame", image: str) -> LabelColumns | None:
    """Return what says the label: a column called so, those called like a class, or the only other one."""
    others = [str(column) for column in df.columns if column != image]
    if named := find_column(df[others], LABEL_COLUMNS):
        return LabelColumns(mask=(named,))
    spelled = {column: label for column in others if (label := read_header_label(column)) is not None}
    if spelled:
        mask, no_mask = (tuple(column for column in spelled if spelled[column] == label) for label in (1, 0))
        return LabelColumns(mask, no_mask)
    only = others[0] if len(others) == 1 and others[0].casefold() not in OWN_COLUMNS else None
    found = find_column(df[others], VAGUE_COLUMNS) or only
    return LabelColumns(mask=(found,)) if found else None


def read_header_label(column: str) -> int | None:
    """Return what a column's 1 means where its header names a class, as in `Has Mask?` or `no_mask`."""
    words = fold_spelling(column.rstrip(" ?")).removeprefix("is ")
    return SPELLINGS.get(words) if "mask" in words else None


def read_row_label(cells: Mapping[Any, Any], columns: LabelColumns, *, positive: str | None) -> int | None:
    """Return the label that a row's cells say, None where all are empty.

    Raises ValueError for what is unclear, and where the columns of two classes contradict each other.
    """
    shown = [read_label(cells[column], positive=positive) for column in columns.mask]
    hidden = [_read_inverted(cells[column], positive) for column in columns.no_mask]
    said = {choose(known) for choose, given in ((max, shown), (min, hidden)) if (known := _drop_empty(given))}
    if len(said) > 1:
        names = " and ".join((*columns.mask, *columns.no_mask))
        raise ValueError(f"the columns {names} contradict each other")
    return next(iter(said), None)


def _read_inverted(cell: object, positive: str | None) -> int | None:
    label = read_label(cell, positive=positive)
    if label is None or positive is not None or "mask" in str(cell).casefold():  # it names the class itself
        return label
    return 1 - label


def _drop_empty(labels: list[int | None]) -> list[int]:
    return [label for label in labels if label is not None]
