"""Trained networks go in, `model.onnx` and `model.int8.onnx` come out, each only where it agrees with them."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from maskfast.bundle.int8 import write_int8
from maskfast.bundle.manifest import Manifest
from maskfast.bundle.onnx_run import Array, Images, run_onnx, run_scorer
from maskfast.bundle.scorer import fold_norms, make_scorer
from maskfast.bundle.weights import restore_network

if TYPE_CHECKING:
    from torch import Tensor, nn

FP32_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
FP32_TOLERANCE = 1e-4
"""Largest difference of a logit (relative above 1) and of a probability between ONNX and the network."""
NOISE_IMAGES = 4


def write_onnx_files(
    folder: Path,
    manifest: Manifest,
    state_dicts: "Sequence[Mapping[str, Tensor]]",
    images: Images | None,
    labels: npt.NDArray[np.int_] | None,
) -> dict[str, str]:
    """Write the ONNX files of the networks to `folder` and return why a file was left out, by name.

    `images` (N, size, size, 3) are validation pictures, `labels` (N,) theirs (1 mask, 0 none, -1 unknown). What was
    measured on them is written to report/onnx.json.
    """
    networks = [
        restore_network(manifest.network, state, name=f"member {index}") for index, state in enumerate(state_dicts)
    ]
    scorer = make_scorer(networks, manifest)
    checked = _draw_noise(manifest.size) if images is None or not len(images) else images
    expected = run_scorer(scorer, checked)
    fp32 = folder / FP32_FILE
    folded = make_scorer([fold_norms(network) for network in networks], manifest)  # 8 bits are exact only without norms
    reason = _export(folded, fp32, manifest.size) or _disagree(fp32, checked, expected)
    if reason:
        fp32.unlink(missing_ok=True)
        return {FP32_FILE: reason, INT8_FILE: f"it is made from {FP32_FILE}, which was left out"}
    if checked is not images:
        return {INT8_FILE: "there are no validation pictures to calibrate it on"}
    passes = len(networks) * len(manifest.views)
    reason, change = write_int8(
        fp32, folder / INT8_FILE, images, expected[1], labels, threshold=manifest.threshold, passes=passes
    )
    _write_report(folder, {"pictures": len(images), "int8_change": change, "int8_left_out": reason})
    return {INT8_FILE: reason} if reason else {}


def _write_report(folder: Path, fields: dict[str, Any]) -> None:
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report" / "onnx.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


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
    _drop_notes(path)
    return ""


def _drop_notes(path: Path) -> None:
    """Remove the exporter's notes on every node: the code it comes from, and where that lies on this machine."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
    onnx.save(model, str(path))


def _disagree(path: Path, images: Images, expected: tuple[Array, Array]) -> str:
    seen = run_onnx(path, images)
    for name, left, right in zip(("logits", "probability"), expected, seen, strict=True):
        worst = float(np.max(np.abs(left - right) / np.maximum(1, np.abs(left)), initial=0))
        if not worst <= FP32_TOLERANCE:
            return f"its {name} differs from the network's by {worst:.2g}, more than {FP32_TOLERANCE:g}"
    return ""
