"""A fresh ONNX file or torch module and pictures go in, its answers come out, for comparing one with the other."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import nn

BATCH = 32

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
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"images": images[start : start + BATCH]}) for start in range(0, len(images), BATCH)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
