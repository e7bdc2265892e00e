"""Backbones by name: what a library knows about one flows into a Backbone, its layers into a module of feature maps."""

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from maskfast.core.errors import ConfigError
from maskfast.core.extras import import_extra

if TYPE_CHECKING:
    from torch import nn

Library = Literal["torchvision", "timm", "pytorchcv", "maskfast"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

KNOWN: dict[str, tuple[Library, str]] = {
    "resnet34": ("torchvision", "resnet34"),
    "resnet50": ("torchvision", "resnet50"),
    "efficientnet_b0": ("torchvision", "efficientnet_b0"),
    "nasnet_mobile": ("pytorchcv", "nasnet_4a1056"),
    "inception_v3": ("timm", "inception_v3"),
    "inception_resnet_v2": ("timm", "inception_resnet_v2"),
    "xception": ("timm", "legacy_xception"),
    "vgg16": ("torchvision", "vgg16"),
    "vgg19": ("torchvision", "vgg19"),
    "densenet121": ("torchvision", "densenet121"),
    "mobilenet_v2": ("torchvision", "mobilenet_v2"),
    "mobilenet_v3": ("torchvision", "mobilenet_v3_large"),
    "convnext_tiny": ("torchvision", "convnext_tiny"),
    "senet154": ("timm", "senet154"),
    "seresnext101_32x4d": ("timm", "seresnext101_32x4d"),
    "squeezenet1_1": ("torchvision", "squeezenet1_1"),
    "simple_cnn": ("maskfast", "simple_cnn"),
}
"""The names people know, each with the library it comes from and its name there."""

CUTS = {"resnet": -2, "resnext": -2, "wide_resnet": -2, "shufflenet": -1, "mnasnet": -1}
"""Children of torchvision networks that are features, by the beginning of the name, where fastai's rule fails."""

UNCUT = ("vit_", "maxvit", "googlenet", "inception_v3")
"""torchvision networks whose children are no chain: used whole, without their classifier."""


@dataclass(frozen=True)
class Backbone:
    """What a library's own configuration says about one network; `size` in pixels, mean and std for values in 0..1."""

    name: str
    library: Library
    entry: str
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str
    """SPDX name of the licence of the pretrained weights, or "" where there are none."""


def list_backbones() -> list[str]:
    """The names people know; any other torchvision or timm name is understood as well."""
    return list(KNOWN)


@cache
def describe_backbone(arch: str) -> Backbone:
    """Look `arch` up: a name of `list_backbones`, a torchvision or timm name, or "timm:NAME" or "torchvision:NAME".

    Raises ConfigError with the nearest known names for one that no library knows.
    """
    library, entry = _find_library(arch)
    if library == "torchvision":
        return _describe_torchvision(arch, entry)
    if library == "timm":
        return _describe_timm(arch, entry)
    size = {"simple_cnn": 128}.get(arch, 224)
    return Backbone(arch, library, entry, size, IMAGENET_MEAN, IMAGENET_STD, "MIT" if library == "pytorchcv" else "")


def build_body(arch: str) -> "nn.Module":
    """Build the untrained layers of `arch` that turn normalised images (N,3,H,W) into feature maps (N,C,h,w).

    Laid out like fastai's create_body (torchvision) and TimmBody (timm), so that their state dicts load by key.
    """
    from torch import nn

    backbone = describe_backbone(arch)
    if backbone.library == "maskfast":
        from maskfast.bundle.simple_cnn import build_simple_cnn

        return build_simple_cnn()
    from maskfast.bundle.layers import PooledBody, TimmBody

    model = build_whole(arch)
    if backbone.library == "timm":
        return TimmBody(model)
    if is_used_whole(arch):
        return PooledBody(model)
    return nn.Sequential(*(child for _, child in list_feature_children(arch, model)))


def build_whole(arch: str) -> "nn.Module":
    """Build the untrained network of the library `arch` comes from; one that is used whole loses its classifier."""
    backbone = describe_backbone(arch)
    if backbone.library == "timm":
        import timm

        model: nn.Module = timm.create_model(backbone.entry, pretrained=False, num_classes=0)
    elif backbone.library == "torchvision":
        model = _build_torchvision(backbone.entry)
    else:
        provider = import_extra("pytorchcv.model_provider", "nasnet")
        model = provider.get_model(backbone.entry, pretrained=False)
        model.set_submodule("features.final_pool", _identity())
    return model


def is_used_whole(arch: str) -> bool:
    """Say whether the body of `arch` is its whole network without the classifier, and not a chain of children."""
    backbone = describe_backbone(arch)
    return backbone.library == "timm" or (backbone.library == "torchvision" and backbone.entry.startswith(UNCUT))


def list_feature_children(arch: str, model: "nn.Module") -> list[tuple[str, "nn.Module"]]:
    """The children of a torchvision or pytorchcv `model` that are features, with their names, in order."""
    children = list(model.named_children())
    prefix = next((prefix for prefix in CUTS if describe_backbone(arch).entry.startswith(prefix)), None)
    if prefix is not None:
        return children[: CUTS[prefix]]
    if children[0][0] == "features" and len(children) == 2:
        return children[:1]
    pools = [place for place, (_, child) in enumerate(children) if _has_pool(child)]
    return children[: pools[-1]] if pools else children[:-1]


@cache
def count_features(arch: str) -> int:
    """The number of channels that the body of `arch` gives, found without computing a single number."""
    try:
        return _count_on("meta", arch)
    except NotImplementedError:  # a few networks compute numbers while they are built
        return _count_on("cpu", arch)


def _count_on(device: str, arch: str) -> int:
    import torch

    size = describe_backbone(arch).size
    with torch.device(device), torch.no_grad():
        body = build_body(arch).eval()
        return int(body(torch.empty(1, 3, size, size)).shape[1])


def _find_library(arch: str) -> tuple[Library, str]:
    if arch in KNOWN:
        return KNOWN[arch]
    library, _, entry = arch.rpartition(":")
    if library in ("", "torchvision") and entry in _list_torchvision():
        return "torchvision", entry
    if library in ("", "timm") and _is_timm(entry):
        return "timm", entry
    near = get_close_matches(arch, sorted({*KNOWN, *_list_torchvision()}), n=3, cutoff=0.5)
    hint = f"the nearest known: {', '.join(near)}" if near else "`maskfast models` lists names"
    raise ConfigError(f"--arch {arch}: neither torchvision nor timm knows this network; {hint}")


@cache
def _list_torchvision() -> tuple[str, ...]:
    from torchvision import models

    return tuple(models.list_models(module=models))


def _is_timm(entry: str) -> bool:
    import timm

    name, _, tag = entry.partition(".")
    return bool(timm.is_model(name)) and (not tag or entry in timm.list_pretrained(f"{name}.*"))


def _describe_torchvision(arch: str, entry: str) -> Backbone:
    from torchvision import models

    preset = models.get_model_weights(entry).DEFAULT.transforms()
    mean, std = tuple(preset.mean), tuple(preset.std)
    return Backbone(arch, "torchvision", entry, int(preset.crop_size[0]), mean, std, "BSD-3-Clause")


def _describe_timm(arch: str, entry: str) -> Backbone:
    import timm

    found = timm.get_pretrained_cfg(entry)
    known: dict[str, Any] = found.to_dict() if found else {}
    size = int((known.get("input_size") or (3, 224, 224))[-1])
    mean, std = tuple(known.get("mean") or IMAGENET_MEAN), tuple(known.get("std") or IMAGENET_STD)
    return Backbone(arch, "timm", entry, size, mean, std, _spell_licence(known.get("license")))


def _spell_licence(licence: str | None) -> str:
    return {"apache-2.0": "Apache-2.0", "mit": "MIT", None: ""}.get(licence, str(licence).upper())


def _build_torchvision(entry: str) -> "nn.Module":
    from torchvision import models

    without_aux = {"aux_logits": False, "init_weights": False} if entry in ("googlenet", "inception_v3") else {}
    model: nn.Module = models.get_model(entry, weights=None, **without_aux)
    if entry.startswith(UNCUT):
        classifier = next(name for name, part in reversed(list(model.named_modules())) if _is_linear(part))
        model.set_submodule(classifier, _identity())
    return model


def _identity() -> "nn.Module":
    from torch import nn

    return nn.Identity()


def _is_linear(part: "nn.Module") -> bool:
    from torch import nn

    return isinstance(part, nn.Linear)


def _has_pool(module: "nn.Module") -> bool:
    return any(type(part).__name__.endswith(("Pool1d", "Pool2d", "Pool3d")) for part in module.modules())
