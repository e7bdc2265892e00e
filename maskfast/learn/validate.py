"""Trained networks and files flow in, logits in full precision flow out, computed as every later prediction will be."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from maskfast.bundle.views import average_views
from maskfast.core.errors import DataError
from maskfast.core.image import Method
from maskfast.learn.pixels import PixelCache, decode_all

VALID_BATCH = 32
"""Pictures a step; the result does not depend on it."""


def predict_logits(
    network: nn.Module,
    images: NDArray[np.uint8],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    views: Sequence[str] = ("plain",),
    batch_size: int = VALID_BATCH,
) -> NDArray[np.float32]:
    """Logits (N,2) in float32 of images (N,size,size,3) uint8, on the network's device, in evaluation mode.

    With several views it is their mean, as in a bundle.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        parts = [
            average_views(network, _normalise(images[start : start + batch_size], mean, std, device), views).cpu()
            for start in range(0, len(images), batch_size)
        ]
    network.train(was_training)
    return torch.cat(parts).numpy() if parts else np.zeros((0, 2), np.float32)


def read_arrays(
    paths: Sequence[str], size: int, method: Method, pixels: PixelCache | None
) -> tuple[list[int], NDArray[np.uint8]]:
    """Pixels (M,size,size,3) of those of `paths` that can be read now, and their places among the paths."""
    if pixels is not None:
        return list(range(len(paths))), np.stack([pixels.read(path) for path in paths])
    decoded = [array for _, array in decode_all(paths, size, method)]
    places = [place for place, array in enumerate(decoded) if not isinstance(array, str)]
    if not places:
        raise DataError(f"{paths[0]}: none of {len(paths)} pictures for validation can be read any more")
    return places, np.stack([decoded[place] for place in places])


def _normalise(
    images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], device: torch.device
) -> torch.Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 255
    shape = (1, 3, 1, 1)
    return (pixels - torch.tensor(mean, device=device).view(shape)) / torch.tensor(std, device=device).view(shape)
