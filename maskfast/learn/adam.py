"""Parameters and their gradients flow in, moved parameters flow out: fastai's Adam in one pass over memory."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from fastai.optimizer import Optimizer
from torch import Tensor
from torch.optim.adamw import adamw

FUSED = ("cpu", "cuda")
"""Devices for which torch has the step in one kernel."""


@torch.no_grad()
def adam_step(
    p: Tensor,
    lr: float,
    mom: float,
    sqr_mom: float,
    eps: float,
    wd: float,
    do_wd: bool = True,
    count: Tensor | None = None,
    grad_avg: Tensor | None = None,
    sqr_avg: Tensor | None = None,
    **_others: Any,
) -> dict[str, Tensor]:
    """Move `p` by its gradient, and return what fastai keeps for the next step: counted steps and both averages."""
    if count is None or grad_avg is None or sqr_avg is None:
        count, grad_avg, sqr_avg = torch.zeros((), device=p.device), torch.zeros_like(p), torch.zeros_like(p)
    assert p.grad is not None  # fastai calls this for no other
    adamw(
        [p], [p.grad], [grad_avg], [sqr_avg], [], [count],
        fused=p.device.type in FUSED, amsgrad=False, maximize=False,
        lr=lr, beta1=mom, beta2=sqr_mom, eps=eps, weight_decay=wd if do_wd else 0.0,
    )  # fmt: skip
    return {"count": count, "grad_avg": grad_avg, "sqr_avg": sqr_avg}


def adam(
    params: Tensor | Iterable[Any],
    lr: float | slice,
    mom: float = 0.9,
    sqr_mom: float = 0.99,
    eps: float = 1e-5,
    wd: float = 0.01,
    step: Callable[..., dict[str, Tensor]] = adam_step,
) -> Optimizer:
    """Make fastai's `Adam` with decoupled weight decay, whose step is torch's own fused kernel.

    The numbers are those of `fastai.optimizer.Adam` up to rounding, whose step goes over all weights several times.
    `step` is for an optimiser that moves some of the weights otherwise.
    """
    return Optimizer(params, [step], lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)
