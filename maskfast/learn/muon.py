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
TINY = 1e-14
"""Stands for the square of a length of zero."""
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
    torch.add(p.grad, average, alpha=MOMENTUM, out=average)
    p.sub_(orthogonalise(torch.add(p.grad, average, alpha=MOMENTUM), TURN * lr * length))
    p.mul_(length / p.norm())
    return {"average": average, "length": length}


def orthogonalise(weights: Tensor, length: Tensor | float) -> Tensor:
    """The filters (outputs, inputs, height, width) with singular values alike in each block of BLOCK outputs.

    They are `length` long as a whole. The iteration runs on products of rows with rows: these are few, and the filters
    themselves are met twice, as they lie in memory where their format is channels last.
    """
    rows = weights.permute(0, 2, 3, 1)
    matrix = rows.flatten(1)
    blocks = matrix.reshape(-1, BLOCK, matrix.shape[1]) if len(matrix) % BLOCK == 0 else matrix[None]
    tall = blocks.shape[1] > blocks.shape[2]
    wide = blocks.mT if tall else blocks
    products = wide @ wide.mT
    squares = _sum_diagonals(products).clamp(min=TINY)
    first = products = products / squares
    turned = step = _find_step(products)
    for _ in range(STEPS - 1):
        products = step @ products @ step
        step = _find_step(products)
        turned = step @ turned
    reached = _sum_diagonals(turned @ first @ turned.mT).sum().clamp(min=TINY)
    alike: Tensor = turned * (length / (reached * squares).sqrt()) @ wide
    return (alike.mT if tall else alike).reshape(rows.shape).permute(0, 3, 1, 2)


def _sum_diagonals(blocks: Tensor) -> Tensor:
    """For each block (N,n,n), as (N,1,1): of products of rows with rows, the square of the length of all rows."""
    return blocks.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]


def _find_step(products: Tensor) -> Tensor:
    """What one iteration multiplies by, from the products of rows with rows."""
    a, b, c = COEFFICIENTS
    step = torch.baddbmm(products, products, products, beta=b, alpha=c)
    step.diagonal(dim1=1, dim2=2).add_(a)
    return step


def _has_filters(p: Tensor) -> bool:
    """A convolution, and neither the first, of three colours, nor one a channel."""
    return p.ndim == 4 and p.shape[1] > 3
