"""The readers' front door: any DATA that a user names goes in, one items table comes out."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskfast.core.errors import ConfigError, DataError
from maskfast.data.columns import IMAGE_COLUMNS
from maskfast.data.delimited import find_column, read_table
from maskfast.data.frames import mark_repeats
from maskfast.data.layouts import read_layout
from maskfast.data.names import clean_name

if TYPE_CHECKING:
    import pandas as pd


def read_items(
    *data: str | os.PathLike[str], positive: str | None = None, classes: Mapping[str, str] | None = None
) -> "pd.DataFrame":
    """Read one or several DATA into an items table: a row a picture, in the order given.

    Columns: image (as written), path (absolute, "" where there is none), label (1 mask, 0 no mask, missing), source,
    group (missing until `splits.add_groups`), split (train, valid, test or missing), status (ok, missing, refused,
    conflict, duplicate), reason, row (where it was read), and where known boxes and fold.
    `positive`: the class name, or folder, that is "mask"; DATA without any of that name is read by its own names.
    `classes`: what box classes mean, beside `BOX_CLASSES`.
    Files are found and not yet opened: `splits.add_groups` and `audit.audit_items` read them.
    Raises DataError for data in no layout that is read, and where no row at all can be used.
    """
    import pandas as pd

    if not data:
        raise DataError("no data given; name a folder, a CSV or Parquet table, or a zip archive")
    parts = [read_layout(Path(given), source=os.fspath(given), positive=positive, classes=classes) for given in data]
    if positive is not None:
        parts = _read_spelled(parts, data, positive, classes)
    items = pd.concat(parts, ignore_index=True)
    items["path"] = [str(Path(path).absolute()) if path else "" for path in items["path"]]
    items = mark_repeats(items)
    if not (items["status"] == "ok").any():
        first = items.iloc[0]
        raise DataError(f"{data[0]}: none of {len(items)} rows can be used; {first['row']}: {first['reason']}")
    return items


def _read_spelled(
    parts: "list[pd.DataFrame]",
    data: Sequence[str | os.PathLike[str]],
    positive: str,
    classes: Mapping[str, str] | None,
) -> "list[pd.DataFrame]":
    """Read those DATA again, by their own names, in which nothing is called `positive`."""
    called = [bool(part["label"].eq(1).any()) for part in parts]
    if not any(called):
        raise ConfigError(f"--positive {positive}: no row or folder of {', '.join(map(str, data))} is called that")
    return [
        part if is_called else _read_own_names(given, positive, classes)
        for part, given, is_called in zip(parts, data, called, strict=True)
    ]


def _read_own_names(given: str | os.PathLike[str], positive: str, classes: Mapping[str, str] | None) -> "pd.DataFrame":
    try:
        return read_layout(Path(given), source=os.fspath(given), classes=classes)
    except DataError as error:
        raise DataError(
            f"--positive {positive}: nothing in {given} is called that, and by its own names: {error}"
        ) from error


def select_usable(items: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows that are ok and have a label, with a new index."""
    return items[(items["status"] == "ok") & items["label"].notna()].reset_index(drop=True)


def drop_items(items: "pd.DataFrame", file: str | os.PathLike[str]) -> "pd.DataFrame":
    """Mark the rows whose image (and source, where the table has one) is listed in `file` as "dropped".

    Raises DataError where none of the listed names is among the items.
    """
    import pandas as pd

    listed = read_table(Path(file))
    column = find_column(listed, IMAGE_COLUMNS) or str(listed.columns[0])
    sourced = "source" in listed.columns and set(listed["source"]) <= set(items["source"])
    keys = set(_make_keys(listed[[column, "source"] if sourced else [column]]))
    own = _make_keys(items[["image", "source"] if sourced else ["image"]])
    hit = pd.Series([key in keys for key in own], index=items.index) & (items["status"] == "ok")
    if not hit.any():
        raise DataError(f"{file}: none of its {len(listed)} images is among the data; was it made from other data?")
    items = items.copy()
    items.loc[hit, ["status", "reason"]] = ["dropped", f"listed in {file}"]
    return items


def _make_keys(df: "pd.DataFrame") -> list[tuple[str, ...]]:
    return [(clean_name(str(row[0])), *map(str, row[1:])) for row in df.itertuples(index=False)]
