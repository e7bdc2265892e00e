"""`model.onnx` and validation pictures go in, `model.int8.onnx` comes out where it answers nearly the same."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from maskfast.bundle.onnx_run import Array, Images, run_onnx

MAX_PROBABILITY_CHANGE = 0.01
"""Largest mean absolute change of the probability."""
MAX_ACCURACY_CHANGE = 0.002
MAX_LOG_LOSS_RISE = 0.005
CALIBRATION_IMAGES = (32, 128)
"""Pictures that ranges are taken from, from and to: the fewer, the more often each goes through a network."""
CALIBRATION_PASSES = 512
CALIBRATION_BATCH = 16
QUANTISED = ("Conv", "Add", "MaxPool", "Clip", "Relu", "Gemm", "MatMul")
"""Kinds of operations that are computed in 8 bits."""
EXACT_FIRST = (0, 3, 6)
"""How many of a network's first convolutions stay in float32: an error there goes through all others. The next is tried
where the one before changes too much."""


@dataclass(frozen=True)
class Change:
    """What 8 bits change on the validation pictures; accuracy and log loss are None where labels are unknown."""

    probability: float
    accuracy: float | None = None
    log_loss: float | None = None

    def describe_excess(self) -> str:
        """Return which bound is broken and by how much, or ""."""
        if not self.probability <= MAX_PROBABILITY_CHANGE:
            return f"mean probability change {self.probability:.4f}, more than {MAX_PROBABILITY_CHANGE}"
        if self.accuracy is not None and not self.accuracy <= MAX_ACCURACY_CHANGE:
            return f"accuracy change {self.accuracy:.4f}, more than {MAX_ACCURACY_CHANGE}"
        if self.log_loss is not None and not self.log_loss <= MAX_LOG_LOSS_RISE:
            return f"log loss {self.log_loss:.4f} worse, more than {MAX_LOG_LOSS_RISE}"
        return ""


def write_int8(
    exact: Path,
    out: Path,
    images: Images,
    probability: Array,
    labels: npt.NDArray[np.int_] | None,
    *,
    threshold: float,
    passes: int,
) -> tuple[str, dict[str, float | None]]:
    """Write `out`, the 8-bit version of `exact`, and return "" or why it was left out, and what it changes.

    `probability` (N,) is the network's for `images` (N, size, size, 3), `labels` (N,) are 1, 0 or -1 (unknown). Weights
    are quantised a channel each, activations with the range they have on the pictures. A picture goes `passes` times
    through a network (members by views); while ranges are taken all that they compute is held, so batches are smaller.
    """
    batch = max(1, CALIBRATION_BATCH // passes)
    count = min(max(CALIBRATION_PASSES // passes, CALIBRATION_IMAGES[0]), CALIBRATION_IMAGES[1])
    reason, change = "", Change(float("inf"))
    with TemporaryDirectory() as folder:
        candidate, ranges = Path(folder) / "candidate.onnx", Path(folder) / "ranges.json"
        for kept in _list_first_convolutions(exact, passes):
            if failure := _quantise(exact, candidate, _Pictures(images[:count], batch), kept, ranges):
                return failure, {}
            change = compare(probability, run_onnx(candidate, images)[1], labels, threshold)
            reason = change.describe_excess()
            if not reason:
                out.write_bytes(candidate.read_bytes())
                break
    return reason, asdict(change)


def compare(exact: Array, seen: Array, labels: npt.NDArray[np.int_] | None, threshold: float) -> Change:
    """Return how the probabilities `seen` differ from the `exact` ones."""
    change = float(np.abs(exact - seen).mean()) if np.isfinite(seen).all() else float("inf")
    known = np.zeros(len(exact), bool) if labels is None else labels >= 0
    if labels is None or not known.any():
        return Change(change)
    right = [((each[known] >= threshold) == labels[known]).mean() for each in (exact, seen)]
    losses = [_log_loss(each[known], labels[known]) for each in (exact, seen)]
    return Change(change, abs(float(right[1] - right[0])), losses[1] - losses[0])


def _log_loss(probability: Array, labels: npt.NDArray[np.int_]) -> float:
    right = np.where(labels == 1, probability, 1 - probability.astype(np.float64))
    return float(-np.log(right.clip(1e-7, 1)).mean())


def _list_first_convolutions(exact: Path, passes: int) -> list[list[str]]:
    """Return lists of those that stay exact, to be tried one after the other; some of each network are in 8 bits."""
    import onnx

    names = [node.name for node in onnx.load(str(exact)).graph.node if node.op_type == "Conv"]
    each = max(1, len(names) // passes)  # the exporter writes one pass after the other
    return [
        [name for index, name in enumerate(names) if index % each < count]
        for count in EXACT_FIRST
        if count == 0 or count < each
    ]


def _quantise(exact: Path, out: Path, pictures: "_Pictures", kept: list[str], ranges: Path) -> str:
    """Write the file with all but the nodes `kept` in 8 bits and return "", or why onnxruntime cannot.

    `ranges` is written from the pictures where it is not there yet; with more nodes kept it needs no other.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    try:
        with _hush_root_logger():
            quantize_static(
                str(exact),
                str(out),
                pictures,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                nodes_to_exclude=kept,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibration_cache_path=str(ranges),
            )
        _store_raw(out)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        return f"onnxruntime cannot quantise it: {' '.join(str(error).split())[:200]}"
    return ""


def _store_raw(path: Path) -> None:
    """Store the zero points of weights as raw bytes, as the weights are, so that both are changed alike when opened."""
    import onnx

    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and not tensor.raw_data:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, str(path))


class _Pictures:
    """onnxruntime's CalibrationDataReader over the pictures, by its one method."""

    def __init__(self, images: Images, batch: int) -> None:
        starts = range(0, len(images), batch)
        self._batches: Iterator[Images] = (images[start : start + batch] for start in starts)

    def get_next(self) -> dict[str, Images] | None:
        """Return the next batch, or None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


@contextmanager
def _hush_root_logger() -> Iterator[None]:
    """Keep onnxruntime's advice to users of its quantiser from our users; it writes to the root logger."""
    root = logging.getLogger()
    before, handlers = root.level, list(root.handlers)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
        root.handlers[:] = handlers  # logging.info gives a bare root logger a handler of its own
