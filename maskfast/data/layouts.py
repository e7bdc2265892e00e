"""The layouts that data comes in: one path goes in, the items table of what lies there comes out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskfast.core.errors import DataError
from maskfast.data.archives import extract_zip
from maskfast.data.boxes import Boxes, boxes_to_items, has_boxes, read_box_table, read_voc
from maskfast.data.choice import choose_boxes, choose_labels, describe_tables, is_named, read_tables, say_columns
from maskfast.data.class_folders import (
    has_class_folders,
    holds_both_classes,
    is_class,
    read_class_folders,
)
from maskfast.data.columns import LabelColumns, find_image_column, find_label_columns, read_row_label
from maskfast.data.delimited import TABLE_SUFFIXES, read_table
from maskfast.data.finding import NameIndex
from maskfast.data.frames import SPLITS, make_items
from maskfast.data.labels import is_missing
from maskfast.data.listing import is_picture
from maskfast.data.roots import find_picture_roots, list_folders
from maskfast.data.submission import SAMPLE_NAME, find_sample_pictures

if TYPE_CHECKING:
    import pandas as pd

ANNOTATIONS = ("annotations", "Annotations")


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
    with _open_zip(data) as folder:
        return _read_folder(folder, source=source, positive=positive, classes=classes)


@contextmanager
def _open_zip(archive: Path) -> Iterator[Path]:
    """Unpack an archive; an error about what lies there names the archive in place of the cache."""
    folder = extract_zip(archive)
    try:
        yield folder
    except DataError as error:
        raise type(error)(str(error).replace(str(folder), str(archive))) from error


def _read_folder(
    folder: Path, *, source: str, positive: str | None, classes: Mapping[str, str] | None
) -> "pd.DataFrame":
    folder = _step_down(folder, positive)
    tables = read_tables(folder)
    if has_class_folders(folder, positive=positive):
        tables = {path: table for path, table in tables.items() if is_named(path)}
    if path := choose_labels(tables):
        items = _read_table_file(path, source=source, positive=positive, classes=classes)
        return _add_test_rows(items, folder, source=source)
    if path := choose_boxes(tables):
        return _read_table_file(path, source=source, positive=positive, classes=classes)
    if annotations := find_annotations(folder):
        return boxes_to_items(read_voc(annotations, classes=classes), source=source, origin=annotations.name)
    try:
        rows = read_class_folders(folder, source=source, positive=positive)
    except DataError as error:
        raise DataError(f"{error}{describe_tables(tables)}") from error
    if not rows:
        raise DataError(
            f"{folder}: no data in a layout that is read; expected images and train_labels.csv, a folder a class "
            f"(mask, no-mask), a CSV of path,label, or boxes (CSV or VOC){describe_tables(tables)}"
        )
    return make_items(rows)


def _step_down(folder: Path, positive: str | None) -> Path:
    """Step down through folders that hold nothing but one other, as archives often do."""
    names = list_folders(folder)
    if len(names) != 1 or names[0].casefold() in SPLITS or any(path.is_file() for path in folder.iterdir()):
        return folder
    inner = folder / names[0]
    if is_class(inner.name, positive=positive) and not _is_data_set(inner):
        return folder
    return _step_down(inner, positive)


def _is_data_set(folder: Path) -> bool:
    """Tell whether a folder that is called like a class is all of the data, with its own layout."""
    if any(path.is_file() and is_picture(path) for path in folder.iterdir()):
        return False
    return any(folder.glob("*.csv")) or find_annotations(folder) is not None or holds_both_classes(folder)


def read_boxes(data: Path, *, classes: Mapping[str, str] | None = None) -> Boxes:
    """Read the boxes that `data` is or holds: a table first, else VOC annotations; raises DataError."""
    if data.is_file() and data.suffix.casefold() != ".zip":
        return read_box_table(data, classes=classes)
    if data.is_file() and "annotation" in data.stem.casefold():
        return read_voc(data, classes=classes)
    if data.is_file():
        with _open_zip(data) as folder:
            return _read_folder_boxes(folder, classes=classes)
    if not data.is_dir():
        raise DataError(f"{data}: no such file or folder")
    return _read_folder_boxes(data, classes=classes)


def _read_folder_boxes(folder: Path, *, classes: Mapping[str, str] | None) -> Boxes:
    tables = read_tables(folder)
    if table := choose_boxes(tables):
        return read_box_table(table, classes=classes)
    if annotations := find_annotations(folder):
        return read_voc(annotations, classes=classes)
    raise DataError(f"{folder}: no boxes; expected a CSV with a name, a class and four corners, or VOC annotations")


def find_annotations(folder: Path) -> Path | None:
    """Return the folder or archive of VOC annotations in `folder`, or itself where it holds .xml files."""
    for name in ANNOTATIONS:
        for path in (folder / name, folder / f"{name}.zip"):
            if path.exists():
                return path
    return folder if any(folder.glob("*.xml")) else None


def _read_table_file(
    path: Path, *, source: str, positive: str | None, classes: Mapping[str, str] | None
) -> "pd.DataFrame":
    df = read_table(path)
    if has_boxes(df):
        return boxes_to_items(read_box_table(path, classes=classes), source=source, origin=path.name)
    image = find_image_column(df)
    if image is None:
        raise DataError(f"{path}: no image or path among {say_columns(df)}; name one so, and label")
    label = find_label_columns(df, image)

    @cache
    def index(part: str) -> NameIndex:
        return NameIndex(find_picture_roots(path.parent, part=part))

    unlabelled = {"reason": f"no label, target, class or mask among {say_columns(df)}"} if label is None else {}
    rows = [
        {"source": source, "row": f"{path.name} row {number}", **unlabelled,
         **_read_cells(cells, image, label, index, positive)}
        for number, cells in enumerate(df.to_dict("records"), start=2)
    ]  # fmt: skip
    items = make_items(rows)
    if label is not None and not items["label"].notna().any():
        raise DataError(f"{path}: no row has a label that can be used; row 2: {_first_reason(items)}")
    return items


def _first_reason(items: "pd.DataFrame") -> str:
    return str(next((reason for reason in items["reason"] if reason), "no label"))


def _read_cells(
    cells: Mapping[Any, Any],
    image: str,
    label: LabelColumns | None,
    index: Callable[[str], NameIndex],
    positive: str | None,
) -> dict[str, Any]:
    own = _read_own_columns(cells)
    part = own["split"] if own.get("split") in SPLITS else "train"
    row = {"image": str(cells[image]), **_find_picture(index(part), str(cells[image])), **own}
    if label is None:
        return row
    try:
        value = read_row_label(cells, label, positive=positive)
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
    if not is_missing(split := own.get("split", "")):
        found["split"] = SPLITS.get(split.casefold(), split)
    if fold := own.get("fold", ""):
        found["fold"] = fold
    if own.get("source"):
        found["source"] = own["source"]
    return found


def _add_test_rows(items: "pd.DataFrame", folder: Path, *, source: str) -> "pd.DataFrame":
    import pandas as pd

    if not (folder / SAMPLE_NAME).is_file():
        return items
    rows = [
        {"image": name, "path": str(path or ""), "source": source, "split": "test", "row": f"{SAMPLE_NAME} {name}",
         "status": "ok" if path else "missing", "reason": reason}
        for name, path, reason in find_sample_pictures(folder / SAMPLE_NAME)
    ]  # fmt: skip
    return pd.concat([items, make_items(rows)], ignore_index=True)
