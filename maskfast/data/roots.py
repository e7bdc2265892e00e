"""Where the pictures of a data set lie: its folder goes in, the folders to look in come out, archives unpacked."""

import os
from pathlib import Path

from maskfast.data.archives import extract_zip, list_members
from maskfast.data.finding import find_parts
from maskfast.data.names import ends_like_picture, try_walk_files

FOLDER_NAMES = ("images", "Images", "image", "imgs", "pictures", "photos", "medical mask")
"""Folders beside a table that hold its pictures; for each also the archive of that name."""


def find_picture_roots(folder: Path, *, part: str | None = None) -> list[Path]:
    """Return the folders to look for a table's pictures in, the likeliest first; the table's own is the last.

    An `images` folder counts before `images.zip`, and that before pictures anywhere in the folder; only where there are
    none are other archives opened, those called like the split `part` first. The one folder called like it in `images`
    comes before that, and so does the one beside it, as `test_images` is, unless the part is "train". Archives are
    unpacked into the cache. Raises ArchiveError.
    """
    named = [folder / name for name in FOLDER_NAMES if (folder / name).is_dir()][:1]
    archives = [] if named else sorted(_find_archives(folder), key=lambda path: not _is_of(path, part))
    usual = [*named, *(root for archive in archives for root in _unpack(archive))]
    inside, beside = ([root for place in places for root in _find_own(place, part)] for places in (named, [folder]))
    return [*inside, *(usual + beside if part == "train" else beside + usual), folder]


def list_folders(folder: Path) -> list[str]:
    """Return the names of the folders in `folder`, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__")))


def _find_own(folder: Path, part: str | None) -> list[Path]:
    found = [folder / name for name in list_folders(folder) if _is_of(Path(name), part)]
    return found if len(found) == 1 else []


def _is_of(path: Path, part: str | None) -> bool:
    return part in find_parts(Path(path.stem))


def _find_archives(folder: Path) -> list[Path]:
    named = [path for name in FOLDER_NAMES if (path := folder / f"{name}.zip").is_file()]
    if named or any(map(_is_named_picture, try_walk_files(folder))):
        return named[:1]
    return [path for path in sorted(folder.glob("*.zip")) if _holds_pictures(path)]


def _is_named_picture(found: Path | OSError) -> bool:
    return isinstance(found, Path) and ends_like_picture(found.name)


def _holds_pictures(archive: Path) -> bool:
    return any(ends_like_picture(member.name) for member in list_members(archive))


def _unpack(archive: Path) -> list[Path]:
    root = extract_zip(archive)
    inner = [path for path in sorted(root.iterdir()) if path.is_dir()]
    return [inner[0], root] if len(inner) == 1 else [root]
