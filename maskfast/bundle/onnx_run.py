"""The bytes of an ONNX file or a torch module, and pictures, go in; their answers come out."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maskfast.bundle.onnx_bytes import holds_int8, make_weights_unsigned, shift_wide_filters

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
    session = open_session(path.read_bytes())
    parts = [session.run(None, {"images": images[start : start + BATCH]}) for start in range(0, len(images), BATCH)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def open_session(content: bytes, *, threads: int = 0) -> "Session":
    """Open an ONNX file on the processor, in `threads` threads or (0) one a core.

    Raises whatever onnxruntime raises for a file that it cannot run, ValueError or IndexError for what is no ONNX file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS
    # threads that wait by spinning take the cores from whatever decodes the next pictures
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = _fit_weights(content) if holds_int8(content) else content
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _fit_weights(content: bytes) -> bytes:
    """Return an 8-bit file that answers the same, with the weights that suit this processor.

    Where signed weights would overflow, they are made unsigned: that is slower and right. Where the processor
    multiplies tiles of bytes (AMX), wide filters get a zero point: onnxruntime has kernels of its own for filters
    without, and they use no tiles.
    """
    if overflows():
        return make_weights_unsigned(content)
    return shift_wide_filters(content) if multiplies_tiles() else content


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
