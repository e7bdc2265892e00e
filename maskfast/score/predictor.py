"""Pictures go in, calibrated probabilities of a mask come out: what `load` makes of a bundle."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskfast.bundle.manifest import Manifest
from maskfast.core.cores import count_cores
from maskfast.core.errors import BundleError, ConfigError, ImageError
from maskfast.core.image import ImageSource, load_image
from maskfast.core.views import parse_view
from maskfast.score.backends import LANE_IMAGES, Backend, Images, run_parted
from maskfast.score.decode_worker import decode as decode_square

if TYPE_CHECKING:
    import pandas as pd

BATCH = 32
AHEAD = 2
"""Batches that are decoded while one is scored (by each thread that scores)."""
ROUNDING = 1e-4
"""So far from 0..1 a probability may lie and is moved into it: the mean over members is one by rounding only."""

Floats = npt.NDArray[np.float32]
Decode = Callable[[str, Any], Images | ImageError]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One picture's answer: `probability` that it shows at least one worn mask, None where `status` is "failed".

    `label` is "mask" from the model's threshold on, else "no_mask", and "" where it failed; `reason` says why.
    """

    image: str
    probability: float | None
    label: str
    status: Literal["ok", "failed"] = "ok"
    reason: str = ""


class Predictor:
    """Scores pictures with one bundle; safe to use from several threads."""

    def __init__(self, manifest: Manifest, backend: Backend, *, folder: Path | None = None) -> None:
        self.manifest = manifest
        self.backend = backend
        self.folder = folder

    @property
    def size(self) -> int:
        """Side of the square input, in pixels."""
        return self.manifest.size

    @property
    def method(self) -> Literal["squish", "pad", "crop"]:
        """How a picture becomes square, see `load_image`."""
        return self.manifest.method

    @property
    def threshold(self) -> float:
        """The probability from which on the label is "mask"."""
        return self.manifest.threshold

    @property
    def classes(self) -> tuple[str, str]:
        """("no_mask", "mask"), the order of the logits."""
        return self.manifest.classes

    def with_threshold(self, threshold: float) -> "Predictor":
        """Return the same predictor with another threshold."""
        return Predictor(self.manifest.model_copy(update={"threshold": threshold}), self.backend, folder=self.folder)

    def predict(self, image: ImageSource, *, tta: bool = False) -> Prediction:
        """Score one picture: a path, bytes, a Pillow picture or an array (height, width, 3) uint8.

        `tta` averages the picture and its mirror image. Raises ImageError for what is no usable picture.
        """
        name = _name(image)
        array = load_image(image, self.size, self.method, name=name)
        return self.describe(name, float(self.predict_arrays(array[None], tta=tta)[0]))

    def predict_many(
        self,
        images: Iterable[Any],
        *,
        tta: bool = False,
        batch_size: int = BATCH,
        decode: Decode | None = None,
        total: int | None = None,
    ) -> Iterator[Prediction]:
        """Score pictures in their order; one that cannot be used is "failed", with the reason.

        Each is what `predict` takes (or a member of a zip), or a tuple of a name for its row and that. They are decoded
        in threads while the network runs; `decode` may do it instead (see `score.decoders.DecoderPool`), and then says
        what a picture may be. For each thread that scores, at most AHEAD batches are held beside the one at work. Where
        `images` are the rest of more, `total` says of how many: then each answer is, to the last bit, what it would
        have been among all. Raises ConfigError where `images` is a single picture, or a tuple is none of those.
        """
        if isinstance(images, str | bytes | os.PathLike | Image.Image):
            raise ConfigError(f"{_name(images)}: is one picture; give a list of pictures, or use predict")
        decode = decode or self._decode
        pairs: Iterator[tuple[str, Any]] = map(_pair, images)
        lanes, lane = self.backend.lanes, self
        if lanes > 1:
            part = min(batch_size, LANE_IMAGES)
            head = list(islice(pairs, lanes * part)) if total is None else []
            pairs = chain(head, pairs)
            if (total or len(head)) < lanes * part:  # so few are not worth another session
                lanes = 1
            else:
                lane, batch_size = Predictor(self.manifest, self.backend.lane, folder=self.folder), part
        waiting: deque[Future[list[Prediction]]] = deque()
        with ThreadPoolExecutor(count_cores()) as decoders, ThreadPoolExecutor(lanes) as scorers:
            while chunk := list(islice(pairs, batch_size)):
                decoded = [(name, decoders.submit(decode, name, source)) for name, source in chunk]
                waiting.append(scorers.submit(lane._score_chunk, decoded, tta))
                if len(waiting) >= lanes * (AHEAD + 1):
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def _decode(self, name: str, source: Any) -> Images | ImageError:
        square = decode_square(name, source, self.size, self.method)
        return square if isinstance(square, ImageError) else np.array(square)

    def _score_chunk(self, chunk: list[tuple[str, Future[Images | ImageError]]], tta: bool) -> list[Prediction]:
        decoded = [(name, future.result()) for name, future in chunk]
        arrays = [array for _, array in decoded if not isinstance(array, ImageError)]
        scores = iter(self.predict_arrays(np.stack(arrays), tta=tta).tolist() if arrays else [])
        return [
            Prediction(name, None, "", "failed", array.reason)
            if isinstance(array, ImageError)
            else self.describe(name, next(scores))
            for name, array in decoded
        ]

    def predict_folder(self, folder: str | Path, *, tta: bool = False) -> "pd.DataFrame":
        """Score every picture in and below `folder`: a frame of image, probability, label, status, reason.

        A folder there that cannot be listed is a failed row. Bytes of a name that are no Unicode are shown as U+FFFD.
        """
        import pandas as pd

        from maskfast.score.batch import score_inputs
        from maskfast.score.rows import COLUMNS, list_cells

        rows = [list_cells(row) for row in score_inputs(self, [folder], tta=tta)]
        kinds = {name: "float64" if name == "probability" else "str" for name in COLUMNS}
        return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=kinds[name]) for name in COLUMNS})

    def predict_arrays(self, batch: Images, *, tta: bool = False) -> Floats:
        """Return the calibrated probabilities (N,) for `load_image` arrays (N, size, size, 3) uint8."""
        probability = self._run(batch)[1]
        if tta and not any(parse_view(view).flip for view in self.manifest.views):
            mirrored = self._run(np.ascontiguousarray(batch[:, :, ::-1]))[1]
            return (probability + mirrored) / np.float32(2)
        return probability

    def logits_arrays(self, batch: Images) -> Floats:
        """Return logits (N, 2) of no_mask, mask, before the temperature (of several members: see `make_scorer`)."""
        return self._run(batch)[0]

    def describe(self, name: str, probability: float) -> Prediction:
        """Return the prediction of the picture `name` with that probability."""
        return Prediction(name, probability, self.classes[int(probability >= self.threshold)])

    def _run(self, batch: Images) -> tuple[Floats, Floats]:
        if batch.dtype != np.uint8 or batch.shape[1:] != (self.size, self.size, 3):
            raise ConfigError(f"a batch of shape {batch.shape}, {batch.dtype}: use load_image with size {self.size}")
        if not len(batch):  # onnxruntime crashes on none
            return np.empty((0, 2), np.float32), np.empty(0, np.float32)
        logits, probability = run_parted(self.backend, batch)
        if flaw := _find_flaw(logits, probability, len(batch)):
            raise BundleError(f"{self.folder}: {self.backend.name} gave {flaw}; the model is broken")
        return logits, probability.clip(0, 1)


def _pair(image: Any) -> tuple[str, Any]:
    if not isinstance(image, tuple):
        return _name(image), image
    if len(image) != 2 or not isinstance(image[0], str):
        raise ConfigError(f"{image!r:.80}: give pictures, or tuples of a name and a picture")
    return image


def _find_flaw(logits: Floats, probability: Floats, count: int) -> str:
    """Say what is wrong with the answers for `count` pictures, "" where nothing is."""
    if logits.shape != (count, 2) or probability.shape != (count,):
        return f"logits {logits.shape} and probabilities {probability.shape} for {count} pictures"
    if not (np.isfinite(probability).all() and np.isfinite(logits).all()):
        return "a value that is not finite"
    lowest, highest = probability.min(), probability.max()
    if lowest < -ROUNDING or highest > 1 + ROUNDING:
        return f"the probability {lowest if lowest < -ROUNDING else highest:g}"
    return ""


def _name(image: ImageSource) -> str:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"<{type(image).__name__}>"
