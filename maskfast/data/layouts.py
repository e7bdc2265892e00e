"""The layouts that data comes in: one path goes in, the items table of what lies there comes out."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskfast.core.errors import DataError
from maskfast.data.archives import extract_zip
from maskfast.data.boxes import Boxes, boxes_to_items, has_boxes, read_box_table, read_voc
from maskfast.data.delimited import TABLE_SUFFIXES, find_column, read_table
from maskfast.data.frames import SPLITS, make_items
from maskfast.data.labels import read_label
from maskfast.data.listing import is_picture
from maskfast.data.names import NameIndex, clean_name, walk_files
from maskfast.data.roots import FOLDER_NAMES, find_picture_roots
from maskfast.data.submission import SAMPLE_NAME, read_submission

if TYPE_CHECKING:
    import pandas as pd

LABEL_TABLES = ("train_labels.csv", "labels.csv", "train.csv", "data.csv")
"""Names of tables of labels, the likeliest first, where a folder holds several."""
IMAGE_COLUMNS = ("image", "path", "file", "filename", "file_name", "name", "image_id", "img", "picture", "id")
LABEL_COLUMNS = ("label", "target", "class", "classname", "class_name", "mask", "y", "category")
ANNOTATIONS = ("annotations", "Annotations")
CROP_MANIFEST = "manifest.csv"
"""What `crops.crop_faces` writes beside the class folders; it is no table to learn from."""


def read_layout(
    data: Path, *, source: str, positive: str | None = None, classes: Mapping[str, str] | None = None
) -> "pd.DataFrame":
    """Read a challenge folder, a folder a class, a table of pictures or boxes, VOC annotations, or a zip of these."""
    if data.is_dir():
        return _read_folder(data, source=source, positive=positive, classes=classes)
    if not data.is_file():
        raise DataError(f"{data}: no such file or folder")
    if data.suffix.casefold() in TABLE_SUFFIXES:
        return _read_table_file(data, source=source, positive=positive, classes=classes)
    if data.suffix.casefold() != ".zip":
        raise DataError(f"{data}: neither a folder nor a CSV, Parquet or zip file")
    if "annotation" in data.stem.casefold():
        return boxes_to_items(read_voc(data, classes=classes), source=source, origin=data.name)
    return _read_folder(extract_zip(data), source=source, positive=positive, classes=classes)


def _read_folder(
    folder: Path, *, source: str, positive: str | None, classes: Mapping[str, str] | None
) -> "pd.DataFrame":
    folder = _step_down(folder)
    if table := find_table(folder, boxes=False):
        items = _read_table_file(table, source=source, positive=positive, classes=classes)
        return _add_test_rows(items, folder, source=source)
    if table := find_table(folder, boxes=True):
        return _read_table_file(table, source=source, positive=positive, classes=classes)
    if annotations := find_annotations(folder):
        return boxes_to_items(read_voc(annotations, classes=classes), source=source, origin=annotations.name)
    return _read_class_folders(folder, source=source, positive=positive)


def read_boxes(data: Path, *, classes: Mapping[str, str] | None = None) -> Boxes:
    """Read the boxes that `data` is or holds: a table first, else VOC annotations; raises DataError."""
    if data.is_file() and data.suffix.casefold() != ".zip":
        return read_box_table(data, classes=classes)
    if data.is_file() and "annotation" in data.stem.casefold():
        return read_voc(data, classes=classes)
    folder = extract_zip(data) if data.is_file() else data
    if not folder.is_dir():
        raise DataError(f"{data}: no such file or folder")
    if table := find_table(folder, boxes=True):
        return read_box_table(table, classes=classes)
    if annotations := find_annotations(folder):
        return read_voc(annotations, classes=classes)
    raise DataError(f"{data}: no boxes; expected a CSV with a name, a class and four corners, or VOC annotations")


def find_table(folder: Path, *, boxes: bool) -> Path | None:
    """Return the folder's table of labels (or of boxes), if it has one; raises DataError where several could be."""
    tables = [path for path in sorted(folder.glob("*.csv")) if not _is_by_product(path.name.casefold())]
    found = [path for path in tables if has_boxes(df := read_table(path)) is boxes and (boxes or _has_labels(df))]
    named = [path for name in LABEL_TABLES for path in found if path.name.casefold() == name]
    if len(found) > 1 and not named:
        raise DataError(f"{folder}: {found[0].name} and {found[1].name} could both be meant; give one by its path")
    return next(iter([*named, *found]), None)


def _is_by_product(name: str) -> bool:
    return "submission" in name or name == CROP_MANIFEST


def find_annotations(folder: Path) -> Path | None:
    """Return the folder or archive of VOC annotations in `folder`, or itself where it holds .xml files."""
    for name in ANNOTATIONS:
        for path in (folder / name, folder / f"{name}.zip"):
            if path.exists():
                return path
    return folder if any(folder.glob("*.xml")) else None


def _has_labels(df: "pd.DataFrame") -> bool:
    image = _find_image_column(df)
    return image is not None and _find_label_column(df, image) is not None


def _find_image_column(df: "pd.DataFrame") -> str | None:
    return find_column(df, IMAGE_COLUMNS) or (str(df.columns[0]) if len(df.columns) == 2 else None)


def _find_label_column(df: "pd.DataFrame", image: str) -> str | None:
    others = [column for column in df.columns if column != image]
    return find_column(df[others], LABEL_COLUMNS) or (others[0] if len(others) == 1 else None)


def _read_table_file(
    path: Path, *, source: str, positive: str | None, classes: Mapping[str, str] | None
) -> "pd.DataFrame":
    df = read_table(path)
    if has_boxes(df):
        return boxes_to_items(read_box_table(path, classes=classes), source=source, origin=path.name)
    image = _find_image_column(df)
    if image is None:
        raise DataError(f"{path}: columns {list(df.columns)}; expected a column called image or path, and label")
    label = _find_label_column(df, image)
    index = NameIndex(find_picture_roots(path.parent))
    rows = [
        {"source": source, "row": f"{path.name} row {number}", **_read_cells(cells, image, label, index, positive)}
        for number, cells in enumerate(df.to_dict("records"), start=2)
    ]
    items = make_items(rows)
    if label is not None and not items["label"].notna().any():
        raise DataError(f"{path}: no row has a label that can be used; row 2: {_first_reason(items)}")
    return items


def _first_reason(items: "pd.DataFrame") -> str:
    return str(next((reason for reason in items["reason"] if reason), "no label"))


def _read_cells(
    cells: Mapping[Any, Any], image: str, label: str | None, index: NameIndex, positive: str | None
) -> dict[str, Any]:
    row = {"image": str(cells[image]), **_find_picture(index, str(cells[image])), **_read_own_columns(cells)}
    if label is None:
        return row
    try:
        value = read_label(cells[label], positive=positive)
    except ValueError as error:
        return row | {"status": "refused", "reason": str(error)}
    if value is None:
        return row | {"status": "refused", "reason": "no label"}
    return row | {"label": value}


def _find_picture(index: NameIndex, name: str) -> dict[str, str]:
    try:
        return {"path": str(index.find(name, absolute=True))}
    except LookupError as error:
        return {"status": "missing" if str(error) == "no such file" else "refused", "reason": str(error)}


def _read_own_columns(cells: Mapping[Any, Any]) -> dict[str, Any]:
    own = {str(key).casefold(): str(value).strip() for key, value in cells.items()}
    found: dict[str, Any] = {}
    if split := SPLITS.get(own.get("split", "").casefold()):
        found["split"] = split
    if fold := own.get("fold", ""):
        found["fold"] = fold
    if own.get("source"):
        found["source"] = own["source"]
    return found


def _add_test_rows(items: "pd.DataFrame", folder: Path, *, source: str) -> "pd.DataFrame":
    import pandas as pd

    if not (folder / SAMPLE_NAME).is_file():
        return items
    sample = read_submission(folder / SAMPLE_NAME)
    rows = [
        {"image": name, "path": str(path or ""), "source": source, "split": "test", "row": f"{SAMPLE_NAME} {name}",
         "status": "ok" if path else "missing", "reason": reason}
        for name, path, reason in zip(sample.ids, sample.paths, sample.reasons, strict=True)
    ]  # fmt: skip
    return pd.concat([items, make_items(rows)], ignore_index=True)


def _read_class_folders(folder: Path, *, source: str, positive: str | None) -> "pd.DataFrame":
    parts = {name: SPLITS[name.casefold()] for name in _list_folders(folder) if name.casefold() in SPLITS}
    rows: list[dict[str, Any]] = []
    for name, split in parts.items() if parts else [("", None)]:
        rows += _read_classes(folder / name, base=folder, source=source, split=split, positive=positive)
    if not rows:
        raise DataError(
            f"{folder}: no data in a layout that is read; expected images and train_labels.csv, a folder a class "
            "(mask, no-mask), a CSV of path,label, or boxes (CSV or VOC)"
        )
    return make_items(rows)


def _list_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _step_down(folder: Path) -> Path:
    """Step down through folders that hold nothing but one other, as archives often do."""
    names = _list_folders(folder)
    if len(names) != 1 or names[0].casefold() in SPLITS or _is_class(names[0]):
        return folder
    return folder if any(path.is_file() for path in folder.iterdir()) else _step_down(folder / names[0])


def _is_class(name: str) -> bool:
    try:
        return read_label(name) is not None
    except ValueError:
        return False


def _read_classes(
    folder: Path, *, base: Path, source: str, split: str | None, positive: str | None
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in _list_folders(folder):
        pictures = map(str, filter(is_picture, walk_files(folder / name)))  # text, being far smaller than paths
        if path := next(pictures, None):
            label = _read_folder_label(folder / name, positive=positive)
            rows += [{"image": (image := clean_name(Path(path).relative_to(base).as_posix())), "path": path,
                      "label": label, "source": source, "split": split, "row": image}
                     for path in chain([path], pictures)]  # fmt: skip
    return rows


def _read_folder_label(folder: Path, *, positive: str | None) -> int:
    try:
        label = read_label(folder.name, positive=positive)
    except ValueError:
        label = None
    if label is None:
        hint = "" if folder.name in FOLDER_NAMES else f", or the folder of masks with --positive {folder.name}"
        raise DataError(f"{folder}: is it mask or no mask? give a table of labels{hint}")
    return label
