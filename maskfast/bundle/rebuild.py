"""What an export says goes in; the description of the same network, built in code, and its weights come out."""

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from maskfast.bundle.backbones import build_body
from maskfast.bundle.fastai_export import Export, Module
from maskfast.bundle.network import CLASSES, NetworkSpec, build_network
from maskfast.core.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

MOVED = {
    "fastai.layers.AdaptiveConcatPool2d": "maskfast.bundle.layers.ConcatPool",
    "fastai.layers.Flatten": "torch.nn.modules.flatten.Flatten",
    "fastai.vision.learner.TimmBody": "maskfast.bundle.layers.TimmBody",
}
"""Layers of exports that compute what a layer of another name does."""
SHIFTING = ("timm", "pytorchcv")
"""Libraries whose layers have moved from file to file, keeping their names."""
TORCH = "torch.nn.modules."
HEAD = tuple(
    TORCH + each
    for each in (
        *("flatten.Flatten", "batchnorm.BatchNorm1d", "dropout.Dropout", "linear.Linear"),
        *("activation.ReLU", "batchnorm.BatchNorm1d", "dropout.Dropout", "linear.Linear"),
    )
)
"""fastai's create_head after its pooling (fastai/vision/learner.py)."""
OUR_HEAD = "maskfast.bundle.layers.MilHead"
"""The head of networks that look for at least one mask among places."""
HIDDEN = {"concat": ("1.4", "1.7"), "mil": ("1.score.1", "1.score.4")}
"""Where each head has its hidden layer, and the dropout after it."""
POOLS = {"maskfast.bundle.layers.ConcatPool": True, f"{TORCH}pooling.AdaptiveAvgPool2d": False}
UNEQUAL = {"training", "inplace", "p", "momentum", "drop_prob", "num_batches_tracked", "needs_pool", "drop_rate"}
"""Settings of layers that make no difference to a prediction."""
MAX_NAMED = 3
"""Networks of timm that are tried; an honest export names the one that it is."""
NO_LAYER = Module("")


def rebuild_export(export: Export) -> "tuple[NetworkSpec, dict[str, Tensor]]":
    """Return the network of `export` as we build it, and its weights, after every layer, key and shape was compared.

    Raises BundleError that says what cannot be rebuilt; the pickle is never run instead.
    """
    name = str(export.archive.path)
    if not export.modules:
        raise BundleError(f"{name}: holds a {export.kind or 'computed object'}, no fastai Learner with a network")
    _check_hooks(export, name)
    head = _read_head(export, name)
    weights = _read_weights(export, name)
    spec = _read_spec(export, weights, head)
    _compare_layers(_build_without_values(spec), export, name)
    return spec, weights


def swap_classes(spec: NetworkSpec, weights: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Return the weights of the same network with its two answers exchanged."""
    if spec.head == "mil":
        return {key: -tensor if key in ("1.scale", "1.bias") else tensor for key, tensor in weights.items()}
    return weights | {"1.8.weight": weights["1.8.weight"].flip(0)}


def find_backbone(export: Export, weights: "Mapping[str, Tensor]") -> str:
    """Return the name of the backbone whose layers and shapes are those of the export's body.

    Raises BundleError where none of torchvision or timm fits.
    """
    body = {key.removeprefix("0."): tuple(tensor.shape) for key, tensor in weights.items() if key.startswith("0.")}
    candidates = list_candidates(export.modules)
    for arch in candidates:
        if _shapes_of(arch) == body:
            return arch
    tried = f"tried {', '.join(candidates[:12])}" if candidates else "its layers are of no known library"
    raise BundleError(f"{export.archive.path}: no backbone of torchvision or timm has its shapes; {tried}")


def list_candidates(modules: Mapping[str, Module]) -> list[str]:
    """Return the names of networks that are made of the same kinds of layers."""
    named = dict.fromkeys(module.architecture for module in modules.values() if module.architecture)
    if named:
        return [f"timm:{name}" for name in islice(named, MAX_NAMED)]
    if any(module.kind.startswith("pytorchcv.") for module in modules.values()):
        return ["nasnet_mobile"]
    from torchvision import models

    homes = {module.kind.rpartition(".")[0] for place, module in modules.items() if place.startswith("0")}
    homes = {home for home in homes if home.startswith("torchvision.models.")}
    plain = {"torchvision.models.vgg", "torchvision.models.alexnet"}
    names = models.list_models(module=models)
    found = [name for name in names if models.get_model_builder(name).__module__ in (homes or plain)]
    return found if homes else ["simple_cnn", *found]


def _shapes_of(arch: str) -> dict[str, tuple[int, ...]] | None:
    import torch

    try:
        with torch.device("meta"):
            body = build_body(arch)
    except (NotImplementedError, ConfigError):  # computes numbers while it is built, or is unknown to this timm
        return None
    return {key: tuple(tensor.shape) for key, tensor in body.state_dict().items()}


def _build_without_values(spec: NetworkSpec) -> "nn.Module":
    import torch

    with torch.device("meta"):
        return build_network(spec)


def _check_hooks(export: Export, name: str) -> None:
    hooked = [place for place, module in export.modules.items() if module.hooked]
    if hooked:
        raise BundleError(
            f"{name}: layer {hooked[0] or 'model'} carries code of its own (a hook or forward), not rebuilt"
        )


def _read_head(export: Export, name: str) -> dict[str, Any]:
    """Return which head it is, and how it pools; raises BundleError for another than create_head's or ours."""
    tops = sorted({place.split(".")[0] for place in export.modules if place})
    if tops != ["0", "1"]:
        raise BundleError(f"{name}: its network has the parts {', '.join(tops[:8])}; only body and head are rebuilt")
    if export.modules.get("1", NO_LAYER).kind == OUR_HEAD:
        return {"head": "mil"}
    kinds: list[str] = []
    while (module := export.modules.get(f"1.{len(kinds)}")) is not None:
        kinds.append(_name_kind(module.kind))
    if not kinds or kinds[0] not in POOLS or tuple(kinds[1:]) != HEAD:
        known = {*POOLS, *HEAD}
        seen = ", ".join(kind.rpartition(".")[2] if kind in known else kind for kind in kinds[:12])
        raise BundleError(f"{name}: its head is {seen or 'unknown'}; only fastai's create_head is rebuilt")
    return {"head": "concat", "concat_pool": POOLS[kinds[0]]}


def _read_spec(export: Export, weights: "Mapping[str, Tensor]", head: dict[str, Any]) -> NetworkSpec:
    """Return the description of the network with `head`, whose sizes are those of its weights."""
    name = str(export.archive.path)
    hidden, dropout = HIDDEN[head["head"]]
    widths = {key: tensor.shape[0] for key, tensor in weights.items() if tensor.ndim}
    if f"{hidden}.weight" not in widths or dropout not in export.modules:
        raise BundleError(f"{name}: its head lacks the layers {hidden} or {dropout}")
    if head["head"] == "concat" and widths.get("1.8.weight") != CLASSES:
        raise BundleError(f"{name}: its head has not two outputs; only a network of two classes can tell masks apart")
    probability = export.modules[dropout].settings.get("p", 0.0)
    arch, width = find_backbone(export, weights), widths[f"{hidden}.weight"]
    try:
        return NetworkSpec(arch=arch, hidden=width, dropout=probability, **head)
    except ValidationError as error:
        raise BundleError(f"{name}: its head: {error.errors()[0]['msg']}") from None


def _read_weights(export: Export, name: str) -> "dict[str, Tensor]":
    import torch

    weights = {}
    for place, module in export.modules.items():
        for key, node in module.tensors.items():
            array = export.archive.read_tensor(node)
            if array is None:
                raise BundleError(f"{name}: {place}.{key} is no plain tensor")
            tensor = torch.from_numpy(array)
            weights[f"{place}.{key}"] = tensor.float() if tensor.is_floating_point() else tensor
    return weights


def _compare_layers(network: "nn.Module", export: Export, name: str) -> None:
    """Raise BundleError where a layer is of another class or has another setting than the export's."""
    ours = dict(network.named_modules())
    pools = [
        place for place in ("1.0.ap", "1.0.mp") if export.modules.get(place, NO_LAYER).settings.get("output_size") == 1
    ]
    if stray := sorted(set(ours) ^ set(export.modules).difference(pools)):
        raise BundleError(f"{name}: layer {stray[0]} is {'missing' if stray[0] in ours else 'unknown'}")
    for place, module in ours.items():
        seen = export.modules[place]
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        if _name_kind(seen.kind) != _name_kind(kind):
            raise BundleError(f"{name}: layer {place or 'model'} is a {seen.kind}, rebuilt it would be a {kind}")
        settings = _list_settings(module)
        for key in sorted(set(settings) & set(seen.settings) - UNEQUAL):
            if settings[key] != seen.settings[key]:
                told = f"{seen.settings[key]!r:.40}, rebuilt it would be {settings[key]!r:.40}"
                raise BundleError(f"{name}: layer {place}: {key} is {told}")


def _name_kind(kind: str) -> str:
    """Return the dotted name of a class as two of the same are compared."""
    library, _, name = kind.partition(".")
    return f"{library}.{name.rpartition('.')[2]}" if library in SHIFTING else MOVED.get(kind, kind)


def _list_settings(module: "nn.Module") -> dict[str, Any]:
    return {key: value for key, value in vars(module).items() if isinstance(value, int | float | bool | str | tuple)}
