"""Boxes flow in, what each place of a network's map should say flows out, and how wrong a map is."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the name everybody knows

from maskfast.learn.scenes.shapes import Box, Picture

MASK, NONE, UNKNOWN = 1.0, 0.0, -1.0
"""A place where a mask is; one without any near; one that is not asked about."""
CORE = (0.15, 0.2, 0.85, 0.9)
"""The inside of a masked face's box where the mask is surely seen, in parts of its width and height."""


def draw_places(picture: Picture, cells: int) -> NDArray[np.float32]:
    """Targets (cells, cells) of a picture: 1 inside masks, 0 away from them, -1 where unknown or at their rim."""
    targets = np.full((cells, cells), NONE if picture.known else UNKNOWN, np.float32)
    step = picture.side / cells
    centres = (np.arange(cells) + 0.5) * step
    masks = [box for box in picture.boxes if box.mask]
    for box in masks:
        x, y = 0.5 * box.width + 0.75 * step, 0.5 * box.height + 0.75 * step
        rows = (centres > box.top - y) & (centres < box.bottom + y)
        columns = (centres > box.left - x) & (centres < box.right + x)
        targets[np.ix_(rows, columns)] = UNKNOWN
    for box in masks:
        if not box.hidden:
            _mark_mask(targets, box, centres, step)
    return targets


def lose_places(scores: Tensor, targets: Tensor) -> Tensor:
    """The loss of score maps (N,1,h,w) against targets (N,h,w): places with and without masks count alike.

    A third each: the mean over places of masks, twice the mean over places without, and the worst of these in each
    picture, since one place that says mask decides the picture. Maps of another size than the targets are compared
    after the targets were taken at the nearest places.
    """
    wanted = _fit_targets(targets, scores.shape[-2:]).to(scores.device)
    losses = F.binary_cross_entropy_with_logits(scores[:, 0].float(), wanted.clamp(0, 1), reduction="none")
    there, free = (wanted == MASK).float(), (wanted == NONE).float()
    worst = (losses * free).flatten(1).amax(1).mean()
    found = (losses * there).sum() / there.sum().clamp(min=1)
    missed = (losses * free).sum() / free.sum().clamp(min=1)
    return (found + 2 * missed + worst) / 3


def _mark_mask(targets: NDArray[np.float32], box: Box, centres: NDArray[np.floating], step: float) -> None:
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    inside = 0 <= x < step * len(centres) and 0 <= y < step * len(centres)
    if not inside:
        return
    targets[int(y / step), int(x / step)] = MASK
    rows = (centres > box.top + CORE[1] * box.height) & (centres < box.top + CORE[3] * box.height)
    columns = (centres > box.left + CORE[0] * box.width) & (centres < box.left + CORE[2] * box.width)
    targets[np.ix_(rows, columns)] = MASK


def _fit_targets(targets: Tensor, shape: torch.Size) -> Tensor:
    if targets.shape[-2:] == shape:
        return targets
    return F.interpolate(targets[:, None].float(), size=tuple(shape), mode="nearest")[:, 0]
