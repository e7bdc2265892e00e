"""The items table itself: rows of one source go in, a frame with the agreed columns and types comes out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
"""What people call the splits, in small letters."""

_DEFAULTS: dict[str, Any] = {
    "image": "",
    "path": "",
    "label": None,
    "source": "",
    "group": None,
    "split": None,
    "status": "ok",
    "reason": "",
    "row": "",
}
_TYPES = {"label": "Int64", "group": "Int64", "split": "string"}


def make_items(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Return the frame of `rows`, each a mapping of some of the columns; what it leaves out gets the default.

    Beside the agreed columns there is `row`, which says where the row was read ("labels.csv row 7").
    """
    import pandas as pd

    extra = sorted({key for row in rows for key in row} - _DEFAULTS.keys())
    columns = {
        name: pd.Series([row.get(name, default) for row in rows], dtype=_TYPES.get(name, "object"))
        for name, default in (*_DEFAULTS.items(), *((name, None) for name in extra))
    }
    return pd.DataFrame(columns)


def mark_repeats(items: "pd.DataFrame") -> "pd.DataFrame":
    """Mark rows of one file: "conflict" on all where their labels differ, "duplicate" on all but the first otherwise.

    Only rows that are ok and labelled can contradict each other.
    """
    items = items.copy()
    usable = items[(items["status"] == "ok") & (items["path"] != "")]
    for _, same in usable[usable.duplicated("path", keep=False)].groupby("path", sort=False):
        first = same["row"].iloc[0]
        if same["label"].dropna().nunique() > 1:
            where = " and ".join(same["row"].astype(str).iloc[:5])
            items.loc[same.index, ["status", "reason"]] = ["conflict", f"different labels in {where}"]
        else:
            items.loc[same.index[1:], ["status", "reason"]] = ["duplicate", f"the same file as in {first}"]
    return items
