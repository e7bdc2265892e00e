"""What a picture looks like in a few bytes: paths go in, a frame of hashes, sizes and measures comes out."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from maskfast.core.cache import cache_dir
from maskfast.core.cores import count_cores
from maskfast.core.errors import ImageError
from maskfast.core.image import open_image, read_file, read_header

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

VERSION = 2
"""Of the measures below; stored ones of another version are made anew."""
HASH_SIDE = 16
"""The perceptual hash has this many bits squared."""
_DECODED = 256
"""Pixels a side that are enough for every measure."""
_MEASURED = 128
"""Pixels a side at which brightness, contrast and sharpness are taken; most pictures have as many."""
_BATCH = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """One picture's hashes and measures; those of a refused one are empty."""

    path: str
    reason: str = ""
    """Why it was refused; "" where it was not."""
    sha1: str = ""
    """Of the file's bytes."""
    hash: str = ""
    """imagehash.phash of 256 bits, in hexadecimal: the signs of the lowest spatial frequencies about their median."""
    mirrored: str = ""
    """The same of the picture mirrored left to right."""
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    bytes: int = 0
    brightness: float = 0.0
    """Mean grey, 0 to 255."""
    contrast: float = 0.0
    """Standard deviation of grey."""
    sharpness: float = 0.0
    """Variance of the Laplacian at 128 x 128 pixels (Pech-Pacheco et al. 2000)."""


def measure_pictures(
    paths: Sequence[str], *, workers: int | None = None, on_progress: Callable[[int], object] | None = None
) -> "pd.DataFrame":
    """Return a frame with the columns of Fingerprint, in the order of `paths`; remembered between calls.

    `on_progress` is called with the number of pictures done. Memory does not grow with the pictures, but by their rows.
    """
    import pandas as pd

    parts = [_make_frame([])]
    with closing(_open_store()) as store:
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            parts.append(_make_frame(_measure_batch(store, batch, workers or count_cores())))
            if on_progress is not None:
                on_progress(start + len(batch))
    return pd.concat(parts, ignore_index=True)


def _make_frame(prints: Sequence[Fingerprint]) -> "pd.DataFrame":
    """Return the columns of Fingerprint; whole frames hold far less memory than as many objects."""
    import pandas as pd

    columns = {field.name: [getattr(one, field.name) for one in prints] for field in fields(Fingerprint)}
    return pd.DataFrame(columns).astype({field.name: field.type for field in fields(Fingerprint)})


def _open_store() -> sqlite3.Connection:
    store = sqlite3.connect(cache_dir("fingerprints") / f"v{VERSION}.sqlite", timeout=60)
    store.execute("create table if not exists prints (key text primary key, content text)")
    return store


def _measure_batch(store: sqlite3.Connection, paths: Sequence[str], workers: int) -> list[Fingerprint]:
    keys = [_make_key(path) for path in paths]
    known = dict(_recall(store, keys))
    missing = [(path, key) for path, key in zip(paths, keys, strict=True) if key not in known]
    with ThreadPoolExecutor(workers) as pool:
        fresh = list(pool.map(measure_picture, [path for path, _ in missing]))
    for (_, key), one in zip(missing, fresh, strict=True):
        known[key] = one
    with store:
        rows = [(key, json.dumps(asdict(known[key]))) for _, key in missing if key]
        store.executemany("insert or replace into prints values (?, ?)", rows)
    return [known[key] if key else measure_picture(path) for path, key in zip(paths, keys, strict=True)]


def _make_key(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_size}|{found.st_mtime_ns}|{found.st_ino}|{path}"


def _recall(store: sqlite3.Connection, keys: Sequence[str]) -> Iterator[tuple[str, Fingerprint]]:
    for start in range(0, len(keys), 100):
        part = keys[start : start + 100]
        marks = ",".join("?" * len(part))
        for key, content in store.execute(f"select key, content from prints where key in ({marks})", part):
            yield key, Fingerprint(**json.loads(content))


def measure_picture(path: str) -> Fingerprint:
    """Decode one picture by the loader's policy and measure it."""
    try:
        data = read_file(path)
        header = read_header(data, name=path)
        img = open_image(data, name=path, at_least=_DECODED)
    except ImageError as error:
        return Fingerprint(path=path, reason=error.reason)
    grey = img.convert("L")
    plain, mirrored = _hash(grey)
    brightness, contrast, sharpness = _measure_grey(grey)
    return Fingerprint(
        path=path,
        sha1=hashlib.sha1(data, usedforsecurity=False).hexdigest(),
        hash=plain,
        mirrored=mirrored,
        **header._asdict(),
        bytes=len(data),
        brightness=brightness,
        contrast=contrast,
        sharpness=sharpness,
    )


def _hash(grey: "Image.Image") -> tuple[str, str]:
    from imagehash import phash
    from PIL import Image

    small = grey.resize((4 * HASH_SIDE, 4 * HASH_SIDE), Image.Resampling.LANCZOS)
    mirrored = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return str(phash(small, hash_size=HASH_SIDE)), str(phash(mirrored, hash_size=HASH_SIDE))


def _measure_grey(grey: "Image.Image") -> tuple[float, float, float]:
    import numpy as np
    from PIL import Image

    values = np.asarray(grey.resize((_MEASURED, _MEASURED), Image.Resampling.BILINEAR), dtype=np.float32)
    inner = values[1:-1, 1:-1]
    laplacian = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * inner
    return round(float(values.mean()), 2), round(float(values.std()), 2), round(float(laplacian.var()), 2)
