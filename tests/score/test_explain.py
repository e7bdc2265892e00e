"""Heat maps of models whose evidence is known: they must point where it is, at each place, and nowhere else."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.torch_core import TensorImage
from torch import nn

from maskfast.core.errors import ConfigError
from maskfast.score.explain import explain, find_gradient_heat, make_explainer, overlay_heat

SIZE = 64
BLUE = (20, 60, 220)


class BlueSeeker:
    """Says mask where the bluest 8 x 8 patch is blue: at least one is enough, as with masks."""

    size, method = SIZE, "squish"

    def __init__(self, gain: float = 0.05) -> None:
        self.gain, self.seen, self.largest = gain, 0, 0

    def logits_arrays(self, batch: np.ndarray) -> np.ndarray:
        self.seen += len(batch)
        self.largest = max(self.largest, len(batch))
        blueness = batch[..., 2].astype(float) - batch[..., 0]
        patches = blueness.reshape(len(batch), 8, 8, 8, 8).mean(axis=(2, 4)).max(axis=(1, 2))
        return np.stack([np.zeros(len(batch)), self.gain * (patches - 100)], axis=1).astype(np.float32)


def draw_squares(*corners: tuple[int, int]) -> np.ndarray:
    pixels = np.full((SIZE, SIZE, 3), 128, np.uint8)
    for row, column in corners:
        pixels[row : row + 16, column : column + 16] = BLUE
    return pixels


def test_heat_lies_on_the_evidence() -> None:
    heat = explain(BlueSeeker(), draw_squares((8, 40)))
    assert (heat.shape, heat.dtype) == ((SIZE, SIZE), np.float32)
    assert 0 <= heat.min() <= heat.max() <= 1
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 8 <= row < 24
    assert 40 <= column < 56
    assert heat[10:22, 42:54].mean() > 5 * heat[:, :24].mean()


def test_each_of_two_places_is_found_though_hiding_one_changes_nothing() -> None:
    heat = explain(BlueSeeker(), draw_squares((8, 8), (40, 40)))
    assert min(heat[12:20, 12:20].mean(), heat[44:52, 44:52].mean()) > 0.5
    assert heat[12:20, 44:52].mean() < 0.1


def test_weak_evidence_stays_pale() -> None:
    assert explain(BlueSeeker(gain=0.0001), draw_squares((8, 8))).max() < 0.05


def test_the_network_runs_as_often_as_documented() -> None:
    seeker = BlueSeeker()
    explain(seeker, draw_squares((8, 8)), grid=4)
    assert seeker.seen == 2 * 3**2 + 2


def test_the_network_runs_on_few_pictures_at_once() -> None:
    seeker = BlueSeeker()
    explain(seeker, draw_squares((8, 8)))
    assert seeker.largest <= 4, "each takes memory that a server keeps"


def test_without_weights_the_explainer_occludes() -> None:
    seeker = BlueSeeker()
    seeker.manifest = SimpleNamespace(weights=())
    picture = draw_squares((8, 40))
    assert np.array_equal(make_explainer(seeker)(picture), explain(seeker, picture))
    with pytest.raises(ConfigError, match="'magic'"):
        make_explainer(seeker, method="magic")


def make_blue_network() -> nn.Sequential:
    """A body with one channel a colour, and a head that says mask for mean blue and no mask for mean red."""
    body = nn.Conv2d(3, 3, 8, stride=8, groups=3, bias=False)
    nn.init.constant_(body.weight, 1 / 64)
    linear = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]))
    return nn.Sequential(body, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear))


def test_gradient_heat_is_grad_cam_by_its_formula() -> None:
    network, picture = make_blue_network(), draw_squares((8, 40))
    images = torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None]
    heat = find_gradient_heat(network, TensorImage(images))[0]
    assert all(parameter.grad is None for parameter in network.parameters())
    features = network[0](images).detach()
    features.requires_grad_()
    logits = network[1](features)
    (gradient,) = torch.autograd.grad(logits[0, 1] - logits[0, 0], features)
    cam = (gradient.mean((2, 3), keepdim=True) * features).sum(1).relu()[0].detach()
    cam = (cam - cam.min()) / (cam.max() - cam.min())
    assert heat[4::8, 4::8] == pytest.approx(cam.numpy(), abs=0.35)  # the package scales cells up bilinearly
    assert cam.numpy().argmax() == heat.reshape(8, 8, 8, 8).mean((1, 3)).argmax()
    assert heat[12:20, 44:52].mean() > 0.9
    assert heat[:, :32].max() < 0.05


def test_overlay_leaves_the_picture_where_nothing_is_hot() -> None:
    picture, heat = draw_squares((8, 8)), np.zeros((SIZE, SIZE), np.float32)
    heat[32:] = 1
    mixed = overlay_heat(picture, heat, strength=1)
    assert np.array_equal(mixed[:32], picture[:32])
    assert (mixed[32:] == (252, 255, 164)).all()
