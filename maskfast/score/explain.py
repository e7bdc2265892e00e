"""A predictor and a picture in, a heat map of where the evidence for a mask lies out: by occlusion or by gradients."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from maskfast.core.errors import ConfigError
from maskfast.core.image import ImageSource, Method, Pixels, load_image

Heat: TypeAlias = NDArray[np.float32]
Explainer: TypeAlias = Callable[[ImageSource], Heat]

GRID = 8
"""Cells on a side; a window is two by two cells, so a face of a quarter of the picture's width fills one."""
BATCH = 4
"""Pictures in one run of the network: more are no faster on a processor, and 32 take and keep a gigabyte."""
FULL_HEAT = 2.0
"""Evidence, in logits, that is drawn at full heat: weaker evidence everywhere stays pale instead of being stretched."""

HEAT_COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Five even steps of matplotlib's inferno, so that a server without matplotlib can colour a heat map."""


class LogitSource(Protocol):
    """What occlusion needs of a Predictor."""

    @property
    def size(self) -> int:
        """Side of the square input, in pixels."""
        ...

    @property
    def method(self) -> Method:
        """How a picture becomes square."""
        ...

    def logits_arrays(self, batch: Pixels) -> NDArray[np.float32]:
        """Return logits (N, 2) of no_mask, mask for pictures (N, size, size, 3)."""
        ...


def explain(predictor: LogitSource, image: ImageSource, *, grid: int = GRID) -> Heat:
    """Return the evidence for a mask over the picture's square input: (size, size), 0 (none) to 1.

    Two questions are asked of every window: how far does the mask logit fall when it is blurred away (Zeiler and
    Fergus 2014, arXiv:1311.2901), and how far does it rise when it alone is sharp in a blurred picture (as insertion
    in Petsiuk et al. 2018, arXiv:1806.07421). The second finds each of several masks, where hiding one changes nothing.
    Works with every backend; runs the network 2 (grid - 1)^2 + 2 times, in batches.
    """
    pixels = load_image(image, predictor.size, predictor.method)
    blurred = _blur(pixels)
    windows = _list_windows(predictor.size, grid)
    base = _find_margins(predictor, [pixels, blurred])
    hidden = _find_margins(predictor, [_paste(pixels, blurred, window) for window in windows])
    shown = _find_margins(predictor, [_paste(blurred, pixels, window) for window in windows])
    evidence = np.maximum(0, base[0] - hidden) + np.maximum(0, shown - base[1])
    return _spread(evidence, grid, predictor.size)


def make_explainer(predictor: Any, *, method: Literal["auto", "gradients", "occlusion"] = "auto") -> Explainer:
    """Return a function from a picture to its heat map, which opens what it needs once.

    "gradients" is Grad-CAM and needs torch and the bundle's weights; "auto" takes it where both are there.
    """
    if method not in ("auto", "gradients", "occlusion"):
        raise ConfigError(f"heat maps by {method!r}: unknown; use auto, gradients or occlusion")
    if method == "occlusion" or (method == "auto" and not _can_take_gradients(predictor)):
        return lambda image: explain(predictor, image)
    return _open_gradients(predictor)


def find_gradient_heat(network: Any, images: Any) -> Heat:
    """Return the Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of the mask margin for each picture: (N, H, W).

    `network` is nn.Sequential(body, head) with a body that gives (N, C, h, w), such as `learn.model`; `images` is its
    normalised input (N, 3, H, W). Each map is scaled to 0..1 by itself, so it says where, not how much. The network is
    left in evaluation mode and without gradients.
    """
    import torch
    from pytorch_grad_cam import GradCAM

    def margin(logits: Any) -> Any:
        return logits[..., 1] - logits[..., 0]

    plain = images.detach().as_subclass(torch.Tensor)  # fastai's own kinds of tensor refuse what the package does
    with GradCAM(model=network.eval(), target_layers=[network[0]]) as cam:
        heat: Heat = cam(input_tensor=plain, targets=[margin] * len(plain))
    network.zero_grad()
    return np.nan_to_num(heat).astype(np.float32)


def overlay_heat(pixels: Pixels, heat: Heat, *, strength: float = 0.65) -> Pixels:
    """Lay a heat map (H, W) in 0..1 over a picture (H, W, 3): the more heat, the less of the picture shows through."""
    stops = np.linspace(0, 1, len(HEAT_COLOURS))
    colours = np.stack([np.interp(heat, stops, channel) for channel in zip(*HEAT_COLOURS, strict=True)], axis=-1)
    weight = strength * heat[..., None]
    mixed: Pixels = (pixels * (1 - weight) + colours * weight).round().astype(np.uint8)
    return mixed


def _open_gradients(predictor: Any) -> Explainer:
    import torch

    from maskfast.bundle.weights import read_networks

    networks = read_networks(Path(predictor.folder), predictor.manifest)
    mean, std = (np.asarray(values, dtype=np.float32) for values in (predictor.manifest.mean, predictor.manifest.std))

    def find_heat(image: ImageSource) -> Heat:
        pixels = load_image(image, predictor.size, predictor.method)
        batch = torch.from_numpy(((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1)[None])
        maps = [find_gradient_heat(network, batch)[0] for network in networks]
        heat: Heat = np.mean(maps, axis=0, dtype=np.float32)
        return heat

    return find_heat


def _can_take_gradients(predictor: Any) -> bool:
    from importlib.util import find_spec

    return bool(predictor.manifest.weights and find_spec("torch") and find_spec("pytorch_grad_cam"))


def _find_margins(predictor: LogitSource, pictures: list[Pixels]) -> NDArray[np.float32]:
    parts = [np.stack(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)]
    logits = np.concatenate([predictor.logits_arrays(part) for part in parts])
    margins: NDArray[np.float32] = logits[:, 1] - logits[:, 0]
    return margins


def _blur(pixels: Pixels) -> Pixels:
    from PIL import Image, ImageFilter

    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(len(pixels) / 8)))


def _list_windows(size: int, grid: int) -> list[tuple[slice, slice]]:
    edges = np.linspace(0, size, grid + 1).round().astype(int)
    spans = [slice(int(edges[k]), int(edges[k + 2])) for k in range(grid - 1)]
    return [(rows, columns) for rows in spans for columns in spans]


def _paste(below: Pixels, above: Pixels, window: tuple[slice, slice]) -> Pixels:
    pasted = below.copy()
    pasted[window] = above[window]
    return pasted


def _spread(evidence: NDArray[np.float32], grid: int, size: int) -> Heat:
    """Give each cell the mean of the windows over it, then smooth the cells to the picture's size."""
    from PIL import Image

    total, count = np.zeros((grid, grid), np.float32), np.zeros((grid, grid), np.float32)
    for value, (row, column) in zip(evidence, _list_cells(grid), strict=True):
        total[row : row + 2, column : column + 2] += value
        count[row : row + 2, column : column + 2] += 1
    cells = total / count / max(FULL_HEAT, float((total / count).max()))
    smooth = np.asarray(Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC))
    heat: Heat = np.clip(smooth, 0, 1)
    return heat


def _list_cells(grid: int) -> Iterator[tuple[int, int]]:
    return ((row, column) for row in range(grid - 1) for column in range(grid - 1))
