"""The two stages that run on a cluster: blocks of pictures to square pixels, and pixels to rows of predictions."""

import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskfast.apps.cluster.sources import Picture, Source, Stored
from maskfast.bundle.manifest import MANIFEST_FILE
from maskfast.core.errors import ImageError
from maskfast.core.files import replace_folder
from maskfast.core.image import Method
from maskfast.data.listing import Unread
from maskfast.score.backends import BackendName
from maskfast.score.decoders import DecoderPool
from maskfast.score.loading import load
from maskfast.score.predictor import Prediction

FETCH_AHEAD = 8
"""Pictures that one decoder fetches from a store at a time: the store's answer takes longer than decoding one."""


@dataclass(frozen=True)
class Decoded:
    """A decoded block: `names` in order, `pixels` (n, size, size, 3) of the usable ones, `reasons` of the others."""

    names: list[str]
    pixels: npt.NDArray[np.uint8]
    reasons: dict[int, str]

    def list_pairs(self) -> list[tuple[str, npt.NDArray[np.uint8] | ImageError]]:
        """Return (name, pixels or the error) of each picture, in order."""
        usable = iter(self.pixels)
        return [
            (name, ImageError(name, self.reasons[at]) if at in self.reasons else next(usable))
            for at, name in enumerate(self.names)
        ]


def decode_block(pictures: list[Picture], size: int, method: Method) -> Decoded:
    """Decode a block; a picture that is refused, crashes its decoder or hangs it is a reason among the pixels."""
    pool = _open_decoder(size, method)
    decoded = [pool.decode(name, source) for name, source in _fetch_ahead(pictures)]
    reasons = {at: each.reason for at, each in enumerate(decoded) if isinstance(each, ImageError)}
    usable = [each for each in decoded if not isinstance(each, ImageError)]
    pixels = np.stack(usable) if usable else np.empty((0, size, size, 3), np.uint8)
    return Decoded([name for name, _ in pictures], pixels, reasons)


def decode_and_locate(pictures: list[Picture], size: int, method: Method) -> tuple[Decoded, str]:
    """Decode a block and say on which Ray node."""
    return decode_block(pictures, size, method), locate_node()


@cache
def _open_decoder(size: int, method: Method) -> DecoderPool:
    """One decoder process for the life of this worker process; it ends with its standard input."""
    return DecoderPool(size, method)


def _fetch_ahead(pictures: list[Picture]) -> Iterator[tuple[str, Any]]:
    """Yield the pictures in order, those of a store as bytes (or what reading them raised, for the decoder to tell)."""
    with ThreadPoolExecutor(FETCH_AHEAD) as threads:
        waiting: deque[tuple[str, Future[Source]]] = deque()
        for name, source in pictures:
            waiting.append((name, threads.submit(_fetch, source)))
            if len(waiting) >= FETCH_AHEAD:
                name, fetched = waiting.popleft()
                yield name, fetched.result()
        for name, fetched in waiting:
            yield name, fetched.result()


def _fetch(source: Source) -> Source:
    if not isinstance(source, Stored):
        return source
    try:
        return source.read_bytes()
    except Exception as error:  # each store has errors of its own
        return Unread(" ".join(str(error).split()) or type(error).__name__)


@dataclass(frozen=True)
class Model:
    """A bundle as a scorer finds it: the folder `path` where its manifest is `manifest`, else from `files`.

    `files` is a list of one reference to the bundle's files, name to bytes; empty where every node sees the folder.
    """

    path: str
    manifest: bytes
    files: list[Any]

    def open(self) -> Path:
        """Return a folder with the bundle on this machine."""
        local = Path(self.path)
        if not self.files or _has_manifest(local, self.manifest):
            return local
        import ray

        target = Path(tempfile.mkdtemp(prefix="maskfast-")) / "model"
        with replace_folder(target) as folder:
            for name, content in ray.get(self.files[0]).items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        return target


def read_bundle_files(folder: Path) -> dict[str, bytes]:
    """Return every file of a bundle by its relative name."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _has_manifest(folder: Path, manifest: bytes) -> bool:
    path = folder / MANIFEST_FILE
    return path.is_file() and path.read_bytes() == manifest


class Scorer:
    """Holds one model and scores decoded blocks with it."""

    def __init__(self, model: Model, *, backend: BackendName, threshold: float | None, tta: bool) -> None:
        predictor = load(model.open(), backend=backend)
        self._predictor = predictor if threshold is None else predictor.with_threshold(threshold)
        self._tta = tta

    def locate(self) -> str:
        """Return the id of the node this runs on, once the model is loaded."""
        return locate_node()

    def score(self, decoded: Decoded) -> list[Prediction]:
        """Return a row a picture, scored in the local engine's batches."""
        rows = self._predictor.predict_many(decoded.list_pairs(), tta=self._tta, decode=_take_decoded)
        return list(rows)


def _take_decoded(_: str, pixels: npt.NDArray[np.uint8] | ImageError) -> npt.NDArray[np.uint8] | ImageError:
    return pixels


def locate_node() -> str:
    """Return the id of the Ray node this process runs on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())
