"""Trained networks go in, `model.onnx` and `model.int8.onnx` come out, each only where it agrees with them."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maskfast.bundle.manifest import Manifest
from maskfast.bundle.scorer import make_scorer
from maskfast.bundle.weights import restore_network

if TYPE_CHECKING:
    from torch import Tensor, nn

FP32_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
FP32_TOLERANCE = 1e-4
"""Largest difference of a logit (relative above 1) and of a probability between ONNX and the network."""
BATCH = 32
NOISE_IMAGES = 4

Array = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]


def write_onnx_files(
    folder: Path,
    manifest: Manifest,
    state_dicts: "Sequence[Mapping[str, Tensor]]",
    images: Images | None,
) -> dict[str, str]:
    """Write the ONNX files of the networks to `folder` and return why a file was left out, by name.

    `images` (N, size, size, 3) are validation pictures, or None.
    """
    networks = [
        restore_network(manifest.network, state, name=f"member {index}") for index, state in enumerate(state_dicts)
    ]
    scorer = make_scorer(networks, manifest)
    checked = _draw_noise(manifest.size) if images is None else images
    expected = run_scorer(scorer, checked)
    reason = _export(scorer, folder / FP32_FILE, manifest.size) or _disagree(folder / FP32_FILE, checked, expected)
    if reason:
        (folder / FP32_FILE).unlink(missing_ok=True)
        return {FP32_FILE: reason, INT8_FILE: f"it is made from {FP32_FILE}, which was left out"}
    return {}


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


def _draw_noise(size: int) -> Images:
    return np.random.default_rng(0).integers(0, 256, (NOISE_IMAGES, size, size, 3), dtype=np.uint8)


def _export(scorer: "nn.Module", path: Path, size: int) -> str:
    """Write the fp32 file and return "", or why the network cannot be exported."""
    import torch

    example = torch.from_numpy(_draw_noise(size)[:2])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's news about its own deprecations
            torch.onnx.export(
                scorer,
                (example,),
                str(path),
                dynamo=True,
                input_names=["images"],
                output_names=["logits", "probability"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=4096)}},
                external_data=False,
                verbose=False,
            )
    except RuntimeError as error:  # torch.onnx.OnnxExporterError and what torch.export lets through
        return f"torch.onnx.export failed: {' '.join(str(error).split())[:300]}"
    return ""


def _disagree(path: Path, images: Images, expected: tuple[Array, Array]) -> str:
    seen = run_onnx(path, images)
    for name, left, right in zip(("logits", "probability"), expected, seen, strict=True):
        worst = float(np.max(np.abs(left - right) / np.maximum(1, np.abs(left)), initial=0))
        if not worst <= FP32_TOLERANCE:
            return f"its {name} differs from the network's by {worst:.2g}, more than {FP32_TOLERANCE:g}"
    return ""
