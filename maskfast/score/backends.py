"""Batches of square uint8 pictures go in, logits and calibrated probabilities come out: through ONNX or torch."""

import importlib.util
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from maskfast.bundle.manifest import Manifest
from maskfast.bundle.onnx_run import fit_weights, open_session
from maskfast.bundle.onnx_safety import check_onnx
from maskfast.bundle.verify import read_listed
from maskfast.core.cores import count_cores
from maskfast.core.errors import BundleError, ConfigError

if TYPE_CHECKING:
    import torch
    from onnxruntime import InferenceSession as Session
    from torch import nn

BackendName = Literal["auto", "onnx", "int8", "torch", "torch-fp32"]
FILES = {"onnx": "model.onnx", "int8": "model.int8.onnx"}
LANE_IMAGES = 16
"""Pictures in a part of a batch that one core is given."""
GPU_DEVICE = Path("/dev/nvidiactl")

Images = npt.NDArray[np.uint8]
Scores = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


class Backend(Protocol):
    """What runs the network; `name` says which, for people and reports."""

    name: str
    lanes: int
    """In how many threads at a time `lane` answers the most pictures a second: one a core, and one on a GPU."""

    @property
    def lane(self) -> "Backend":
        """What is to be called from `lanes` threads, with LANE_IMAGES pictures at a time; itself where that is 1."""
        ...

    def run(self, images: Images) -> Scores:
        """Return logits (N, 2) and probabilities (N,) float32 for images (N, size, size, 3) uint8."""
        ...


class OnnxBackend:
    """onnxruntime on the CPU, with as many threads as this process may use cores.

    Threads that share an operation wait for each other at its end, the longer where a core also decodes. Many pictures
    are therefore parted, each core answering for its own: `lane`, opened when first needed, since one picture alone
    never needs it.
    """

    def __init__(self, content: bytes, *, source: str, size: int, name: str, threads: int) -> None:
        self.name = name
        self.lanes = threads
        self._source, self._size = source, size
        self._lock = threading.Lock()
        self._lane: OnnxBackend | None = None
        self._kept = content if self.lanes > 1 else b""  # the file may be another one when the lane is opened
        self._session = self._open(content, threads)
        self._check_shapes()

    @property
    def lane(self) -> "OnnxBackend":
        """The same on one core; the same itself where there is but one lane."""
        if self.lanes == 1:
            return self
        with self._lock:
            if self._lane is None:
                self._lane = OnnxBackend(self._kept, source=self._source, size=self._size, name=self.name, threads=1)
                self._kept = b""
            return self._lane

    def run(self, images: Images) -> Scores:
        """Return logits (N, 2) and probabilities (N,) for images (N, size, size, 3)."""
        logits, probability = self._session.run(["logits", "probability"], {"images": images})
        return logits, probability

    def _open(self, content: bytes, threads: int) -> "Session":
        try:
            return open_session(content, threads=threads)
        except Exception as error:  # onnxruntime's errors share no class of their own
            reason = " ".join(str(error).split())[:200]
            raise BundleError(f"{self._source}: onnxruntime cannot open it: {reason}") from error

    def _check_shapes(self) -> None:
        size, source = self._size, self._source
        inputs = {each.name: (each.type, each.shape[1:]) for each in self._session.get_inputs()}
        outputs = {each.name: (each.type, each.shape[1:]) for each in self._session.get_outputs()}
        if inputs != {"images": ("tensor(uint8)", [size, size, 3])}:
            raise BundleError(f"{source}: its inputs are {inputs}, expected images of (N, {size}, {size}, 3) uint8")
        if outputs != {"logits": ("tensor(float)", [2]), "probability": ("tensor(float)", [])}:
            raise BundleError(f"{source}: its outputs are {outputs}, expected logits (N, 2) and probability (N,)")


class TorchBackend:
    """torch on the GPU where there is one, else on the CPU; in bfloat16 (where that is native) or float32.

    On the CPU many pictures are parted as they are for onnxruntime.
    """

    def __init__(self, networks: "Sequence[nn.Module]", manifest: Manifest, *, bf16: bool) -> None:
        import torch

        from maskfast.bundle.scorer import fold_norms, make_scorer

        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._bf16 = bf16 and has_bf16(self._device)
        self.name = "torch" if self._bf16 else "torch-fp32"
        scorer = make_scorer([fold_norms(network) for network in networks] if self._bf16 else networks, manifest)
        self._scorer = scorer.to(self._device).to(memory_format=torch.channels_last)
        self._cores = count_cores()
        self.lanes = self._cores if self._device.type == "cpu" else 1

    @property
    def lane(self) -> "Backend":
        """The same network on one core; the same itself where there is but one lane."""
        return self if self.lanes == 1 else _TorchLane(self)

    def run(self, images: Images) -> Scores:
        """Return logits (N, 2) and probabilities (N,) for images (N, size, size, 3)."""
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)
        with hold_threads(self._cores), torch.inference_mode(), autocast:
            logits, probability = self._scorer(batch)
        return logits.float().cpu().numpy(), probability.float().cpu().numpy()


class _TorchLane:
    """A backend of torch in the thread that calls alone."""

    lanes = 1

    def __init__(self, backend: TorchBackend) -> None:
        self.name = backend.name
        self._backend = backend

    @property
    def lane(self) -> "_TorchLane":
        return self

    def run(self, images: Images) -> Scores:
        with hold_threads(1):
            return self._backend.run(images)


@contextmanager
def hold_threads(most: int) -> Iterator[None]:
    """Let torch compute in so many threads at most, for the thread that calls and for no other.

    By itself torch takes one for each core of the machine, whatever its container is given.
    """
    import torch

    before = torch.get_num_threads()
    if before <= most:
        yield
        return
    torch.set_num_threads(most)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_parted(backend: Backend, images: Images) -> Scores:
    """Return what `backend.run` does, each lane answering for a part where there are enough pictures for all."""
    if backend.lanes == 1 or len(images) < backend.lanes * LANE_IMAGES:
        return backend.run(images)
    with ThreadPoolExecutor(backend.lanes, thread_name_prefix=backend.name) as threads:
        parts = list(threads.map(backend.lane.run, np.array_split(images, backend.lanes)))
    logits, probability = zip(*parts, strict=True)
    return np.concatenate(logits), np.concatenate(probability)


def open_backend(folder: Path, manifest: Manifest, name: BackendName) -> Backend:
    """Open the backend `name` of the bundle in `folder`.

    "auto" is torch where there is a GPU, else onnxruntime in float32, else (no ONNX file) torch in float32, so that
    without a GPU every way of scoring agrees with the Learner; "int8" and "torch" (bfloat16) are faster.
    """
    if name == "auto":
        name = _choose_backend(manifest)
    if name in FILES:
        path = folder / FILES[name]
        content = _read_onnx(path, manifest)
        return OnnxBackend(content, source=str(path), size=manifest.size, name=name, threads=count_cores())
    if name not in ("torch", "torch-fp32"):
        raise ConfigError(f"--backend {name}: unknown; use auto, onnx, int8, torch or torch-fp32")
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(f"--backend {name}: torch is not installed; pip install torch, or use --backend onnx")
    from maskfast.bundle.weights import read_networks

    return TorchBackend(read_networks(folder, manifest), manifest, bf16=name == "torch")


def has_bf16(device: "torch.device") -> bool:
    """Say whether the device multiplies bfloat16 in hardware (a processor: AVX-512 BF16 or AMX); else it is slower."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _read_onnx(path: Path, manifest: Manifest) -> bytes:
    content = read_listed(path.parent, manifest, path.name)
    tensors = check_onnx(content, name=str(path))
    try:
        return fit_weights(content, tensors)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error


def _choose_backend(manifest: Manifest) -> BackendName:
    if manifest.weights and _has_gpu():
        return "torch"
    if FILES["onnx"] in manifest.sha256:
        return "onnx"
    return "torch-fp32" if manifest.weights else "int8"


def _has_gpu() -> bool:
    """Ask torch only where it is imported already or a driver is there: importing it takes seconds."""
    if "torch" not in sys.modules and not (GPU_DEVICE.exists() and importlib.util.find_spec("torch")):
        return False
    import torch

    return torch.cuda.is_available()
