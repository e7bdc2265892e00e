"""Weights from files and from the libraries' hubs; the real files where MASKFAST_SHARED names them."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision import models

from maskfast.bundle.backbones import build_body
from maskfast.bundle.pretrained import find_weights, load_weights, read_state_dict
from maskfast.core.errors import ConfigError

SHARED = os.environ.get("MASKFAST_SHARED")
needs_shared = pytest.mark.skipif(SHARED is None, reason="MASKFAST_SHARED is not set: no real weights here")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "resnet18.pth"
    torch.save(models.resnet18().state_dict(), path)
    return path


def test_a_whole_state_dict_loads_and_its_classifier_is_left(whole: Path) -> None:
    body = build_body("resnet18")
    assert load_weights(body, whole, "resnet18") == ["fc.weight", "fc.bias"]
    torch.testing.assert_close(body[0].weight, torch.load(whole, weights_only=True)["conv1.weight"])
    torch.testing.assert_close(
        body[7][1].bn2.running_var, torch.load(whole, weights_only=True)["layer4.1.bn2.running_var"]
    )


def test_a_bodys_own_state_dict_loads(tmp_path: Path) -> None:
    saved, body = build_body("simple_cnn"), build_body("simple_cnn")
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    load_weights(body, tmp_path / "w.safetensors", "simple_cnn")
    torch.testing.assert_close(body[0][0].weight, saved[0][0].weight)


def test_wrapped_and_parallel_state_dicts_load(tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in models.resnet18().state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pth")
    body = build_body("resnet18")
    load_weights(body, tmp_path / "w.pth", "resnet18")
    torch.testing.assert_close(body[0].weight, state["module.conv1.weight"])


def test_a_timm_state_dict_loads(tmp_path: Path) -> None:
    import timm

    state = timm.create_model("mobilenetv4_conv_small").state_dict()
    torch.save(state, tmp_path / "w.pth")
    body = build_body("mobilenetv4_conv_small")
    assert load_weights(body, tmp_path / "w.pth", "mobilenetv4_conv_small") == ["classifier.weight", "classifier.bias"]
    torch.testing.assert_close(body.model.conv_stem.weight, state["conv_stem.weight"])


def test_missing_and_unexpected_keys_are_named(whole: Path, tmp_path: Path) -> None:
    state = torch.load(whole, weights_only=True)
    state["layer9.weight"] = state.pop("conv1.weight")
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ConfigError, match=r"1 keys missing \(0\.weight\); 1 keys unexpected \(layer9\.weight\)"):
        load_weights(build_body("resnet18"), tmp_path / "odd.pth", "resnet18")


def test_weights_of_another_network_are_refused(whole: Path) -> None:
    with pytest.raises(ConfigError, match="not the weights of vgg16"):
        load_weights(build_body("vgg16"), whole, "vgg16")


def test_shapes_are_checked(whole: Path, tmp_path: Path) -> None:
    state = torch.load(whole, weights_only=True)
    state["conv1.weight"] = state["conv1.weight"][:32]
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ConfigError, match="shapes"):
        load_weights(build_body("resnet18"), tmp_path / "odd.pth", "resnet18")


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/maskfast-harmed",)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_state_dict(tmp_path / name)
    with pytest.raises(ConfigError, match="is a folder"):
        read_state_dict(tmp_path)
    (tmp_path / name).write_bytes(b"no weights at all")
    with pytest.raises(ConfigError, match="is no"):
        read_state_dict(tmp_path / name)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"w": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(ConfigError, match="weights_only"):
        read_state_dict(tmp_path / "bad.pth")


def test_an_unreachable_hub_says_which_file_goes_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with pytest.raises(ConfigError) as caught:
        load_weights(build_body("resnet18"), "imagenet", "resnet18")
    message = str(caught.value)
    assert str(tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in message
    assert "--weights none" in message
    assert "--weights FILE" in message


def test_weights_already_in_the_hub_cache_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = find_weights("resnet18")
    assert source is not None
    assert not source.found
    source.file.parent.mkdir(parents=True)
    state = models.resnet18().state_dict()
    torch.save(state, source.file)
    assert find_weights("resnet18").found
    body = build_body("resnet18")
    load_weights(body, "imagenet", "resnet18")
    torch.testing.assert_close(body[0].weight, state["conv1.weight"])


@needs_shared
@pytest.mark.shared
@pytest.mark.parametrize("arch", ["mobilenet_v2", "squeezenet1_1"])
def test_the_real_files_load(arch: str) -> None:
    path = Path(SHARED) / "weights" / f"{arch}-imagenet.safetensors"
    body = build_body(arch)
    load_weights(body, path, arch)
    loaded = {
        key.split("features.", 1)[1]: value for key, value in load_file(path).items() if key.startswith("features.")
    }
    for key, value in body[0].state_dict().items():
        torch.testing.assert_close(value, loaded[key])
