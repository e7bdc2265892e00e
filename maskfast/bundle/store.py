"""A draft of a trained model goes in, a bundle folder comes out: whole, or not at all."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskfast.bundle.manifest import MANIFEST_FILE, Manifest, format_manifest, is_inside, list_bundle_files
from maskfast.bundle.network import NetworkSpec
from maskfast.core.errors import BundleError
from maskfast.core.files import refuse_foreign_folder, replace_folder

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor

PACKAGES = ("maskfast", "fastai", "torch", "torchvision", "timm", "onnx", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A trained model before it is a bundle.

    `state_dicts` holds one state dict a member (a fold), on any device. `check_images` (N, size, size, 3) uint8 with
    `check_labels` (N,) of 0, 1 (or -1, unknown) are validation pictures on which the ONNX files must agree with the
    network, and which calibrate int8; without them only the fp32 file is written, checked on drawn noise.
    `validation` becomes report/validation.csv; `report` holds further files of report/ by name; `card` is README.md.
    """

    network: NetworkSpec
    state_dicts: "Sequence[Mapping[str, Tensor]]"
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    method: str = "squish"
    temperature: float = 1.0
    threshold: float = 0.5
    views: tuple[str, ...] = ("plain",)
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    export_pkl: bytes | None = None
    validation: "pd.DataFrame | None" = None
    report: Mapping[str, bytes] = field(default_factory=dict)
    check_images: "np.ndarray | None" = None
    check_labels: "np.ndarray | None" = None
    card: str = ""
    onnx: bool = True


def write_bundle(out: str | Path, draft: Draft) -> Manifest:
    """Write the bundle of `draft` to the folder `out`, replacing an older bundle there only once it is whole.

    Raises ConfigError where `out` is a folder that holds anything but an older bundle.
    """
    out = Path(out)
    refuse_foreign_folder(out, "a bundle", list_bundle_files)
    with replace_folder(out) as folder:
        weights = _write_weights(folder, draft)
        _write_documents(folder, draft)
        manifest = draft_manifest(draft, weights)
        if draft.onnx:
            from maskfast.bundle.onnx import write_onnx_files

            left_out = write_onnx_files(folder, manifest, draft.state_dicts, draft.check_images, draft.check_labels)
            manifest = manifest.model_copy(update={"left_out": left_out})
        manifest = manifest.model_copy(update={"sha256": _hash_files(folder)})
        (folder / MANIFEST_FILE).write_bytes(format_manifest(manifest))
    return manifest


def _write_weights(folder: Path, draft: Draft) -> tuple[str, ...]:
    from safetensors.torch import save

    count = len(draft.state_dicts)
    names = ("model.safetensors",) if count == 1 else tuple(f"model.{index}.safetensors" for index in range(count))
    for name, state in zip(names, draft.state_dicts, strict=True):
        tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}
        bad = [key for key, tensor in tensors.items() if not bool(tensor.isfinite().all())]
        if bad:
            raise BundleError(f"{name}: {bad[0]} is not finite; the training diverged, lower the learning rate")
        (folder / name).write_bytes(save(tensors))
    return names


def _write_documents(folder: Path, draft: Draft) -> None:
    report = dict(draft.report)
    if draft.validation is not None:
        report["validation.csv"] = draft.validation.to_csv(index=False).encode()
    for name, content in report.items():
        assert is_inside(name), name
        path = folder / "report" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if draft.export_pkl is not None:
        (folder / "export.pkl").write_bytes(draft.export_pkl)
    if draft.card:
        (folder / "README.md").write_text(draft.card, encoding="utf-8")


def draft_manifest(draft: Draft, weights: tuple[str, ...]) -> Manifest:
    """Return the manifest of `draft` with its `weights` files, before the files are hashed."""
    shared = ("network", "size", "method", "mean", "std", "temperature", "threshold", "views", "metrics")
    fields = {name: getattr(draft, name) for name in shared}
    plain = {name: json.loads(json.dumps(dict(getattr(draft, name)), default=str)) for name in ("config", "data")}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(**fields, **plain, weights=weights, versions=_find_versions(), created=created)


def _find_versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _hash_files(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in paths}


def hash_file(path: Path) -> str:
    """Return the sha256 of the file at `path`, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
