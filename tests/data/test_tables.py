import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from maskfast.core.errors import ConfigError, DataError
from maskfast.data.submission import read_submission
from maskfast.data.tables import drop_items, read_items, select_usable

LABELS = "photo,masked\na.jpg,1\nb.png,0\nc.webp,1\n"
SAMPLE = "photo,masked\nd.jpg,0\nnone.jpg,0\n"


def labels_of(items: pd.DataFrame) -> dict[str, object]:
    return {
        name: None if pd.isna(label) else int(label) for name, label in zip(items["image"], items["label"], strict=True)
    }


def reasons_of(items: pd.DataFrame) -> dict[str, tuple[str, str]]:
    bad = items[items["status"] != "ok"]
    return {row.row: (row.status, row.reason) for row in bad.itertuples()}


@pytest.mark.parametrize("zipped", [False, True])
def test_the_challenge_layout_with_its_own_headers(write_challenge: Callable[..., Path], zipped: bool) -> None:
    folder = write_challenge(LABELS, sample=SAMPLE, zipped=zipped)
    items = read_items(folder)
    assert labels_of(items) == {"a.jpg": 1, "b.png": 0, "c.webp": 1, "d.jpg": None, "none.jpg": None}
    assert items["split"].tolist()[3:] == ["test", "test"]
    assert items["split"].isna().sum() == 3
    assert all(
        Path(path).is_file() and Path(path).name == name
        for name, path in zip(items["image"], items["path"], strict=True)
        if path
    )
    assert reasons_of(items) == {"sample_submission.csv none.jpg": ("missing", "no such file")}
    assert set(items["source"]) == {str(folder)}
    assert str(items["label"].dtype) == "Int64"
    assert len(select_usable(items)) == 3


def test_a_submission_keeps_order_ids_and_header(write_challenge: Callable[..., Path]) -> None:
    folder = write_challenge(LABELS, sample="photo,masked\nd.jpg,0\nnone.jpg,0\na.jpg,0\n../x.jpg,0\n")
    submission = read_submission(folder)
    assert submission.ids == ["d.jpg", "none.jpg", "a.jpg", "../x.jpg"]
    assert (submission.id_column, submission.target_column) == ("photo", "masked")
    assert [path and path.name for path in submission.paths] == ["d.jpg", None, "a.jpg", None]
    assert submission.reasons == ["", "no such file", "", "the name leads outside the folder"]


@pytest.mark.parametrize(
    ("mask", "other"),
    [("with_mask", "without_mask"), ("mask", "no-mask"), ("Masked", "Unmasked"), ("1", "0"), ("yes", "no")],
)
def test_a_folder_a_class(write_pictures: Callable[..., Path], mask: str, other: str) -> None:
    folder = write_pictures(f"{mask}/a.jpg", f"{mask}/deep/b.png", f"{other}/c.jpg")
    (folder / mask / "notes.txt").write_text("no picture")
    items = read_items(folder)
    assert labels_of(items) == {f"{mask}/a.jpg": 1, f"{mask}/deep/b.png": 1, f"{other}/c.jpg": 0}


def test_split_folders_with_classes(write_pictures: Callable[..., Path]) -> None:
    folder = write_pictures("train/mask/a.jpg", "val/mask/b.jpg", "val/no-mask/c.jpg", "test/no-mask/d.jpg")
    items = read_items(folder)
    assert dict(zip(items["image"], items["split"], strict=True)) == {
        "train/mask/a.jpg": "train", "val/mask/b.jpg": "valid", "val/no-mask/c.jpg": "valid",
        "test/no-mask/d.jpg": "test",
    }  # fmt: skip


def test_a_wrapped_zip_of_class_folders(write_pictures: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_pictures("set/mask/a.jpg", "set/no_mask/b.jpg")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in folder.rglob("*.jpg"):
            archive.write(path, path.relative_to(folder))
    assert labels_of(read_items(tmp_path / "set.zip")) == {"mask/a.jpg": 1, "no_mask/b.jpg": 0}


def test_a_wrapped_zip_of_a_challenge(write_challenge: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_challenge(LABELS, sample=SAMPLE)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, f"wrapper/{path.relative_to(folder)}")
    items = read_items(tmp_path / "all.zip")
    assert labels_of(items) == labels_of(read_items(folder))
    assert items["split"].eq("test").sum() == 2


def test_unclear_class_folders_are_refused_and_positive_says_it(write_pictures: Callable[..., Path]) -> None:
    folder = write_pictures("blue/a.jpg", "red/b.jpg")
    with pytest.raises(DataError, match="--positive"):
        read_items(folder)
    assert labels_of(read_items(folder, positive="red")) == {"blue/a.jpg": 0, "red/b.jpg": 1}
    with pytest.raises(ConfigError, match="green"):
        read_items(folder, positive="green")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_paths_and_labels(write_pictures: Callable[..., Path], kind: str) -> None:
    folder = write_pictures("in/a.jpg", "in/b.jpg")
    df = pd.DataFrame({"path": ["in/a.jpg", str(folder / "in" / "b.jpg")], "label": [True, False], "fold": [0, 1]})
    table = folder / f"t.{kind}"
    df.to_csv(table, index=False) if kind == "csv" else df.to_parquet(table)
    items = read_items(table)
    assert items["label"].tolist() == [1, 0]
    assert [Path(path).name for path in items["path"]] == ["a.jpg", "b.jpg"]
    assert items["fold"].tolist() == ["0", "1"]


@pytest.mark.parametrize(
    "cells",
    [("1", "0"), ("1.0", "0.0"), ("true", "FALSE"), ("mask", "no mask"), ("with_mask", "without_mask"),
     ("0.97", "0.02"), ("Yes", "No")],
)  # fmt: skip
def test_spellings_of_labels(write_challenge: Callable[..., Path], cells: tuple[str, str]) -> None:
    folder = write_challenge(f"image,target\na.jpg,{cells[0]}\nb.png,{cells[1]}\n")
    assert labels_of(read_items(folder)) == {"a.jpg": 1, "b.png": 0}


@pytest.mark.parametrize(
    "text",
    ["\ufeffimage,target\r\na.jpg,1\r\nb.png,0\r\n", "image;target\na.jpg;1\nb.png;0\n",
     "image\ttarget\na.jpg\t1\nb.png\t0",
     " image , target \n a.jpg , 1 \n b.png , 0 \n", '"image","target"\n"a.jpg","1"\n"b.png","0"\n',
     "image,target\n.\\a.jpg,1\nimages\\b.png,0\n", "image,target\na,1\nB.PNG,0\n",
     "image,target\nC:\\pics\\a.jpg,1\nD:\\x\\b.png,0\n"],
)  # fmt: skip
def test_tables_as_people_save_them(write_challenge: Callable[..., Path], text: str) -> None:
    items = read_items(write_challenge(text))
    assert [Path(path).name for path in items["path"]] == ["a.jpg", "b.png"]
    assert items["label"].tolist() == [1, 0]


def test_names_in_another_unicode_form_are_found(write_challenge: Callable[..., Path]) -> None:
    folder = write_challenge("image,target\ne\u0301.jpg,1\n\u00fc.jpg,0\n", names=("\u00e9.jpg", "u\u0308.jpg"))
    assert set(read_items(folder)["status"]) == {"ok"}


def test_bad_rows_stay_with_their_reason(write_challenge: Callable[..., Path]) -> None:
    rows = "a.jpg,1\nb.png,\n../../etc/passwd,1\nnone.jpg,0\na.jpg,1\nc.webp,1\nc.webp,0\nd.jpg,maybe\n,1\n"
    assert reasons_of(read_items(write_challenge("image,target\n" + rows))) == {
        "train_labels.csv row 3": ("refused", "no label"),
        "train_labels.csv row 4": ("refused", "the name leads outside the folder"),
        "train_labels.csv row 5": ("missing", "no such file"),
        "train_labels.csv row 6": ("duplicate", "the same file as in train_labels.csv row 2"),
        "train_labels.csv row 7": ("conflict", "different labels in train_labels.csv row 7 and train_labels.csv row 8"),
        "train_labels.csv row 8": ("conflict", "different labels in train_labels.csv row 7 and train_labels.csv row 8"),
        "train_labels.csv row 9": ("refused", "label 'maybe' is neither mask nor no mask"),
        "train_labels.csv row 10": ("refused", "empty name"),
    }


def test_several_sources_are_kept_apart(write_pictures: Callable[..., Path]) -> None:
    first = write_pictures("mask/a.jpg", "no_mask/b.jpg", folder="one")
    second = write_pictures("mask/a.jpg", folder="two")
    items = read_items(first, second, first)
    assert items["source"].tolist() == [str(first)] * 2 + [str(second)] + [str(first)] * 2
    assert items["status"].tolist() == ["ok"] * 3 + ["duplicate"] * 2


def test_dropped_rows(write_challenge: Callable[..., Path], tmp_path: Path) -> None:
    items = read_items(write_challenge(LABELS))
    (tmp_path / "drop.csv").write_text("rank,image,label\n1,b.png,0\n2,./c.webp,1\n")
    dropped = drop_items(items, tmp_path / "drop.csv")
    assert dropped["status"].tolist() == ["ok", "dropped", "dropped"]
    (tmp_path / "drop.csv").write_text("image\nelse.jpg\n")
    with pytest.raises(DataError, match="none of its 1 images"):
        drop_items(items, tmp_path / "drop.csv")


def test_dropped_rows_of_one_of_several_sources(write_pictures: Callable[..., Path], tmp_path: Path) -> None:
    first = write_pictures("mask/a.jpg", "no_mask/b.jpg", folder="one")
    items = read_items(first, write_pictures("mask/a.jpg", folder="two"))
    (tmp_path / "drop.csv").write_text(f"image,source,doubt\nmask/a.jpg,{first},0.9\n")
    assert drop_items(items, tmp_path / "drop.csv")["status"].tolist() == ["dropped", "ok", "ok"]


@pytest.mark.shared
def test_spot_the_mask_as_it_is(shared: Path) -> None:
    items = read_items(shared / "data" / "spot-the-mask")
    assert (items["status"] == "ok").all()
    assert items["label"].notna().sum() == 1308
    assert items["split"].eq("test").sum() == 509


def test_an_archive_of_another_purpose_is_left_closed(write_pictures: Callable[..., Path]) -> None:
    folder = write_pictures("in/a.jpg", "in/b.jpg")
    (folder / "invoices.zip").write_bytes(b"PK\3\4 encrypted by somebody")
    (folder / "t.csv").write_text("path,label\nin/a.jpg,1\nin/b.jpg,0\n")
    assert read_items(folder / "t.csv")["status"].tolist() == ["ok", "ok"]
