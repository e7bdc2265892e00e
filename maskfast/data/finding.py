"""Finding pictures: the name that a table wrote goes in, the file that it means comes out."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from maskfast.data.frames import SPLITS
from maskfast.data.names import clean_name, ends_like_picture, has_drive, leaves_folder, try_walk_files


class NameIndex:
    """Finds the file that a table means: by relative path, else by the end of its path, by stem or regardless of case.

    The end is the longest that fits: `mask/a.jpg`, else `a.jpg`, of `/content/mask/a.jpg`. Of files in several roots
    the one in the first is meant.
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = tuple(roots)
        self._spellings: dict[str, set[Path]] | None = None
        self._unlisted: list[OSError] = []

    def find(self, name: str, *, absolute: bool = False) -> Path:
        """Return the file that `name` means below the roots (or, where `absolute` is allowed, anywhere).

        Raises LookupError with the reason: outside the folder, missing, or several files of that name.
        """
        cleaned = clean_name(name)
        if not cleaned:
            raise LookupError("empty name")
        if leaves_folder(cleaned) or "\0" in cleaned or (cleaned.startswith("/") and not absolute):
            raise LookupError("the name leads outside the folder")
        return self._find_direct(cleaned, Path(name.strip())) or self._find_spelling(cleaned)

    def _find_direct(self, name: str, path: Path) -> Path | None:
        if name.startswith("/"):
            return path if _is_file(path) else None
        if has_drive(name):
            return None
        return next((root / name for root in self._roots if _is_file(root / name)), None)

    def _find_spelling(self, name: str) -> Path:
        if self._spellings is None:
            self._spellings = self._read_spellings()
        folders = name.split("/")
        ends = ["/".join(folders[start:]) for start in range(len(folders))]
        for spelling in (*ends, folders[-1].casefold()):
            if found := self._spellings.get(spelling):
                return self._choose(sorted(found))
        unlisted = f" (and {self._unlisted[0].filename} cannot be listed)" if self._unlisted else ""
        raise LookupError(f"no such file{unlisted}")

    def _choose(self, found: list[Path]) -> Path:
        nearest = next(inside for root in self._roots if (inside := [path for path in found if root in path.parents]))
        if len(nearest) > 1:
            common = os.path.commonpath(nearest)
            both = " and ".join(path.relative_to(common).as_posix() for path in nearest[:2])
            raise LookupError(f"{len(nearest)} files fit the name, as {both}; write it with its folder")
        return nearest[0]

    def _read_spellings(self) -> dict[str, set[Path]]:
        spellings: dict[str, set[Path]] = defaultdict(set)
        for root in self._roots:
            for path in try_walk_files(root):
                if isinstance(path, OSError):
                    self._unlisted.append(path)
                    continue
                relative = clean_name(path.relative_to(root).as_posix())
                for spelling in _spell(relative):
                    spellings[spelling].add(path)
        return spellings


def _spell(relative: str) -> set[str]:
    bare = relative.rsplit("/", 1)[-1]
    forms = {relative, bare, bare.casefold()}
    if ends_like_picture(bare):
        forms |= {str(PurePosixPath(form).with_suffix("")) for form in forms}
    return forms


def find_parts(folder: Path) -> set[str]:
    """Return the splits that the names of folders speak of, as `train_images` does of train."""
    words = re.split(r"[\s_\-.]+", " ".join(folder.parts).casefold())
    return {SPLITS[word] for word in words if word in SPLITS}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long or of bytes that no file can have
        return False
