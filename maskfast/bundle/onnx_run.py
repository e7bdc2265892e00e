"""The bytes of an ONNX file or a torch module, and pictures, go in; their answers come out."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maskfast.bundle.onnx_bytes import make_weights_unsigned

if TYPE_CHECKING:
    from onnxruntime import InferenceSession as Session
    from torch import nn

BATCH = 32
_ERRORS, _SILENT = 3, 4  # onnxruntime's levels of what it logs

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

    Processors of the x86 kind without instructions for 8 bits (VNNI) add products of unsigned and signed bytes in 16
    bits, where they overflow, and answers would be worse than where the file was made. onnxruntime can make the weights
    unsigned there, which is slower and right; it fails to where several operations share weights, as two views do, and
    then it is done for it. Raises whatever onnxruntime raises for a file that it cannot run.
    """
    import onnxruntime

    def open_with(content: bytes, level: int, **settings: str) -> "Session":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = level
        # threads that wait by spinning take the cores from whatever decodes the next pictures
        for name, value in {"intra_op.allow_spinning": "0", **settings}.items():
            options.add_session_config_entry(f"session.{name}", value)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    try:
        return open_with(content, _SILENT, x64quantprecision="1")
    except Exception:  # onnxruntime's errors share no class of their own
        return open_with(make_weights_unsigned(content), _ERRORS)
