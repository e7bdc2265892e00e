import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from maskfast.core.errors import ConfigError, DataError
from maskfast.data.boxes import read_box_table, read_voc
from maskfast.data.crops import crop_faces
from maskfast.data.labels import BOX_CLASSES
from maskfast.data.tables import read_items

FACES = {
    "a.png": [(10, 20, 50, 70, "face_with_mask"), (60, 10, 90, 45, "face_no_mask")],
    "b.png": [(5, 40, 45, 75, "face_no_mask"), (70, 5, 110, 30, "hat")],
    "c.png": [(30, 30, 60, 60, "sunglasses")],
}


def write_scenes(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    for seed, name in enumerate(FACES):
        noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((120, 80)).save(folder / "images" / name)
    return folder


def write_table(
    folder: Path, columns: str = "name,x1,x2,y1,y2,classname", order: tuple[int, ...] = (0, 1, 2, 3)
) -> Path:
    lines = [columns] + [
        ",".join([name, *(str(box[index]) for index in order), str(box[4])])
        for name, boxes in FACES.items()
        for box in boxes
    ]
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    return folder / "boxes.csv"


def write_voc(folder: Path) -> Path:
    (folder / "annotations").mkdir()
    for name, boxes in FACES.items():
        objects = "".join(
            f"<object><name>{box[4]}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
            f"<ymax>{box[3]}</ymax></bndbox></object>"
            for box in boxes
        )
        text = f"<annotation><filename>{name}</filename>{objects}</annotation>"
        (folder / "annotations" / f"{Path(name).stem}.xml").write_text(text)
    return folder / "annotations"


def corners_of(frame: pd.DataFrame) -> list[tuple[float, ...]]:
    return [tuple(row) for row in frame[["xmin", "ymin", "xmax", "ymax"]].to_numpy().tolist()]


EXPECTED = [tuple(map(float, box[:4])) for boxes in FACES.values() for box in boxes]


@pytest.mark.parametrize(
    ("columns", "order"),
    [
        ("name,x1,x2,y1,y2,classname", (0, 1, 2, 3)),  # as Kaggle's set has it
        ("name,x1,x2,y1,y2,classname", (0, 2, 1, 3)),  # as the names say
        ("name,xmin,ymin,xmax,ymax,classname", (0, 1, 2, 3)),
        ("filename,ymin,xmin,ymax,xmax,class", (1, 0, 3, 2)),
        ("filename,x_min,y_min,x_max,y_max,label", (0, 1, 2, 3)),
        ("image,left,top,right,bottom,label", (0, 1, 2, 3)),
        ("image,bbox_x1,bbox_x2,bbox_y1,bbox_y2,label", (0, 2, 1, 3)),
    ],
)
def test_every_reading_gives_the_same_boxes(tmp_path: Path, columns: str, order: tuple[int, ...]) -> None:
    boxes = read_box_table(write_table(write_scenes(tmp_path), columns, order))
    assert corners_of(boxes.frame) == EXPECTED


@pytest.mark.parametrize("columns", ["image,x,y,width,height,label", "image,bbox_x,bbox_y,bbox_w,bbox_h,label"])
def test_boxes_of_a_corner_and_a_size(tmp_path: Path, columns: str) -> None:
    folder = write_scenes(tmp_path)
    lines = [columns] + [
        f"{name},{x1},{y1},{x2 - x1},{y2 - y1},{kind}"
        for name, boxes in FACES.items()
        for x1, y1, x2, y2, kind in boxes
    ]
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    boxes = read_box_table(folder / "boxes.csv")
    assert corners_of(boxes.frame) == EXPECTED
    assert "left upper corner" in boxes.note
    (folder / "boxes.csv").write_text(f"{columns}\na.png,100,60,40,40,face_no_mask\n")
    with pytest.raises(DataError, match=r"put 0\.0% of the boxes inside"):
        read_box_table(folder / "boxes.csv")


def test_an_unclear_reading_is_refused(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path)
    (folder / "boxes.csv").write_text("name,x1,x2,y1,y2,classname\na.png,10,20,30,40,face_no_mask\n")
    with pytest.raises(DataError, match="unclear"):
        read_box_table(folder / "boxes.csv")


def test_voc_gives_the_same_boxes_as_the_table(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path)
    table, voc = read_box_table(write_table(folder)).frame, read_voc(write_voc(folder)).frame
    pd.testing.assert_frame_equal(table, voc)


def test_a_picture_is_positive_where_any_box_is_a_mask(tmp_path: Path) -> None:
    items = read_items(write_table(write_scenes(tmp_path)))
    assert items["label"].tolist() == [1, 0, pd.NA]
    assert items["boxes"].tolist() == [[(10, 20, 50, 70, 1), (60, 10, 90, 45, 0)], [(5, 40, 45, 75, 0)], []]


def test_a_voc_file_without_objects_shows_no_mask(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path)
    (folder / "annotations").mkdir()
    (folder / "annotations" / "a.xml").write_text("<annotation><filename>a.png</filename></annotation>")
    assert read_items(folder)["label"].tolist() == [0]


def test_the_table_of_classes_is_whole_and_can_be_overridden(tmp_path: Path) -> None:
    assert len(BOX_CLASSES) == 23
    assert set(BOX_CLASSES.values()) == {"mask", "no_mask", "ignored"}
    table = write_table(write_scenes(tmp_path))
    assert read_items(table, classes={"sunglasses": "no_mask"})["label"].tolist() == [1, 0, 0]
    table.write_text(table.read_text().replace("sunglasses", "moustache"))
    with pytest.raises(DataError, match="--class 'moustache=mask'"):
        read_items(table)
    assert read_items(table, classes={"moustache": "mask"})["label"].tolist() == [1, 0, 1]


def test_crops_are_the_pixels_of_their_boxes(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "data")
    write_table(folder)
    crops = crop_faces(folder, tmp_path / "out", split=(1, 0, 0), margin=0)
    assert crops.manifest["status"].tolist() == ["ok", "ok", "ok", "ignored", "ignored"]
    for row in crops.manifest[crops.manifest["status"] == "ok"].itertuples():
        box = (row.xmin, row.ymin, row.xmax, row.ymax)
        with Image.open(folder / "images" / row.image) as img, Image.open(tmp_path / "out" / row.crop) as cut:
            difference = np.abs(np.asarray(img.crop(box)).astype(int) - np.asarray(cut))
        assert difference.mean() < 4
        assert row.crop.startswith(f"train/{'mask' if row.classname == 'face_with_mask' else 'no-mask'}/")
    listed = {str(path.relative_to(tmp_path / "out").as_posix()) for path in (tmp_path / "out").rglob("*.jpg")}
    assert listed == set(crops.manifest["crop"]) - {""}
    assert read_items(tmp_path / "out")["label"].sum() == 1


def test_margins_small_and_clipped_boxes(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "data")
    rows = [
        "a.png,100,60,140,90,mask",
        "a.png,10,10,20,20,mask",
        "a.png,200,200,220,220,mask",
        "a.png,40,30,60,50,mask",
    ]
    (folder / "boxes.csv").write_text("name,xmin,ymin,xmax,ymax,label\n" + "\n".join(rows) + "\n")
    crops = crop_faces(folder, tmp_path / "out", margin=0.5, min_size=15)
    by_corner = crops.manifest.set_index("xmin")
    assert by_corner["status"].to_dict() == {10: "small", 40: "ok", 100: "ok", 200: "outside"}
    assert crops.count()["clipped"] == 1
    for corner, size in {40.0: (40, 40), 100.0: (30, 30)}.items():
        with Image.open(tmp_path / "out" / by_corner.at[corner, "crop"]) as cut:
            assert cut.size == size


def test_faces_of_one_photo_never_part(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    rows = []
    for seed in range(20):
        noise = np.random.default_rng(seed // 2).integers(0, 256, (8, 12, 3), dtype=np.uint8)  # pairs of one photo
        Image.fromarray(noise).resize((120 + seed % 2, 80)).save(folder / "images" / f"{seed}.png")
        rows += [f"{seed}.png,{x},10,{x + 30},50,{'mask' if seed % 4 < 2 else 'no mask'}" for x in (5, 60)]
    (folder / "boxes.csv").write_text("name,xmin,ymin,xmax,ymax,label\n" + "\n".join(rows) + "\n")
    manifest = crop_faces(folder, tmp_path / "out", split=(0.6, 0.2, 0.2)).manifest
    photo = manifest["image"].str.removesuffix(".png").astype(int) // 2
    assert manifest.groupby(photo)["split"].nunique().max() == 1
    assert manifest["split"].value_counts().to_dict() == {"train": 24, "valid": 8, "test": 8}


def test_a_folder_of_others_is_never_replaced(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "data")
    write_table(folder)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other things than crops"):
        crop_faces(folder, tmp_path / "out")
    (tmp_path / "out" / "manifest.csv").write_text("my,own\nlist,of things\n")
    with pytest.raises(ConfigError, match="holds other things than crops"):
        crop_faces(folder, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_a_folder_of_crops_is_replaced_while_nothing_else_is_in_it(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "data")
    write_table(folder)
    crop_faces(folder, tmp_path / "out")
    crop_faces(folder, tmp_path / "out")
    (tmp_path / "out" / "train" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds train/notes\.txt, which is no part of crops"):
        crop_faces(folder, tmp_path / "out")
    assert (tmp_path / "out" / "train" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("split", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (1, 0)])
def test_parts_that_do_not_add_up_are_refused(tmp_path: Path, split: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="--split"):
        crop_faces(tmp_path, tmp_path / "out", split=split)


@pytest.mark.shared
@pytest.mark.slow
def test_the_real_scenes_give_the_same_crops_from_both_kinds_of_annotation(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "face-boxes"
    few = tmp_path / "few"
    (few / "images").mkdir(parents=True)
    with zipfile.ZipFile(source / "images.zip") as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/"))[:60]
        archive.extractall(few, names)
    with zipfile.ZipFile(source / "annotations.zip") as archive:
        archive.extractall(few, [f"annotations/{Path(name).stem}.xml" for name in names])
    table = pd.read_csv(source / "train.csv")
    table[table["name"].isin([Path(name).name for name in names])].to_csv(few / "train.csv", index=False)
    first = crop_faces(few, tmp_path / "csv")
    second = crop_faces(few / "annotations", tmp_path / "voc")
    assert first.manifest["crop"].tolist() == second.manifest["crop"].tolist()
    assert len(first.manifest) > 100
    for crop in first.manifest["crop"][first.manifest["crop"] != ""]:
        assert (tmp_path / "csv" / crop).read_bytes() == (tmp_path / "voc" / crop).read_bytes()
