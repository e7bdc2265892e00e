"""Muon turns convolutions by orthogonal steps, and Adam moves all else."""

import pytest
import torch
from fastai.optimizer import Adam, Optimizer
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor, nn

from maskfast.learn.muon import BLOCK, COEFFICIENTS, STEPS, TURN, muon, orthogonalise


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(64, 16, 3, 3), (64, 16, 1, 1), (2 * BLOCK, 64, 3, 3), (BLOCK + 8, 32, 3, 3)])
def test_directions_are_those_of_the_plain_iteration(shape: tuple[int, ...]) -> None:
    weights = draw(*shape)
    parts = torch.split(weights.flatten(1), BLOCK if shape[0] % BLOCK == 0 else shape[0])
    plain = [zeropower_via_newtonschulz(part, STEPS, [COEFFICIENTS] * STEPS, dtype=torch.float32) for part in parts]
    length = float(torch.cat(plain).norm())
    assert torch.allclose(orthogonalise(weights, length), torch.cat(plain).reshape(shape), atol=1e-4)


def test_singular_values_become_alike() -> None:
    filters = draw(64, 32, 3, 3) * draw(32, 1, 1, seed=1).exp()
    values = torch.linalg.svdvals(orthogonalise(filters, 64**0.5).flatten(1))
    assert 0.5 < values.min() < values.max() < 1.3


@pytest.mark.parametrize("shape", [(64, 16, 3, 3), (2 * BLOCK, 64, 1, 1)])
def test_the_order_in_memory_does_not_matter(shape: tuple[int, ...]) -> None:
    weights = draw(*shape)
    other = weights.to(memory_format=torch.channels_last)
    assert torch.allclose(orthogonalise(weights, 1.0), orthogonalise(other, 1.0), atol=1e-6)


def test_no_gradient_moves_nothing() -> None:
    assert not orthogonalise(torch.zeros(8, 8, 3, 3), 1.0).any()


def step(optimizer: Optimizer, weights: list[Tensor], *, seed: int) -> None:
    for weight in weights:
        weight.grad = draw(*weight.shape, seed=seed)
    optimizer.step()


def test_a_convolution_turns_as_far_as_the_rate_says_and_keeps_its_length() -> None:
    weight = draw(16, 8, 3, 3)
    before = weight.clone()
    step(muon([weight], lr=1e-3), [weight], seed=1)
    assert float(weight.norm()) == pytest.approx(float(before.norm()), rel=1e-5)
    assert float((weight - before).norm()) == pytest.approx(TURN * 1e-3 * float(before.norm()), rel=0.01)


def test_all_else_moves_as_with_adam() -> None:
    shapes = [(16, 3, 7, 7), (32, 1, 3, 3), (2, 16), (16,)]  # of colours, one a channel, the head, a norm
    zeros = torch.zeros(8, 8, 3, 3)  # a convolution that starts at nothing has no length to keep
    ours, theirs = ([*(draw(*shape) for shape in shapes), zeros.clone()] for _ in range(2))
    for optimizer, weights in ((muon(ours, lr=0.1), ours), (Adam(theirs, lr=0.1), theirs)):
        for seed in (1, 2, 3):
            step(optimizer, weights, seed=seed)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_saved_state_goes_on_alike() -> None:
    weight = draw(8, 8, 3, 3)
    optimizer = muon([weight], lr=0.01)
    for seed in (1, 2):
        step(optimizer, [weight], seed=seed)
    copy = weight.clone()
    other = muon([copy], lr=0.01)
    state = {name: value.clone() for name, value in optimizer.state[weight].items()}
    other.load_state_dict({"state": [state], "hypers": optimizer.hypers})
    step(optimizer, [weight], seed=3)
    step(other, [copy], seed=3)
    assert torch.equal(weight, copy)


def test_a_loss_falls() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    images = draw(16, 3, 12, 12)
    optimizer = muon(list(network.parameters()), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = (network(images).mean((2, 3)) - images.mean((2, 3)).repeat(1, 3)[:, :8]).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
