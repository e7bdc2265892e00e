import numpy as np
import pandas as pd
import pytest

from maskfast.core.errors import DataError
from maskfast.data.frames import make_items
from maskfast.data.splits import fold_items, split_items


def make_table(count: int = 200, *, seed: int = 0) -> pd.DataFrame:
    chance = np.random.default_rng(seed)
    rows = [{"image": f"{i}.jpg", "path": f"/p/{i}.jpg", "label": int(chance.random() < 0.3)} for i in range(count)]
    items = make_items(rows)
    items["group"] = pd.array(chance.integers(0, count // 2, count), dtype="Int64")
    return items


def test_groups_never_cross_and_classes_stay_balanced() -> None:
    items = split_items(make_table(), valid=0.25)
    assert items.groupby("group")["split"].nunique().max() == 1
    parts = items.groupby("split")["label"].agg(["size", "mean"])
    assert 40 <= parts.loc["valid", "size"] <= 60
    assert abs(parts.loc["valid", "mean"] - parts.loc["train", "mean"]) < 0.08


def test_folds_cover_every_usable_row_once() -> None:
    table = make_table()
    table.loc[:9, "status"] = "refused"
    table.loc[10:19, "split"] = "test"
    table.loc[20:29, "label"] = pd.NA
    items = fold_items(table, 5)
    assert items["fold"][:30].isna().all()
    assert sorted(items["fold"][30:].unique()) == [0, 1, 2, 3, 4]
    assert items[30:].groupby("group")["fold"].nunique().max() == 1


def test_a_seed_decides() -> None:
    table = make_table()
    assert split_items(table, seed=1)["split"].equals(split_items(table, seed=1)["split"])
    assert not split_items(table, seed=1)["split"].equals(split_items(table, seed=2)["split"])


def test_given_splits_and_folds_are_honoured() -> None:
    table = make_table(20)
    table["split"] = pd.array(["valid", "test", pd.NA, "train"] * 5, dtype="string")
    assert split_items(table)["split"].tolist() == ["valid", "test", "train", "train"] * 5
    table = make_table(20)
    table["fold"] = ["b", "a"] * 10
    assert fold_items(table, 2)["fold"].tolist() == [1, 0] * 10
    with pytest.raises(DataError, match="--folds 2"):
        fold_items(table, 5)


def test_rows_without_group_stand_alone() -> None:
    table = make_table(40)
    table["group"] = pd.array([pd.NA] * 40, dtype="Int64")
    assert split_items(table)["split"].eq("valid").sum() == 8


@pytest.mark.parametrize(
    ("pictures", "valid", "taken"),
    [(200, 0.2, 40), (200, 0.3, 60), (200, 0.4, 80), (200, 0.05, 10), (200, 0.02, 4), (200, 0.999, 190), (12, 0.3, 4)],
)
def test_the_part_for_validation_is_as_large_as_asked_for(pictures: int, valid: float, taken: int) -> None:
    table = make_table(pictures)
    table["group"] = pd.array(range(pictures), dtype="Int64")
    table["label"] = pd.array([0, 1] * (pictures // 2), dtype="Int64")
    assert split_items(table, valid=valid)["split"].eq("valid").sum() == pytest.approx(taken, abs=1)


def test_too_few_pictures_of_a_class_are_named() -> None:
    table = make_table(30)
    table["label"] = pd.array([1] * 28 + [0] * 2, dtype="Int64")
    with pytest.raises(DataError, match=r"2 separate pictures of 'no mask' are too few for --valid 0\.2, "):
        split_items(table)
