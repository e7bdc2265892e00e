"""Parts that share no picture: an items table goes in, the same with group, split or fold comes out."""

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from maskfast.core.errors import DataError
from maskfast.data.duplicates import Matches, match_pictures
from maskfast.data.fingerprints import measure_pictures

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

CLASS_NAMES = ("no mask", "mask")
SPLIT_NAMES = ("train", "valid", "test")
MAX_PARTS = 20
"""Parts at most that the pictures are dealt into, some of which are for validation."""


def add_groups(
    items: "pd.DataFrame",
    *,
    prints: "pd.DataFrame | None" = None,
    matches: Matches | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> "pd.DataFrame":
    """Return the items with every picture read: near-duplicates share a `group`, unreadable ones are "refused".

    `prints` and `matches`: of the rows that are ok, where they were made already. `on_progress` is called with the
    number of pictures read so far; what was read is remembered between calls.
    """
    import pandas as pd

    items = items.copy()
    ok = items.index[items["status"] == "ok"]
    if prints is None:
        prints = measure_pictures(items.loc[ok, "path"].tolist(), on_progress=on_progress)
    items["group"] = pd.Series(pd.NA, index=items.index, dtype="Int64")
    items.loc[ok, "group"] = (matches or match_pictures(prints)).group
    bad = (prints["reason"] != "").to_numpy()
    items.loc[ok[bad], "status"] = "refused"
    items.loc[ok[bad], "reason"] = prints["reason"].to_numpy()[bad]
    items.loc[ok[bad], "group"] = pd.NA
    return items


def split_items(items: "pd.DataFrame", *, valid: float = 0.2, seed: int = 0) -> "pd.DataFrame":
    """Return the items with `split` "train" or "valid" on every usable row; groups stay whole, classes balanced.

    A split that the data brought is honoured: where a usable row is "valid" already, the others become "train"; rows
    of "test" are never touched. `valid` is the part of the rows for validation, to the nearest fraction of at most 20
    parts (fewer where a class has fewer groups), or 1/k below that. Raises DataError where a class has too few groups,
    and where the data brought a split of another name, or only "test".
    """
    items = items.copy()
    usable = _find_learnable(items)
    if not items.loc[usable, "split"].eq("valid").fillna(False).any():
        taken, parts = _find_fraction(valid, _count_groups(items[usable]))
        items.loc[usable, "split"] = "train"
        folds = _assign_folds(items[usable], parts, seed=seed, wish=f"--valid {valid:g}")
        items.loc[items.index[usable.to_numpy()][folds < taken], "split"] = "valid"
        return items
    items.loc[usable & items["split"].isna(), "split"] = "train"
    return items


def fold_items(items: "pd.DataFrame", k: int, *, seed: int = 0) -> "pd.DataFrame":
    """Return the items with `fold` 0 to k-1 on every usable row that is not "test"; groups stay whole.

    A complete `fold` column that the data brought is honoured, its values numbered in their order.
    Raises DataError where a class has too few groups, or the given folds are not k.
    """
    import pandas as pd

    items = items.copy()
    usable = _find_learnable(items)
    given = items.loc[usable, "fold"] if "fold" in items else None
    if given is not None and given.notna().all():
        names = sorted(given.unique(), key=str)
        if len(names) != k:
            raise DataError(f"the data brings {len(names)} folds of its own; ask for --folds {len(names)}")
        folds: Any = given.map({name: number for number, name in enumerate(names)}).to_numpy()
    else:
        folds = _assign_folds(items[usable], k, seed=seed, wish=f"--folds {k}")
    items["fold"] = pd.Series(pd.NA, index=items.index, dtype="Int64")
    items.loc[usable, "fold"] = folds
    return items


def _find_learnable(items: "pd.DataFrame") -> "pd.Series[bool]":
    usable = (items["status"] == "ok") & items["label"].notna()
    given = items.loc[usable, "split"]
    for row in items.loc[given[given.notna() & ~given.isin(SPLIT_NAMES)].index[:1]].itertuples():
        raise DataError(f"{row.source}: {row.row}: split {row.split!r} is not known; call it train, valid or test")
    learnable = usable & ~items["split"].eq("test").fillna(False)
    if usable.any() and not learnable.any():
        raise DataError(f"split: all {len(given)} labelled pictures are in 'test', which is never trained on; mend it")
    return learnable


def _assign_folds(items: "pd.DataFrame", k: int, *, seed: int, wish: str) -> "npt.NDArray[np.int64]":
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold

    labels = items["label"].to_numpy(dtype=np.int64)
    groups = fill_groups(items)
    for name, count in zip(CLASS_NAMES, _count_groups(items), strict=True):
        if count < k:
            raise DataError(
                f"{count} separate pictures of {name!r} are too few for {wish}, which takes {k} of each class at "
                "least; add some"
            )
    folds = np.zeros(len(items), dtype=np.int64)
    splitter = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(items)), labels, groups)):
        folds[held_out] = fold
    return folds


def fill_groups(items: "pd.DataFrame") -> "npt.NDArray[np.int64]":
    """Return one number a row: its group, or one of its own where it has none."""
    import numpy as np

    groups = items["group"]
    own = np.arange(len(items)) + int(groups.max() if groups.notna().any() else 0) + 1
    return np.where(groups.isna(), own, groups.fillna(0).to_numpy(dtype=np.int64))


def _count_groups(items: "pd.DataFrame") -> list[int]:
    """How many separate pictures of each class there are."""
    import numpy as np

    labels, groups = items["label"].to_numpy(dtype=np.int64), fill_groups(items)
    return [len(np.unique(groups[labels == label])) for label in range(len(CLASS_NAMES))]


def _find_fraction(valid: float, counts: list[int]) -> tuple[int, int]:
    """Numerator and denominator of a fraction between 0 and 1 near `valid`, in no more parts than a class can fill."""
    parts = max(2, round(1 / valid), min(MAX_PARTS, *counts))
    return min(Fraction(valid).limit_denominator(parts), Fraction(parts - 1, parts)).as_integer_ratio()
