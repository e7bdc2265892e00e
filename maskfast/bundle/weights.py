"""A bundle folder goes in, its networks come out with their weights, every key and shape checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from maskfast.bundle.manifest import MANIFEST_FILE, Manifest
from maskfast.bundle.network import NetworkSpec, build_network
from maskfast.bundle.verify import read_listed
from maskfast.core.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn


def read_networks(folder: Path, manifest: Manifest) -> "list[nn.Module]":
    """Return the members of the bundle in `folder`, in evaluation mode.

    Raises BundleError naming the file and the tensor for a missing or unexpected key, a wrong shape or type, a value
    that is not finite, or a file that is not the one that the manifest lists.
    """
    if not manifest.weights:
        raise BundleError(f"{folder}: this bundle has no weights for torch, use the ONNX backend: --backend onnx")
    return [_read_network(folder, manifest, name) for name in manifest.weights]


def restore_network(spec: NetworkSpec, tensors: "Mapping[str, Tensor]", *, name: str) -> "nn.Module":
    """Return the network of `spec` with `tensors`, in evaluation mode; raises BundleError naming the file `name`."""
    _check_widths(spec, tensors, name)
    network = build_network(spec).eval()
    check_tensors(network.state_dict(), tensors, name=name)
    network.load_state_dict(tensors)
    return network


def _check_widths(spec: NetworkSpec, tensors: "Mapping[str, Tensor]", name: str) -> None:
    """Refuse a head wider than any tensor before memory is taken for it."""
    for part in spec.parts:
        _check_widths(part.network, tensors, name)
    widest = max((max(tensor.shape, default=0) for tensor in tensors.values()), default=0)
    if not spec.parts and spec.hidden > widest:
        raise BundleError(f"{name}: the widest of its tensors has {widest} rows, its head should have {spec.hidden}")


def check_tensors(expected: "Mapping[str, Tensor]", seen: "Mapping[str, Tensor]", *, name: str) -> None:
    """Raise BundleError where `seen` has not the keys, shapes and kinds of `expected`, or a value is not finite."""
    if missing := [key for key in expected if key not in seen]:
        raise BundleError(f"{name}: {len(missing)} tensors are missing, the first is {missing[0]:.80}")
    if unexpected := [key for key in seen if key not in expected]:
        raise BundleError(f"{name}: {len(unexpected)} tensors are unexpected, the first is {unexpected[0]!r:.80}")
    for key, tensor in seen.items():
        if tensor.shape != expected[key].shape:
            raise BundleError(f"{name}: {key}: shape {list(tensor.shape)}, expected {list(expected[key].shape)}")
        if tensor.is_floating_point() != expected[key].is_floating_point():
            raise BundleError(f"{name}: {key}: type {tensor.dtype}, expected {expected[key].dtype}")
        if not bool(tensor.isfinite().all()):
            raise BundleError(f"{name}: {key}: has values that are not finite")


def _read_network(folder: Path, manifest: Manifest, name: str) -> "nn.Module":
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(read_listed(folder, manifest, name))
    except SafetensorError as error:
        raise BundleError(f"{folder / name}: is no safetensors file: {error}") from error
    try:
        return restore_network(manifest.network, tensors, name=str(folder / name))
    except ConfigError as error:
        reason = str(error).removeprefix("--arch ")
        raise BundleError(f"{folder / MANIFEST_FILE}: network.arch: {reason}") from error
