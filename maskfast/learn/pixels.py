"""Files flow in, their decoded pixels flow out of one memory-mapped array that is made once and shared by all runs.

A cache is a folder of two files, named by what it holds: `pixels.npy` (N, size, size, 3) uint8 and `rows.json` (path to
row, or the reason why a file has none). Its name is the hash of every file's path, length and time of change, the size,
the method and the version of maskfast; so whatever changes makes another cache, and the old one ages out.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfast._version import __version__
from maskfast.core.cache import cache_dir
from maskfast.core.cores import count_cores
from maskfast.core.errors import ImageError
from maskfast.core.files import replace_folder
from maskfast.core.image import Method, load_image

log = logging.getLogger(__name__)
MAX_CACHE_BYTES = 16 * 2**30
"""All pixel caches of a machine together; the least recently used go first."""
FREE_BYTES = 2 * 2**30
"""What a cache must leave free on the disk."""
PIXELS, ROWS = "pixels.npy", "rows.json"


@dataclass
class PixelCache:
    """The decoded pixels of a list of files: `rows` says which row of the array each readable path has."""

    size: int
    method: Method
    rows: dict[str, int]
    reasons: dict[str, str]
    folder: Path | None = None
    _array: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    def __contains__(self, path: object) -> bool:
        return path in self.rows

    def read(self, path: str) -> NDArray[np.uint8]:
        """The pixels (size, size, 3) of `path`; KeyError for one that has no row."""
        row: NDArray[np.uint8] = self.array[self.rows[path]]
        return row

    @property
    def array(self) -> NDArray[np.uint8]:
        """The whole array (N, size, size, 3), mapped when first needed."""
        if self._array is None:
            assert self.folder is not None, "a cache without an array lies in a folder"
            self._array = np.load(self.folder / PIXELS, mmap_mode="r")
        return self._array

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None if self.folder else self._array}


def open_pixels(
    paths: Sequence[str], size: int, method: Method = "squish", *, max_bytes: int = MAX_CACHE_BYTES
) -> PixelCache | None:
    """Open the cache of `paths`, making it first where there is none; None where it would not fit on the disk.

    Two runs that make the same cache at once do not disturb each other: each writes its own, the first name stays.
    """
    folder = cache_dir("pixels")
    target = folder / name_cache(paths, size, method)
    found = _open_made(target, size, method)
    if found:
        return found
    needed = len(paths) * size * size * 3
    _remove_old(folder, max_bytes - needed)
    if needed > max_bytes or needed + FREE_BYTES > shutil.disk_usage(folder).free:
        log.info("pixels are not cached: %.1f GB do not fit; pictures are decoded at each epoch", needed / 1e9)
        return None
    _write_cache(target, paths, size, method)
    return _open_made(target, size, method)


def name_cache(paths: Sequence[str], size: int, method: Method) -> str:
    """The name of the cache of these files as they are now."""
    identities = [[path, *_identify(path)] for path in paths]
    key = json.dumps([__version__, size, method, identities])
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def decode_all(
    paths: Sequence[str], size: int, method: Method = "squish"
) -> Iterator[tuple[str, NDArray[np.uint8] | str]]:
    """Decode files on all processors, in order: each path with its pixels, or with the reason why it has none."""

    def decode(path: str) -> NDArray[np.uint8] | str:
        try:
            return load_image(path, size, method)
        except ImageError as error:
            return error.reason

    with ThreadPoolExecutor(count_cores()) as pool:
        yield from zip(paths, pool.map(decode, paths), strict=True)


def _identify(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (-1, -1)
    return status.st_size, status.st_mtime_ns


def _open_made(target: Path, size: int, method: Method) -> PixelCache | None:
    try:
        made = json.loads((target / ROWS).read_text())
        cache = PixelCache(size, method, made["rows"], made["reasons"], target)
        if cache.array.shape[1:] != (size, size, 3):
            return None
        os.utime(target)
        return cache
    except (OSError, ValueError, KeyError):
        return None


def _write_cache(target: Path, paths: Sequence[str], size: int, method: Method) -> None:
    rows: dict[str, int] = {}
    reasons: dict[str, str] = {}
    with replace_folder(target) as folder:
        shape = (max(1, len(paths)), size, size, 3)
        array = np.lib.format.open_memmap(folder / PIXELS, mode="w+", dtype=np.uint8, shape=shape)
        for path, pixels in decode_all(paths, size, method):
            if isinstance(pixels, str):
                reasons[path] = pixels
            else:
                array[len(rows)] = pixels
                rows[path] = len(rows)
        array.flush()
        (folder / ROWS).write_text(json.dumps({"rows": rows, "reasons": reasons}))


def _remove_old(folder: Path, room: int) -> None:
    """Remove the least recently used caches until the others fit into `room` bytes, and what killed runs left."""
    caches = sorted((entry for entry in folder.iterdir() if entry.is_dir()), key=_used_at, reverse=True)
    taken = 0
    for cache in caches:
        taken += sum(file.stat().st_size for file in cache.glob("*") if file.is_file())
        if taken > room:
            shutil.rmtree(cache, ignore_errors=True)  # a run that has it mapped keeps its pages


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
