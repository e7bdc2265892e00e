import shutil
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


def test_positive_is_read_source_by_source(write_pictures: Callable[..., Path]) -> None:
    clear = write_pictures("mask/a.jpg", "no-mask/b.jpg", folder="clear")
    named = write_pictures("red/c.jpg", "blue/d.jpg", folder="named")
    items = read_items(clear, named, positive="red")
    assert labels_of(items) == {"mask/a.jpg": 1, "no-mask/b.jpg": 0, "red/c.jpg": 1, "blue/d.jpg": 0}
    unclear = write_pictures("green/e.jpg", "pink/f.jpg", folder="unclear")
    with pytest.raises(DataError, match=r"nothing in .*unclear is called that.*unclear/green: is it mask"):
        read_items(named, unclear, positive="red")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("predictions.csv", "image,probability,label,status,reason\nmask/a.jpg,0.1,no_mask,ok,\n"),
        ("pictures.csv", "image,path,label,status,reason,sha1\nmask/a.jpg,mask/a.jpg,0,ok,,1\n"),
        ("findings.csv", "finding,image,path,label\nsmall,mask/a.jpg,mask/a.jpg,0\n"),
        ("label_errors.csv", "image,source,label,probability,doubt\nmask/a.jpg,x,0,0.1,0.9\n"),
        ("meta.csv", "k,v\nauthor,me\nlicence,yes\n"),
        ("sources.csv", "image,url\nmask/a.jpg,http://x\n"),
        ("stray.csv", ""),
        ("mine.csv", "image,label\nmask/a.jpg,0\n"),
    ],
)
def test_class_folders_count_more_than_other_tables(write_pictures: Callable[..., Path], name: str, text: str) -> None:
    folder = write_pictures("mask/a.jpg", "no_mask/b.jpg")
    (folder / name).write_text(text)
    assert labels_of(read_items(folder)) == {"mask/a.jpg": 1, "no_mask/b.jpg": 0}


@pytest.mark.parametrize("name", ["predictions.csv", "pictures.csv", "findings.csv", "meta.csv", "stray.csv"])
def test_tables_that_say_no_labels_are_passed_over(write_pictures: Callable[..., Path], name: str) -> None:
    folder = write_pictures("in/a.jpg", "in/b.jpg")
    texts = {
        "predictions.csv": "image,probability,label,status,reason\nin/a.jpg,0.1,no_mask,ok,\n",
        "pictures.csv": "image,path,label,status,reason\nin/a.jpg,in/a.jpg,0,ok,\n",
        "findings.csv": "finding,image,label\nsmall,in/a.jpg,0\n",
        "meta.csv": "k,v\nauthor,yes\n",
        "stray.csv": "",
    }
    (folder / name).write_text(texts[name])
    (folder / "mine.csv").write_text("path,label\nin/a.jpg,1\nin/b.jpg,0\n")
    assert labels_of(read_items(folder)) == {"in/a.jpg": 1, "in/b.jpg": 0}


def test_a_table_of_the_usual_name_counts_more_than_class_folders(write_pictures: Callable[..., Path]) -> None:
    folder = write_pictures("mask/a.jpg", "no_mask/b.jpg")
    (folder / "labels.csv").write_text("path,label\nmask/a.jpg,0\nno_mask/b.jpg,1\n")
    assert labels_of(read_items(folder)) == {"mask/a.jpg": 0, "no_mask/b.jpg": 1}
    (folder / "labels.csv").write_text("")
    with pytest.raises(DataError, match=r"labels\.csv: the file is empty"):
        read_items(folder)


def test_tables_that_could_both_be_meant_are_named(write_pictures: Callable[..., Path]) -> None:
    folder = write_pictures("in/a.jpg")
    for name in ("one.csv", "two.csv"):
        (folder / name).write_text("path,label\nin/a.jpg,1\n")
    with pytest.raises(DataError, match=r"one\.csv and two\.csv could both be meant"):
        read_items(folder)


@pytest.mark.parametrize("wrapper", ["facemask", "y", "facemask/facemask", "x/y", "mask/train"])
def test_a_folder_called_like_a_class_may_hold_the_classes(write_pictures: Callable[..., Path], wrapper: str) -> None:
    folder = write_pictures(f"{wrapper}/with_mask/a.jpg", f"{wrapper}/without_mask/b.jpg")
    assert sorted(read_items(folder)["label"]) == [0, 1]
    assert read_items(folder).set_index("label")["path"].str.endswith("with_mask/a.jpg").to_dict() == {
        1: True,
        0: False,
    }


def test_a_folder_called_like_a_class_may_hold_a_challenge(
    write_challenge: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_challenge(LABELS)
    (tmp_path / "all").mkdir()
    folder.rename(tmp_path / "all" / "facemask")
    assert labels_of(read_items(tmp_path / "all")) == {"a.jpg": 1, "b.png": 0, "c.webp": 1}


def test_folders_inside_clear_classes_say_nothing(write_pictures: Callable[..., Path]) -> None:
    folder = write_pictures("mask/f/a.jpg", "mask/y/b.jpg", "no_mask/0/c.jpg", "no_mask/1/d.jpg")
    assert read_items(folder)["label"].tolist() == [1, 1, 0, 0]


def test_classes_inside_one_of_several_folders_are_refused(write_pictures: Callable[..., Path]) -> None:
    folder = write_pictures("facemask/with_mask/a.jpg", "facemask/without_mask/b.jpg", "masks/c.jpg")
    with pytest.raises(DataError, match="facemask: holds both classes"):
        read_items(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,no_mask\na.jpg,1\nb.png,0\n", [0, 1]),
        ("image,without_mask\na.jpg,no\nb.png,yes\n", [1, 0]),
        ("image,no_mask\na.jpg,mask\nb.png,no mask\n", [1, 0]),
        ("File Name,Has Mask?,who\na.jpg,yes,me\nb.png,no,me\n", [1, 0]),
        ("image,is_masked,who\na.jpg,1,me\nb.png,0,me\n", [1, 0]),
        ("image,with_mask,without_mask\na.jpg,1,0\nb.png,0,1\n", [1, 0]),
        ("image,without_mask,with_mask,mask_weared_incorrect\na.jpg,0,0,1\nb.png,1,0,0\n", [1, 0]),
        ("image;label\na.jpg;0,9\nb.png;0,1\n", [1, 0]),
        ("image,label\na.jpg,masked\nb.png,un-masked\n", [1, 0]),
    ],
)
def test_headers_that_name_a_class(write_challenge: Callable[..., Path], text: str, expected: list[int]) -> None:
    assert read_items(write_challenge(text))["label"].tolist() == expected


def test_columns_of_two_classes_that_contradict_each_other_refuse_the_row(write_challenge: Callable[..., Path]) -> None:
    items = read_items(write_challenge("image,with_mask,without_mask\na.jpg,1,0\nb.png,0,1\nc.webp,1,1\n"))
    assert items["label"].tolist() == [1, 0, pd.NA]
    assert items["reason"].tolist()[2] == "the columns with_mask and without_mask contradict each other"


def test_a_table_without_labels_is_named_with_its_columns(write_challenge: Callable[..., Path]) -> None:
    folder = write_challenge("File Name,who,when\na.jpg,me,now\n")
    with pytest.raises(DataError, match=r"train_labels\.csv has no label among its columns File Name, who, when"):
        read_items(folder)
    items = read_items(folder / "train_labels.csv")
    assert items["status"].tolist() == ["ok"]
    assert "File Name, who, when" in items["reason"][0]


@pytest.mark.parametrize("first", ["a.jpg,1", "a,1", "a.jpg,mask", "x,a.jpg,1"])
def test_a_first_line_that_is_a_picture_is_no_header(write_challenge: Callable[..., Path], first: str) -> None:
    rest = first.replace("a", "b").replace("1", "0").replace("jpg", "png")
    with pytest.raises(DataError, match=rf"its first line, {', '.join(first.split(','))}, is no header"):
        read_items(write_challenge(f"{first}\n{rest}\n"))


def test_the_header_of_columns_without_names_is_one(write_challenge: Callable[..., Path]) -> None:
    assert labels_of(read_items(write_challenge("0,1\na.jpg,1\nb.png,0\n"))) == {"a.jpg": 1, "b.png": 0}


@pytest.mark.parametrize("header", ["image,no_mask,mask", "image,target,weight", "image"])
def test_a_sample_of_more_than_two_columns_is_no_submission(write_challenge: Callable[..., Path], header: str) -> None:
    cells = ",0" * header.count(",")
    folder = write_challenge(LABELS, sample=f"{header}\nd.jpg{cells}\n")
    with pytest.raises(DataError, match=rf"{header.count(',') + 1} columns, {header.replace(',', ', ')}; expected two"):
        read_submission(folder)
    assert read_items(folder)["split"].eq("test").sum() == 1


def test_a_sample_that_asks_for_no_mask_is_no_submission(write_challenge: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="column 'no_mask' asks for no mask"):
        read_submission(write_challenge(LABELS, sample="image,no_mask\nd.jpg,0\n"))


def test_a_split_of_another_name_is_kept(write_challenge: Callable[..., Path]) -> None:
    rows = "a.jpg,1,Training\nb.png,0,eval\nc.webp,1,\nd.jpg,0,val\n"
    items = read_items(write_challenge("image,target,split\n" + rows))
    assert items["split"].tolist() == ["train", "eval", pd.NA, "valid"]


def test_a_split_folder_of_another_name_is_kept(write_pictures: Callable[..., Path]) -> None:
    parts = ("train", "eval")
    folder = write_pictures(*(f"{part}/{name}/{part}.jpg" for part in parts for name in ("mask", "no-mask")))
    assert set(read_items(folder)["split"]) == {"train", "eval"}


@pytest.mark.parametrize("positive", [None, "mask"])
def test_test_pictures_in_no_class_folder_have_no_label(
    write_pictures: Callable[..., Path], positive: str | None
) -> None:
    folder = write_pictures(
        "train/mask/a.jpg", "train/no-mask/b.jpg", "test/unknown/c.jpg", "test/all/d.jpg", "test/e.jpg",
        "test/no-mask/f.jpg",
    )  # fmt: skip
    labels = labels_of(read_items(folder, positive=positive))
    assert [labels[f"test/{name}"] for name in ("unknown/c.jpg", "all/d.jpg", "e.jpg", "no-mask/f.jpg")] == [
        None, None, None, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("places", ["train test", "train_images test_images", "images/train images/test"])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_same_numbers_in_train_and_test_are_kept_apart(
    write_pictures: Callable[..., Path], places: str, zipped: bool
) -> None:
    train, test = places.split()
    folder = write_pictures(*(f"{place}/{number}.jpg" for place in (train, test) for number in (1, 2)))
    pictures = [(folder / name).read_bytes() for name in (f"{train}/1.jpg", f"{train}/2.jpg", f"{test}/2.jpg")]
    if zipped:
        for place in (train, test):
            shutil.make_archive(str(folder / Path(place).name), "zip", folder / place)
            shutil.rmtree(folder / place)
        shutil.rmtree(folder / "images", ignore_errors=True)
    (folder / "train.csv").write_text("image,label\n1.jpg,1\n2,0\n")
    (folder / "sample_submission.csv").write_text("image,label\n2,0\n")
    assert [Path(path).read_bytes() for path in read_items(folder)["path"]] == pictures


def test_class_folders_beside_those_of_splits_are_read_too(write_pictures: Callable[..., Path]) -> None:
    items = read_items(write_pictures("mask/a.jpg", "no-mask/b.jpg", "test/c.jpg", "valid/mask/d.jpg"))
    rows = zip(items["image"], items["label"].fillna(-1), items["split"].fillna(""), strict=True)
    assert sorted(rows) == [
        ("mask/a.jpg", 1, ""), ("no-mask/b.jpg", 0, ""), ("test/c.jpg", -1, "test"), ("valid/mask/d.jpg", 1, "valid"),
    ]  # fmt: skip


def test_images_are_those_of_training_and_a_folder_of_test_those_of_the_sample(
    write_pictures: Callable[..., Path],
) -> None:
    folder = write_pictures("images/1.jpg", "train_thumbs/1.jpg", "test_images/1.jpg")
    (folder / "train.csv").write_text("image,label\n1.jpg,1\n")
    (folder / "sample_submission.csv").write_text("image,label\n1.jpg,0\n")
    found = [Path(path).relative_to(folder).as_posix() for path in read_items(folder)["path"]]
    assert found == ["images/1.jpg", "test_images/1.jpg"]


def test_what_is_wrong_in_an_archive_is_told_by_its_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("a/b.jpg", b"")
        archive.writestr("c/d.jpg", b"")
    with pytest.raises(DataError, match=rf"^{tmp_path}/plain\.zip/a: is it mask"):
        read_items(tmp_path / "plain.zip")
