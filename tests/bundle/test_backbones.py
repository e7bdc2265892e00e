"""Every backbone people know: one step of training moves it, and a bundle gives back what was trained."""

from pathlib import Path

import numpy as np
import pytest
import torch

from maskfast.bundle.backbones import describe_backbone, list_backbones
from maskfast.bundle.costs import count_costs, describe_costs
from maskfast.bundle.network import NetworkSpec, build_network
from maskfast.bundle.store import Draft, write_bundle
from maskfast.score.loading import load

LARGE_INPUT = {"inception_v3": 96, "inception_resnet_v2": 96, "xception": 96}
"""Networks whose strides leave nothing of a smaller picture."""


@pytest.mark.slow
@pytest.mark.parametrize("arch", list_backbones())
def test_every_backbone_trains_a_step_and_comes_back(arch: str, tmp_path: Path) -> None:
    size, spec = LARGE_INPUT.get(arch, 64), NetworkSpec(arch=arch)
    torch.manual_seed(0)
    network, backbone = build_network(spec), describe_backbone(arch)
    pictures = np.random.default_rng(0).integers(0, 255, (2, size, size, 3), dtype=np.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
    images = (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - mean) / std
    before = [p.detach().clone() for p in network.parameters()]
    for part in network.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.momentum = 1.0  # so that one pass settles the statistics, without which deep answers overflow
    torch.nn.functional.cross_entropy(network(images), torch.tensor([0, 1])).backward()
    torch.optim.SGD(network.parameters(), lr=1e-5).step()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    assert not all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    with torch.no_grad():
        network(images)  # an untrained network's gradients are large, and so was the step
    draft = Draft(
        network=spec,
        state_dicts=[network.state_dict()],
        size=size,
        mean=backbone.mean,
        std=backbone.std,
        onnx=False,
    )
    write_bundle(tmp_path / "model", draft)
    found = load(tmp_path / "model", backend="torch-fp32").logits_arrays(pictures)
    with torch.inference_mode():
        expected = network.eval()(images).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))


def test_costs_are_the_published_ones() -> None:
    # torchvision.models' own tables: 21.80 M parameters and 3.66 G multiply-adds with its classifier of 0.51 M.
    parameters, multiply_adds = count_costs("resnet34", 224)
    assert parameters == pytest.approx(21.80e6 - 0.51e6 + (1024 * 512 + 512 * 2 + 2 * 1024 + 2 * 512), rel=1e-3)
    assert multiply_adds == pytest.approx(3.66e9, rel=0.01)
    assert count_costs("mobilenet_v2", 224)[1] == pytest.approx(0.30e9, rel=0.02)


def test_costs_are_described_without_a_download() -> None:
    found = describe_costs("simple_cnn")
    assert found["weights_here"] is None
    assert found["licence"] == ""
    assert describe_costs("resnet34")["licence"] == "BSD-3-Clause"
