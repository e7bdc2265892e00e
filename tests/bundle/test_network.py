"""Networks from their description, held against fastai's own builders."""

import pytest
import torch
from fastai.vision.learner import TimmBody, create_body, create_head, create_vision_model
from torchvision import models

from maskfast.bundle.backbones import build_body, count_features, describe_backbone, list_backbones
from maskfast.bundle.layers import LogSumExpPool
from maskfast.bundle.network import NetworkSpec, build_head, build_network
from maskfast.core.errors import ConfigError

CUTTABLE = ("resnet34", "resnet50", "vgg16", "densenet121", "squeezenet1_1", "efficientnet_b0", "convnext_tiny")


def shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in module.state_dict().items()}


def test_a_fastai_model_loads_by_key_and_gives_the_same_logits() -> None:
    theirs = create_vision_model(models.resnet18, 2, pretrained=False).eval()
    ours = build_network(NetworkSpec(arch="resnet18")).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("arch", CUTTABLE)
def test_bodies_have_fastais_keys(arch: str) -> None:
    entry = getattr(models, describe_backbone(arch).entry)
    cut = -2 if arch.startswith(("resnet", "vgg")) else -1 if arch.startswith(("densenet", "squeeze")) else None
    with torch.device("meta"):
        assert shapes(build_body(arch)) == shapes(create_body(entry(), pretrained=False, cut=cut))


@pytest.mark.parametrize("arch", ["timm:efficientnet_b0", "xception"])
def test_timm_bodies_have_fastais_keys(arch: str) -> None:
    import timm

    with torch.device("meta"):
        theirs = TimmBody(timm.create_model(describe_backbone(arch).entry, num_classes=0))
        assert shapes(build_body(arch)) == shapes(theirs)


@pytest.mark.parametrize("concat", [True, False])
def test_the_head_has_fastais_keys(concat: bool) -> None:
    ours = build_head(NetworkSpec(arch="resnet18", concat_pool=concat, hidden=128))
    assert shapes(ours) == shapes(create_head(512, 2, lin_ftrs=[128], concat_pool=concat))


@pytest.mark.parametrize(
    "arch",
    [*list_backbones(), "shufflenet_v2_x1_0", "vit_b_16", "googlenet", "swin_t", "regnet_y_400mf", "mnasnet0_5",
     "timm:vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mobilenetv4_conv_small"],
)  # fmt: skip
def test_channels_are_those_of_the_librarys_classifier(arch: str) -> None:
    backbone = describe_backbone(arch)
    assert count_features(arch) > 0
    if backbone.library == "timm":
        import timm

        with torch.device("meta"):
            assert count_features(arch) == timm.create_model(backbone.entry).num_features
    assert len(backbone.mean) == len(backbone.std) == 3
    assert backbone.size in (128, 224, 299)


def test_sizes_and_normalisation_come_from_the_library() -> None:
    assert describe_backbone("inception_v3").size == 299
    assert describe_backbone("inception_v3").mean == (0.5, 0.5, 0.5)
    assert describe_backbone("resnet34").mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("head", ["concat", "mil"])
def test_two_logits_come_out_at_any_size(head: str) -> None:
    network = build_network(NetworkSpec(arch="simple_cnn", head=head)).eval()
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 2)
    assert network(torch.zeros(1, 3, 96, 160)).shape == (1, 2)


def test_log_sum_exp_is_a_soft_maximum() -> None:
    scores = torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]])
    assert LogSumExpPool(100.0)(scores).item() == pytest.approx(5.0, abs=1e-4)
    assert LogSumExpPool(1.0)(scores).item() == pytest.approx(scores.flatten().exp().sum().log().item())
    assert 5.0 < LogSumExpPool(0.5)(scores).item() < 5.0 + torch.tensor(4.0).log().item() / 0.5


def test_sharpness_is_trained_only_when_asked() -> None:
    fixed = build_head(NetworkSpec(arch="simple_cnn", head="mil"))
    learned = build_head(NetworkSpec(arch="simple_cnn", head="mil", learn_sharpness=True))
    assert "pool.log_sharpness" not in dict(fixed.named_parameters())
    assert "pool.log_sharpness" in dict(learned.named_parameters())
    assert set(fixed.state_dict()) == set(learned.state_dict())


@pytest.mark.parametrize("arch", ["resnet33", "timm:nothing", "torchvision:efficientnet", ""])
def test_unknown_names_are_refused(arch: str) -> None:
    with pytest.raises(ConfigError, match="--arch"):
        build_network(NetworkSpec(arch=arch))


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(ConfigError, match="resnet34"):
        describe_backbone("resnet33")
