"""A folder a class: a folder goes in, its pictures with the labels that the names of their folders say come out."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from maskfast.core.errors import DataError
from maskfast.data.frames import SPLITS
from maskfast.data.labels import fold_spelling, read_label
from maskfast.data.listing import is_picture
from maskfast.data.names import clean_name, walk_files
from maskfast.data.roots import FOLDER_NAMES, list_folders


def is_class(name: str, *, positive: str | None = None) -> bool:
    """Tell whether a folder's name says a class: by its spelling, or since it is the `positive` one."""
    return _read_name(name) is not None or (positive is not None and fold_spelling(name) == fold_spelling(positive))


def has_class_folders(folder: Path, *, positive: str | None = None) -> bool:
    """Tell whether folders clearly say the classes: both of them, or the only one where there are no other pictures."""
    folders = [part.folder / name for part in _find_parts(folder, positive) for name in part.names]
    if positive is not None:
        return any(read_label(path.name, positive=positive) == 1 for path in folders)
    labels = {path: _read_name(path.name) for path in folders}
    known = set(labels.values()) - {None}
    return len(known) == 2 or (
        len(known) == 1 and not any(label is None and _holds_pictures(path) for path, label in labels.items())
    )


def holds_both_classes(folder: Path) -> bool:
    """Tell whether `folder` holds no pictures itself but a folder for each class, split or not, or one that does."""
    if any(path.is_file() and is_picture(path) for path in folder.iterdir()):
        return False
    found = {_read_name(name) for part in _find_parts(folder, None) for name in part.names}
    return found >= {0, 1} or (len(names := list_folders(folder)) == 1 and holds_both_classes(folder / names[0]))


def read_class_folders(folder: Path, *, source: str, positive: str | None) -> list[dict[str, Any]]:
    """Return the rows of the pictures in class folders, below `train`, `valid` and `test` where they are split.

    Test pictures that are in no class folder have no label. Raises DataError for a folder of pictures elsewhere whose
    name says no class, and for one that holds the classes itself.
    """
    rows: list[dict[str, Any]] = []
    parts = _find_parts(folder, positive)
    named = {name for part in parts if part.split != "test" for name in part.names}
    for part in parts:
        found = _read_test_part(part, named, positive) if part.split == "test" else _read_part(part, positive)
        rows += [_make_row(path, folder, label) | {"source": source, "split": part.split} for path, label in found]
    return rows


class _Part(NamedTuple):
    """A folder of class folders, the split that it is (None: none) and the names of those."""

    folder: Path
    split: str | None
    names: list[str]


def _find_parts(folder: Path, positive: str | None) -> list[_Part]:
    """Return the folders of the splits, an unknown one by its own name, and `folder` itself where classes are there."""
    names = list_folders(folder)
    splits = {name: SPLITS[name.casefold()] for name in names if name.casefold() in SPLITS}
    if splits:
        splits |= {name: name for name in names if name not in splits and holds_both_classes(folder / name)}
    rest = [name for name in names if name not in splits]
    unsplit = not splits or any(is_class(name, positive=positive) for name in rest)
    parts = [_Part(folder / name, split, list_folders(folder / name)) for name, split in splits.items()]
    return [_Part(folder, None, rest), *parts] if unsplit else parts


def _read_part(part: _Part, positive: str | None) -> Iterator[tuple[str, int | None]]:
    both = {_read_name(name) for name in part.names} >= {0, 1}
    for folder in (part.folder / name for name in part.names):
        pictures = _list_pictures(folder)
        if path := next(pictures, None):
            if positive is None and not both and holds_both_classes(folder):
                raise DataError(f"{folder}: holds both classes; give this folder by its path")
            label = _read_label(folder, positive=positive)
            yield from ((each, label) for each in chain([path], pictures))


def _read_test_part(part: _Part, named: set[str], positive: str | None) -> Iterator[tuple[str, int | None]]:
    """Yield test pictures and labels; with `positive`, folders that no other part has (`named`) give no label."""
    for name in part.names:
        label = _read_name(name) if positive is None else read_label(name, positive=positive)
        label = None if label == 0 and positive is not None and named and name not in named else label
        yield from ((path, label) for path in _list_pictures(part.folder / name))
    loose = (path for path in sorted(part.folder.iterdir()) if not path.name.startswith(".") and path.is_file())
    yield from ((str(path), None) for path in loose if is_picture(path))


def _list_pictures(folder: Path) -> Iterator[str]:
    return map(str, filter(is_picture, walk_files(folder)))  # text, being far smaller than paths


def _make_row(path: str, base: Path, label: int | None) -> dict[str, Any]:
    image = clean_name(Path(path).relative_to(base).as_posix())
    return {"image": image, "path": path, "label": label, "row": image}


def _holds_pictures(folder: Path) -> bool:
    return next(_list_pictures(folder), None) is not None


def _read_name(name: str) -> int | None:
    try:
        return read_label(name)
    except ValueError:
        return None


def _read_label(folder: Path, *, positive: str | None) -> int:
    label = _read_name(folder.name) if positive is None else read_label(folder.name, positive=positive)
    if label is None:
        hint = "" if folder.name in FOLDER_NAMES else f", or the folder of masks with --positive {folder.name}"
        raise DataError(f"{folder}: is it mask or no mask? give a table of labels{hint}")
    return label
