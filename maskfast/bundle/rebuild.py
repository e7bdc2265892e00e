"""What an export says goes in; the description of the same network, built in code, and its weights come out."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maskfast.bundle.backbones import build_body
from maskfast.bundle.fastai_export import Export, Module
from maskfast.bundle.network import NetworkSpec, build_network
from maskfast.core.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

HEAD = ("Flatten", "BatchNorm1d", "Dropout", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear")
"""fastai's create_head after its pooling (fastai/vision/learner.py)."""
POOLS = {"AdaptiveConcatPool2d": True, "ConcatPool": True, "AdaptiveAvgPool2d": False}
UNEQUAL = {"training", "inplace", "p", "momentum", "drop_prob", "num_batches_tracked", "needs_pool", "drop_rate"}
"""Settings of layers that make no difference to a prediction."""
NO_POOL = Module("")
SAME_KINDS = {"AdaptiveConcatPool2d": "ConcatPool"}


def rebuild_export(export: Export) -> "tuple[NetworkSpec, dict[str, Tensor]]":
    """Return the network of `export` as we build it, and its weights, after every layer, key and shape was compared.

    Raises BundleError that says what cannot be rebuilt; the pickle is never run instead.
    """
    name = str(export.archive.path)
    if not export.modules:
        raise BundleError(f"{name}: holds a {export.kind or 'computed object'}, no fastai Learner with a network")
    _check_hooks(export, name)
    concat_pool = _read_head(export, name)
    weights = _read_weights(export, name)
    hidden, dropout = weights["1.4.weight"].shape[0], export.modules["1.7"].settings.get("p", 0.0)
    arch = find_backbone(export, weights)
    spec = NetworkSpec(arch=arch, hidden=hidden, dropout=dropout, concat_pool=concat_pool)
    _compare_layers(_build_without_values(spec), export, name)
    return spec, weights


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
    named = [module.architecture for module in modules.values() if module.architecture]
    if named:
        return [f"timm:{name}" for name in named]
    from torchvision import models

    homes = {module.kind.rpartition(".")[0] for place, module in modules.items() if place.startswith("0")}
    homes = {home for home in homes if home.startswith("torchvision.models.")}
    plain = {"torchvision.models.vgg", "torchvision.models.alexnet"}
    names = models.list_models(module=models)
    return [name for name in names if models.get_model_builder(name).__module__ in (homes or plain)]


def _shapes_of(arch: str) -> dict[str, tuple[int, ...]]:
    import torch

    try:
        with torch.device("meta"):
            body = build_body(arch)
    except (NotImplementedError, ConfigError):  # computes numbers while it is built, or is unknown to this timm
        return {}
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


def _read_head(export: Export, name: str) -> bool:
    """Return whether the head pools by maximum and mean; raises BundleError for another head than create_head's."""
    tops = sorted({place.split(".")[0] for place in export.modules if place})
    if tops != ["0", "1"]:
        raise BundleError(f"{name}: its network has the parts {', '.join(tops[:8])}; only body and head are rebuilt")
    kinds: list[str] = []
    while (module := export.modules.get(f"1.{len(kinds)}")) is not None:
        kinds.append(module.kind.rpartition(".")[2])
    if not kinds or kinds[0] not in POOLS or tuple(kinds[1:]) != HEAD:
        raise BundleError(f"{name}: its head is {', '.join(kinds) or 'unknown'}; only fastai's create_head is rebuilt")
    return POOLS[kinds[0]]


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
    outputs = weights.get("1.8.weight")
    if outputs is None or outputs.shape[0] != 2:
        raise BundleError(f"{name}: its head has not two outputs; only a network of two classes can tell masks apart")
    return weights


def _compare_layers(network: "nn.Module", export: Export, name: str) -> None:
    """Raise BundleError where a layer is of another class or has another setting than the export's."""
    ours = dict(network.named_modules())
    pools = [
        place for place in ("1.0.ap", "1.0.mp") if export.modules.get(place, NO_POOL).settings.get("output_size") == 1
    ]
    if stray := sorted(set(ours) ^ set(export.modules).difference(pools)):
        raise BundleError(f"{name}: layer {stray[0]} is {'missing' if stray[0] in ours else 'unknown'}")
    for place, module in ours.items():
        seen = export.modules[place]
        kind = seen.kind.rpartition(".")[2]
        if SAME_KINDS.get(kind, kind) != type(module).__name__:
            raise BundleError(f"{name}: layer {place} is a {seen.kind}, rebuilt it would be a {type(module).__name__}")
        settings = _list_settings(module)
        for key in sorted(set(settings) & set(seen.settings) - UNEQUAL):
            if settings[key] != seen.settings[key]:
                told = f"{seen.settings[key]!r:.40}, rebuilt it would be {settings[key]!r:.40}"
                raise BundleError(f"{name}: layer {place}: {key} is {told}")


def _list_settings(module: "nn.Module") -> dict[str, Any]:
    return {key: value for key, value in vars(module).items() if isinstance(value, int | float | bool | str | tuple)}
