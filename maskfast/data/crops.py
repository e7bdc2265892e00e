"""Faces cut out of pictures by their boxes: boxes go in, a folder of train, valid and test crops comes out."""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from maskfast.core.errors import ConfigError, DataError, ImageError
from maskfast.core.files import refuse_foreign_folder, replace_folder
from maskfast.core.image import open_image
from maskfast.data.boxes import CORNERS, Boxes, boxes_to_items
from maskfast.data.choice import CROP_MANIFEST
from maskfast.data.delimited import write_csv
from maskfast.data.labels import MASK_ALONE
from maskfast.data.layouts import read_boxes
from maskfast.data.names import clean_name
from maskfast.data.splits import SPLIT_NAMES, add_groups

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

CLASS_FOLDERS = {"mask": "mask", "no_mask": "no-mask"}
MARGIN = 0.2
"""Part of a box's sides that is added on each side, so that chin, ears and straps are seen."""
MIN_SIZE = 12
"""Pixels of the shorter side of a box below which a face is not cut."""

STATUSES = ("ok", "ignored", "small", "outside", "missing", "refused")
"""What can become of a box."""

Corners = tuple[int, int, int, int]


@dataclass(frozen=True)
class Crops:
    """What became of every box."""

    manifest: "pd.DataFrame"
    """A row a box: crop (path below the folder, "" where none was cut), image, split, classname, kind, xmin, ymin,
    xmax, ymax (as annotated), status (ok, ignored, small, outside, missing, refused), clipped, reason."""
    note: str
    """How the coordinates were read."""

    def count(self) -> dict[str, int]:
        """Return the number of boxes by what became of them, then the cut ones by split and class."""
        boxes = self.manifest
        cut = boxes[boxes["status"] == "ok"]
        counts = {status: int((boxes["status"] == status).sum()) for status in STATUSES}
        counts |= {"clipped": int(cut["clipped"].sum())}
        places = cut["crop"].str.rsplit("/", n=1).str[0].value_counts().sort_index()
        return counts | {str(place): int(count) for place, count in places.items()}


def crop_faces(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    split: Sequence[float] = (0.7, 0.15, 0.15),
    margin: float = MARGIN,
    min_size: int = MIN_SIZE,
    classes: Mapping[str, str] | None = None,
    seed: int = 0,
    on_progress: Callable[[int], object] | None = None,
) -> Crops:
    """Cut the faces of `data` (a folder, a table of boxes, VOC annotations) into out/train,valid,test/mask,no-mask.

    `split`: parts of the photos for train, valid and test; all faces of a photo, and of its near-duplicates, stay
    together. Boxes that reach beyond the picture are clipped. The folder also gets manifest.csv. A folder `out` that
    was not made by this function is never replaced. `on_progress` is called with the number of pictures done.
    Raises DataError, ConfigError.
    """
    parts = _check_split(split)
    refuse_foreign_folder(out, "crops", _list_crop_files)
    boxes = read_boxes(Path(data), classes=classes)
    splits = _split_pictures(boxes, parts, seed=seed)
    rows: list[dict[str, Any]] = []
    with replace_folder(out) as folder:
        names = _name_crops(boxes.frame["image"].unique())
        for done, (image, part) in enumerate(_sort_pictures(boxes.frame), start=1):
            split_name = splits.get(image, "")
            rows += _crop_picture(part, folder, split_name, names[image], margin=margin, min_size=min_size)
            if on_progress is not None:
                on_progress(done)
        manifest = _finish(rows, folder)
    return Crops(manifest, boxes.note)


def _list_crop_files(out: Path) -> list[str] | None:
    manifest = out / CROP_MANIFEST
    if not manifest.is_file():
        return None
    with manifest.open("rb") as file:
        if not file.readline(200).startswith(b"crop,image,split,classname,kind,"):
            return None
    return [CROP_MANIFEST, *(f"{split}/{name}/*.jpg" for split in SPLIT_NAMES for name in CLASS_FOLDERS.values())]


def _check_split(split: Sequence[float]) -> tuple[float, float, float]:
    if len(split) != 3 or min(split) < 0 or abs(sum(split) - 1) > 1e-6:
        raise ConfigError(f"--split {' '.join(map(str, split))}: give three parts that add up to 1, as 0.7 0.15 0.15")
    return split[0], split[1], split[2]


def _split_pictures(boxes: Boxes, parts: tuple[float, float, float], *, seed: int) -> dict[str, str]:
    """Return the split of each picture, by groups of near-duplicates and apart for each picture label."""
    items = boxes_to_items(boxes, source="", origin="")
    items = add_groups(items.sort_values("image", ignore_index=True))
    items = items[items["group"].notna()]
    splits: dict[str, str] = {}
    labels = items["label"].fillna(-1)
    for _, same in items.groupby(items["group"].map(labels.groupby(items["group"]).max())):
        groups = list(dict.fromkeys(same["group"]))
        random.Random(seed).shuffle(groups)
        done = 0
        for group in groups:
            images = same.loc[same["group"] == group, "image"]
            splits |= dict.fromkeys(images, _place((done + 0.5) / len(same), parts))
            done += len(images)
    return splits


def _place(position: float, parts: tuple[float, float, float]) -> str:
    if position < parts[0]:
        return SPLIT_NAMES[0]
    return SPLIT_NAMES[1] if position < parts[0] + parts[1] else SPLIT_NAMES[2]


def _sort_pictures(frame: "pd.DataFrame") -> "Iterator[tuple[str, pd.DataFrame]]":
    ordered = frame.sort_values(["image", *CORNERS, "classname"], kind="stable")
    return ((str(image), part) for image, part in ordered.groupby("image"))


def _name_crops(images: Iterable[str]) -> dict[str, str]:
    """Return the stem of each picture's crops: its own, and with a number where two pictures would share one."""
    names: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for image in sorted(images):
        stem = str(PurePosixPath(clean_name(image)).with_suffix("")).replace("/", "_").replace(":", "_")
        names[image] = f"{stem}~{taken[stem.casefold()]}" if taken[stem.casefold()] else stem
        taken[stem.casefold()] += 1
    return names


def _crop_picture(
    part: "pd.DataFrame", folder: Path, split: str, name: str, *, margin: float, min_size: int
) -> Iterator[dict[str, Any]]:
    img, flaw = _open(part)
    for number, box in enumerate(part[part["classname"] != ""].itertuples()):
        corners = (float(str(box.xmin)), float(str(box.ymin)), float(str(box.xmax)), float(str(box.ymax)))
        row: dict[str, Any] = {"crop": "", "image": box.image, "split": split, "classname": box.classname}
        row |= {"kind": box.kind, **dict(zip(CORNERS, corners, strict=True)), "clipped": False}
        if img is None:
            yield row | flaw
            continue
        status, reason = _judge(corners, img.size, str(box.kind), str(box.classname), min_size)
        row |= {"status": status, "reason": reason, "clipped": _clip(corners, img.size) != corners}
        if status == "ok":
            row["crop"] = f"{split}/{CLASS_FOLDERS[str(box.kind)]}/{name}_{number:03d}.jpg"
            _save(img.crop(_widen(corners, img.size, margin)), folder / row["crop"])
        yield row


def _open(part: "pd.DataFrame") -> "tuple[Image.Image | None, dict[str, str]]":
    first = part.iloc[0]
    if first["status"] != "ok":
        return None, {"status": str(first["status"]), "reason": str(first["reason"])}
    try:
        return open_image(str(first["path"])), {}
    except ImageError as error:
        return None, {"status": "refused", "reason": error.reason}


def _judge(corners: tuple[float, ...], size: tuple[int, int], kind: str, name: str, least: int) -> tuple[str, str]:
    if kind == "ignored":
        return "ignored", f"class {name} says neither mask nor no mask"
    if name in MASK_ALONE:
        return "ignored", f"class {name} is a box around the mask alone"
    xmin, ymin, xmax, ymax = _clip(corners, size)
    if xmin >= xmax or ymin >= ymax:
        return "outside", "no part of the box lies in the picture"
    if min(xmax - xmin, ymax - ymin) < least:
        return "small", f"{xmax - xmin:g} x {ymax - ymin:g} pixels; at least {least} are cut"
    return "ok", ""


def _clip(corners: tuple[float, ...], size: tuple[int, int]) -> tuple[float, float, float, float]:
    xmin, ymin, xmax, ymax = corners
    return max(xmin, 0.0), max(ymin, 0.0), min(xmax, float(size[0])), min(ymax, float(size[1]))


def _widen(corners: tuple[float, ...], size: tuple[int, int], margin: float) -> Corners:
    xmin, ymin, xmax, ymax = _clip(corners, size)
    across, down = margin * (xmax - xmin), margin * (ymax - ymin)
    wide = _clip((xmin - across, ymin - down, xmax + across, ymax + down), size)
    return round(wide[0]), round(wide[1]), round(wide[2]), round(wide[3])


def _save(crop: "Image.Image", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    crop.save(path, "JPEG", quality=95)


def _finish(rows: list[dict[str, Any]], folder: Path) -> "pd.DataFrame":
    import pandas as pd

    manifest = pd.DataFrame(rows)
    if not rows or not (manifest["status"] == "ok").any():
        first = rows[0]["reason"] if rows else "there are no boxes"
        raise DataError(f"no face was cut: {first}")
    write_csv(folder / CROP_MANIFEST, manifest)
    return manifest
