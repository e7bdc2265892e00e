"""Learners: fastai's vision_learner with our networks, and the finder."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from fastai.vision.all import vision_learner
from safetensors.torch import save_file
from torchvision import models

from maskfast.bundle.backbones import build_body
from maskfast.bundle.network import NetworkSpec, build_network
from maskfast.core.errors import ConfigError
from maskfast.data.splits import split_items
from maskfast.data.tables import read_items
from maskfast.learn.blocks import make_dls
from maskfast.learn.learner import find_lr, make_learner, split_parameters


@pytest.fixture
def items(toy: Path) -> pd.DataFrame:
    items = read_items(toy)
    return split_items(items.assign(group=pd.array(range(len(items)), dtype="Int64")))


def sizes(groups: list[list[torch.nn.Parameter]]) -> list[int]:
    return [sum(p.numel() for p in group) for group in groups]


def test_groups_of_a_resnet_are_fastais(items: pd.DataFrame) -> None:
    theirs = vision_learner(make_dls(items, size=32), models.resnet34, pretrained=False)
    ours = split_parameters(build_network(NetworkSpec(arch="resnet34")))
    assert sizes(ours) == sizes([list(group) for group in theirs.splitter(theirs.model)])


@pytest.mark.parametrize("arch", ["mobilenet_v2", "squeezenet1_1", "timm:mobilenetv4_conv_small", "simple_cnn"])
def test_groups_hold_every_parameter_once(arch: str) -> None:
    network = build_network(NetworkSpec(arch=arch))
    groups = split_parameters(network)
    assert all(groups)
    assert sorted(id(p) for group in groups for p in group) == sorted(id(p) for p in network.parameters())


def test_the_model_is_the_network_of_its_description(items: pd.DataFrame) -> None:
    for arch in ("simple_cnn", "timm:mobilenetv4_conv_small"):
        learn = make_learner(make_dls(items, size=32), arch, weights="none")
        assert set(learn.model.state_dict()) == set(build_network(NetworkSpec(arch=arch)).state_dict())


def test_pretrained_weights_are_in_place_and_frozen(items: pd.DataFrame, tmp_path: Path) -> None:
    body = build_body("simple_cnn")
    save_file(body.state_dict(), tmp_path / "w.safetensors")
    learn = make_learner(make_dls(items, size=32), "simple_cnn", weights=tmp_path / "w.safetensors")
    torch.testing.assert_close(learn.model[0][0][0].weight, body[0][0].weight)
    assert not learn.model[0][0][0].weight.requires_grad
    assert all(p.requires_grad for p in learn.model[1].parameters())


def test_an_unknown_network_is_refused(items: pd.DataFrame) -> None:
    with pytest.raises(ConfigError, match="resnet34"):
        make_learner(make_dls(items, size=32), "resnet33", weights="none")


def test_an_unknown_optimizer_is_refused(items: pd.DataFrame) -> None:
    with pytest.raises(ConfigError, match="'adamw' is unknown; use adam, sgd, muon"):
        make_learner(make_dls(items, size=32), "simple_cnn", weights="none", optimizer="adamw")


def test_the_finder_leaves_no_trace(items: pd.DataFrame, tmp_path: Path) -> None:
    learn = make_learner(make_dls(items, size=32, batch_size=8), "simple_cnn", weights="none", path=tmp_path)
    before = {key: value.clone() for key, value in learn.model.state_dict().items()}
    state = torch.get_rng_state()
    files = set(tmp_path.rglob("*"))
    lr = find_lr(learn, plot=tmp_path / "lr_find.png", steps=30)
    assert 1e-5 <= lr <= 2e-2
    assert set(tmp_path.rglob("*")) - files == {tmp_path / "lr_find.png"}
    assert torch.equal(state, torch.get_rng_state())
    for key, value in learn.model.state_dict().items():
        assert torch.equal(value, before[key]), key
