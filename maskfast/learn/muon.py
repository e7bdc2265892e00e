"""Parameters and their gradients flow in, moved parameters flow out: Muon for convolutions, Adam for all else.

Muon (Keller Jordan, 2024, https://kellerjordan.github.io/posts/muon/) moves a matrix of weights by its averaged
gradient with all singular values made alike, so that rare directions are learned as fast as common ones. A batch norm
follows most convolutions, which makes their length meaningless: it is held, and the rate says how far they turn.
"""

from collections.abc import Iterable
from typing import Any

import torch
from fastai.optimizer import Optimizer
from torch import Tensor

from maskfast.learn.adam import adam, adam_step

TURN = 33.0
"""A step turns a convolution by so many times the learning rate, in parts of its length."""
MOMENTUM = 0.9
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration: steep at 0, so that five steps do (Keller Jordan's)."""
STEPS = 5
BLOCK = 128
"""Filters that are made orthogonal together: a wider layer in blocks costs a fraction of the time."""


def muon(params: Tensor | Iterable[Any], lr: float | slice, **hypers: float) -> Optimizer:
    """Make a fastai optimiser of Muon for convolutions behind the first, and Adam for all else.

    `lr` and `hypers` are those of `adam`; a convolution turns by `TURN * lr` of its length a step.
    """
    return adam(params, lr, step=muon_step, **hypers)


@torch.no_grad()
def muon_step(
    p: Tensor, lr: float, average: Tensor | None = None, length: Tensor | None = None, **others: Any
) -> dict[str, Tensor]:
    """Move `p` by its gradient, and return what fastai keeps for the next step: Adam's, or average and length."""
    if average is None or length is None:
        if "count" in others or not _has_filters(p) or not p.any():  # zeros have no length: Adam's for good
            return adam_step(p, lr=lr, **others)
        average, length = torch.zeros_like(p), p.norm()
    assert p.grad is not None  # fastai calls this for no other
    average.mul_(MOMENTUM).add_(p.grad)
    direction = orthogonalise(torch.add(p.grad, average, alpha=MOMENTUM))
    p.sub_(direction * (TURN * lr * length / direction.norm()))
    p.mul_(length / p.norm())
    return {"average": average, "length": length}


def orthogonalise(weights: Tensor) -> Tensor:
    """The filters (outputs, inputs, height, width) with singular values near 1 in each block of BLOCK outputs.

    The iteration runs on products of rows with rows: these are few, and the filters themselves are met twice.
    """
    matrix = weights.flatten(1)
    blocks = matrix.reshape(-1, BLOCK, matrix.shape[1]) if len(matrix) % BLOCK == 0 else matrix[None]
    tall = blocks.shape[1] > blocks.shape[2]
    wide = blocks.mT if tall else blocks
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    products = wide @ wide.mT
    turned = step = _find_step(products)
    for _ in range(STEPS - 1):
        products = step @ products @ step
        step = _find_step(products)
        turned = step @ turned
    alike: Tensor = turned @ wide
    return (alike.mT if tall else alike).reshape(weights.shape)


def _find_step(products: Tensor) -> Tensor:
    """What one iteration multiplies by, from the products of rows with rows."""
    a, b, c = COEFFICIENTS
    step = torch.baddbmm(products, products, products, beta=b, alpha=c)
    step.diagonal(dim1=1, dim2=2).add_(a)
    return step


def _has_filters(p: Tensor) -> bool:
    """A convolution, and neither the first, of three colours, nor one a channel."""
    return p.ndim == 4 and p.shape[1] > 3
