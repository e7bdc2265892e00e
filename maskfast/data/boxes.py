"""Annotated faces: a CSV of boxes or Pascal VOC files go in, a frame with a row a box comes out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskfast.core.errors import DataError, ImageError
from maskfast.core.image import read_header
from maskfast.data.archives import extract_zip
from maskfast.data.delimited import find_column, read_table
from maskfast.data.finding import NameIndex
from maskfast.data.frames import make_items
from maskfast.data.labels import BOX_CLASSES, SPELLINGS, fold_spelling
from maskfast.data.names import natural_key, walk_files
from maskfast.data.roots import find_picture_roots

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

NAME_COLUMNS = ("name", "image", "filename", "file", "path", "image_id")
CLASS_COLUMNS = ("classname", "class", "label", "class_name", "category")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
_KAGGLE = ("x1", "x2", "y1", "y2")
_NAMED = (CORNERS, ("left", "top", "right", "bottom"))
_SIZED = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
_CERTAIN = 0.98
"""The part of the boxes that must lie inside their pictures for a reading to be taken."""
MAX_XML_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Boxes:
    """All boxes of one source."""

    frame: "pd.DataFrame"
    """Columns image, path, status, reason, xmin, ymin, xmax, ymax (pixels), classname, kind (mask, no_mask, ignored);
    a picture without boxes has one row without classname."""
    note: str
    """How the coordinates were read, in words."""


def has_boxes(df: "pd.DataFrame") -> bool:
    """Tell whether a table has the columns of boxes."""
    return _find_corners(df) is not None


def _find_corners(df: "pd.DataFrame") -> tuple[tuple[str, ...], list[str]] | None:
    """Return the four names by which the corners are known, and the table's columns that are called so."""
    spelled: dict[str, str] = {}
    for column in df.columns:
        spelled.setdefault(re.sub(r"^bbox|[\s_\-]", "", column.casefold()), column)
    known = next((names for names in (*_NAMED, _KAGGLE, *_SIZED) if spelled.keys() >= set(names)), None)
    return None if known is None else (known, [spelled[name] for name in known])


def read_box_table(path: Path, *, classes: Mapping[str, str] | None = None) -> Boxes:
    """Read a CSV with a row a box: a name, a class, and xmin,ymin,xmax,ymax, or x1,x2,y1,y2, or x,y,width,height.

    `x_min`, `bbox_x1` and left,top,right,bottom are such spellings too; x and y of a size are the left upper corner.
    The four of Kaggle's wobotintelligence set are named x1,x2,y1,y2 and hold xmin,ymin,xmax,ymax: which is meant is
    decided by which reading puts the boxes inside the pictures. Raises DataError where that is unclear.
    `classes` adds to or overrides BOX_CLASSES.
    """
    df = read_table(path)
    name, kind = find_column(df, NAME_COLUMNS), find_column(df, CLASS_COLUMNS)
    corners = _find_corners(df)
    if name is None or kind is None or corners is None:
        raise DataError(f"{path}: columns {list(df.columns)}; a table of boxes has a name, a class and four corners")
    frame = _find_pictures(df[name], path.parent)
    numbers, note = _read_corners(df, frame, path, *corners)
    frame[list(CORNERS)] = numbers
    frame["classname"] = df[kind].str.strip().to_numpy()
    return Boxes(_add_kinds(frame, classes, path), note)


def _find_pictures(names: "pd.Series[Any]", folder: Path) -> "pd.DataFrame":
    import pandas as pd

    index = NameIndex(find_picture_roots(folder, part="train"))
    found = {str(name): _locate(index, str(name)) for name in names.unique()}
    rows = [(str(name), *found[str(name)]) for name in names]
    return pd.DataFrame(rows, columns=["image", "path", "status", "reason"])


def _locate(index: NameIndex, name: str) -> tuple[str, str, str]:
    try:
        return str(index.find(name, absolute=True)), "ok", ""
    except LookupError as error:
        return "", "missing" if str(error) == "no such file" else "refused", str(error)


def _read_corners(
    df: "pd.DataFrame", frame: "pd.DataFrame", path: Path, names: tuple[str, ...], columns: list[str]
) -> "tuple[npt.NDArray[np.float64], str]":
    values = _read_numbers(df, columns, path)
    if names in _NAMED:
        return values, f"corners as named: {', '.join(names)}"
    if names == _KAGGLE:
        return _choose_reading(values, _read_sizes(frame), path)
    return _read_sized(values, _read_sizes(frame), path)


def _read_numbers(df: "pd.DataFrame", columns: list[str], path: Path) -> "npt.NDArray[np.float64]":
    import numpy as np
    import pandas as pd

    numbers = [pd.to_numeric(df[column], errors="coerce") for column in columns]
    values: npt.NDArray[np.float64] = np.stack(numbers, axis=1).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        cells = df[columns].iloc[bad[0]].tolist()
        raise DataError(f"{path} row {bad[0] + 2}: corners {cells} are not four numbers")
    return values


def _read_sizes(frame: "pd.DataFrame") -> "npt.NDArray[np.float64]":
    import numpy as np

    sizes: dict[str, tuple[float, float]] = {"": (np.nan, np.nan)}
    for path in frame["path"].unique():
        if path:
            try:
                header = read_header(path)
                sizes[path] = (header.width, header.height)
            except ImageError:  # the crop or the audit that follows names the picture and the reason
                sizes[path] = (np.nan, np.nan)
    return np.array([sizes[path] for path in frame["path"]], dtype=np.float64)


def _choose_reading(
    values: "npt.NDArray[np.float64]", sizes: "npt.NDArray[np.float64]", path: Path
) -> "tuple[npt.NDArray[np.float64], str]":
    known = sizes[:, 0] > 0
    if not known.any():
        raise DataError(f"{path}: none of its pictures was found, so x1,x2,y1,y2 could be read in two ways")
    readings = {"xmin, ymin, xmax, ymax": values, "xmin, xmax, ymin, ymax": values[:, [0, 2, 1, 3]]}
    inside = {name: _rate_inside(corners[known], sizes[known]) for name, corners in readings.items()}
    best, other = sorted(inside, key=inside.__getitem__, reverse=True)
    shares = f"x1,x2,y1,y2 read as {best}: {inside[best]:.1%} of the boxes lie inside, as {other}: {inside[other]:.1%}"
    if inside[best] < _CERTAIN or inside[other] >= _CERTAIN:
        raise DataError(f"{path}: {shares}; unclear, rename the columns to xmin, ymin, xmax, ymax")
    return readings[best], shares


def _read_sized(
    values: "npt.NDArray[np.float64]", sizes: "npt.NDArray[np.float64]", path: Path
) -> "tuple[npt.NDArray[np.float64], str]":
    corners: npt.NDArray[np.float64] = values.copy()
    corners[:, 2:] += values[:, :2]
    known = sizes[:, 0] > 0
    if known.any() and (inside := _rate_inside(corners[known], sizes[known])) < _CERTAIN:
        reading = f"x, y read as left upper corners put {inside:.1%} of the boxes inside their pictures"
        raise DataError(f"{path}: {reading}; unclear, write the columns xmin, ymin, xmax, ymax")
    return corners, "x, y, width, height read with x, y as the left upper corner"


def _rate_inside(corners: "npt.NDArray[np.float64]", sizes: "npt.NDArray[np.float64]") -> float:
    xmin, ymin, xmax, ymax = corners.T
    slack = 1.0  # annotation tools count from 0 or from 1
    ordered = (xmin < xmax) & (ymin < ymax)
    inside = (xmin >= -slack) & (ymin >= -slack) & (xmax <= sizes[:, 0] + slack) & (ymax <= sizes[:, 1] + slack)
    return float((ordered & inside).mean())


def read_voc(data: Path, *, classes: Mapping[str, str] | None = None) -> Boxes:
    """Read Pascal VOC annotations: a folder or a zip archive of .xml files; the pictures are looked for beside it.

    Raises DataError for a file that is no VOC annotation, ArchiveError for an unsafe archive.
    """
    import pandas as pd

    folder = extract_zip(data) if data.is_file() else data
    files = [path for path in walk_files(folder) if path.suffix.casefold() == ".xml"]
    if not files:
        raise DataError(f"{data}: no .xml files; give the folder or archive of the annotations")
    rows = [row for path in sorted(files, key=lambda path: natural_key(path.name)) for row in _read_voc_file(path)]
    boxes = pd.DataFrame(rows, columns=["image", *CORNERS, "classname"])
    frame = _find_pictures(boxes["image"], data.parent if data.is_file() else _find_pictures_folder(data))
    frame[[*CORNERS, "classname"]] = boxes[[*CORNERS, "classname"]]
    return Boxes(_add_kinds(frame, classes, data), "corners as named in the annotations")


def _find_pictures_folder(folder: Path) -> Path:
    return folder.parent if folder.name.casefold() in ("annotations", "labels", "xml") else folder


def _read_voc_file(path: Path) -> list[tuple[Any, ...]]:
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    if path.stat().st_size > MAX_XML_BYTES:
        raise DataError(f"{path}: more than {MAX_XML_BYTES} bytes for one annotation")
    try:
        root = fromstring(path.read_bytes())
        name = (root.findtext("filename") or path.stem).strip()
        rows = [_read_voc_object(name, box) for box in root.findall("object")]
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DataError(f"{path}: no Pascal VOC annotation: {' '.join(str(error).split())}") from error
    return rows or [(name, None, None, None, None, "")]


def _read_voc_object(name: str, box: Any) -> tuple[Any, ...]:
    corners = (float(_text(box, f"bndbox/{corner}")) for corner in CORNERS)
    return (name, *corners, _text(box, "name").strip())


def _text(node: Any, path: str) -> str:
    text = node.findtext(path)
    if not text:
        raise ValueError(f"an object without {path}")
    return str(text)


def _add_kinds(frame: "pd.DataFrame", classes: Mapping[str, str] | None, path: Path) -> "pd.DataFrame":
    known = BOX_CLASSES | {"": "ignored"} | dict(classes or {})
    kinds = {name: known.get(name) or known.get(name.casefold()) or _spell(name) for name in set(frame["classname"])}
    if unclear := sorted(name for name, kind in kinds.items() if kind not in ("mask", "no_mask", "ignored")):
        raise DataError(f"{path}: class {unclear[0]!r} is not known; say what it is with --class '{unclear[0]}=mask'")
    frame["kind"] = frame["classname"].map(kinds)
    return frame


def _spell(name: str) -> str | None:
    label = SPELLINGS.get(fold_spelling(name))
    return None if label is None else ("no_mask", "mask")[label]


def boxes_to_items(boxes: Boxes, *, source: str, origin: str) -> "pd.DataFrame":
    """Return an items table with a row a picture: positive where any box is a mask, `boxes` with all that count.

    A picture whose boxes are all ignored stays without a label; one annotated as empty shows no mask.
    """
    rows = []
    for image, part in boxes.frame.groupby("image", sort=False):
        kinds = set(part["kind"]) - {"ignored"}
        empty = bool((part["classname"] == "").all())
        label = int("mask" in kinds) if kinds or empty else None
        corners = part.loc[part["kind"] != "ignored", [*CORNERS, "kind"]].itertuples(index=False)
        counted = [(*map(float, box[:4]), int(box[4] == "mask")) for box in corners]
        row: dict[str, Any] = {key: str(part[key].iloc[0]) for key in ("path", "status", "reason")}
        row |= {"image": str(image), "label": label, "source": source, "row": f"{origin} {image}", "boxes": counted}
        rows.append(row)
    return make_items(rows)
