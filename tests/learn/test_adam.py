"""One fused step moves weights as fastai's own Adam does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fastai.optimizer import Adam
from torch import Tensor

from maskfast.learn import adam as module
from maskfast.learn.adam import adam

SHAPES = [(3, 2), (2,), (4, 1)]


def train(make: Callable[..., Any]) -> list[Tensor]:
    """Six steps on random gradients: two groups with rates of their own, a schedule, one weight that does not decay."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator) for shape in SHAPES]
    optimizer = make([weights[:1], weights[1:]], lr=0.1)
    optimizer.set_hypers(lr=[0.01, 0.1], wd=0.3)
    optimizer.state[weights[1]]["do_wd"] = False
    for momentum in (0.95, 0.9, 0.85, 0.85, 0.9, 0.95):
        optimizer.set_hyper("mom", momentum)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        weights[2].grad = None if momentum == 0.9 else weights[2].grad
        optimizer.step()
    return weights


def test_weights_move_as_fastais_own_adam_moves_them() -> None:
    for ours, theirs in zip(train(adam), train(Adam), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_device_without_the_kernel_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = train(adam)
    monkeypatch.setattr(module, "FUSED", ())
    for plain, other in zip(train(adam), fused, strict=True):
        assert torch.allclose(plain, other, atol=1e-6)


def test_a_saved_state_goes_on_alike() -> None:
    weight = torch.ones(3)
    optimizer = adam([weight], lr=0.1)
    for _ in range(2):
        weight.grad = torch.arange(3.0)
        optimizer.step()
    copy = weight.clone()
    other = adam([copy], lr=0.1)
    other.load_state_dict(
        {"state": [{k: v.clone() for k, v in optimizer.state[weight].items()}], "hypers": optimizer.hypers}
    )
    for each, using in ((weight, optimizer), (copy, other)):
        each.grad = torch.ones(3)
        using.step()
    assert torch.equal(weight, copy)
