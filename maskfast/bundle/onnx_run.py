"""The bytes of an ONNX file or a torch module, and pictures, go in; their answers come out."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maskfast.bundle.onnx_bytes import Fields, holds_int8, make_weights_unsigned, shift_wide_filters, walk_tensors

if TYPE_CHECKING:
    from onnxruntime import InferenceSession as Session
    from torch import nn

BATCH = 32
_ERRORS = 3  # onnxruntime's level of what it logs
_PRODUCT = bytes.fromhex(
    "08093a580a180a01610a0177120170220d4d61744d756c496e74656765721201672a0f0804080110034201774a047f7f7f7f5a13"
    "0a0161120e0a0c080212080a0208010a02080462130a0170120e0a0c080612080a0208010a02080142040a001011"
)
"""An ONNX file: MatMulInteger of `a` (1, 4) uint8 and four int8 weights of 127."""

_CPU_INFO = Path("/proc/cpuinfo")

Array = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]


def run_scorer(scorer: "nn.Module", images: Images) -> tuple[Array, Array]:
    """Return logits (N, 2) and probabilities (N,) of the torch module for images (N, size, size, 3), in fp32."""
    import torch

    with torch.inference_mode():
        parts = [scorer(torch.from_numpy(images[start : start + BATCH])) for start in range(0, len(images), BATCH)]
    return np.concatenate([part[0].numpy() for part in parts]), np.concatenate([part[1].numpy() for part in parts])


def run_onnx(path: Path, images: Images) -> tuple[Array, Array]:
    """Return logits (N, 2) and probabilities (N,) of the ONNX file for images (N, size, size, 3)."""
    content = path.read_bytes()
    session = open_session(fit_weights(content, list(walk_tensors(content))))
    parts = [session.run(None, {"images": images[start : start + BATCH]}) for start in range(0, len(images), BATCH)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def open_session(content: bytes, *, threads: int = 0) -> "Session":
    """Open an ONNX file on the processor, in `threads` threads or (0) one a core.

    An 8-bit file must have gone through `fit_weights`. Raises whatever onnxruntime raises for what it cannot run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS
    # threads that wait by spinning take the cores from whatever decodes the next pictures
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # by itself it looks whether the bytes are of its own format, of which nothing was checked
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def fit_weights(content: bytes, tensors: Sequence[Fields]) -> bytes:
    """Return an ONNX file that answers the same, with the 8-bit weights (if it has any) that suit this processor.

    `tensors` are those of the file. Where signed weights would overflow, they are made unsigned: that is slower and
    right. Where the processor multiplies tiles of bytes (AMX), wide filters get a zero point: onnxruntime has kernels
    of its own for filters without, and they use no tiles. Raises ValueError where weights are not stored as raw bytes.
    """
    if not holds_int8(tensors):
        return content
    if overflows():
        return make_weights_unsigned(content, tensors)
    return shift_wide_filters(content, tensors) if multiplies_tiles() else content


@cache
def multiplies_tiles() -> bool:
    """Say whether the processor multiplies tiles of bytes (AMX), as Linux tells it."""
    try:
        return "amx_int8" in _CPU_INFO.read_text().split()
    except OSError:
        return False


@cache
def overflows() -> bool:
    """Say whether onnxruntime adds products of unsigned and signed bytes in 16 bits here, where they overflow.

    It does on x86 processors without instructions for 8 bits (VNNI). Its own setting against that
    (session.x64quantprecision) also slows those that have them, several times.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(_PRODUCT, options, providers=["CPUExecutionProvider"])
    (product,) = session.run(None, {"a": np.full((1, 4), 255, np.uint8)})
    return bool(product.item() != 4 * 255 * 127)
