"""Pretrained weights: a name ("imagenet") or a file flows in, a body with those weights flows out."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskfast.bundle.backbones import build_whole, describe_backbone, is_used_whole, list_feature_children
from maskfast.core.errors import ConfigError
from maskfast.core.extras import import_extra

if TYPE_CHECKING:
    from torch import Tensor, nn

StateDict = dict[str, "Tensor"]
WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training scripts save a state dict."""

CLASSIFIERS = ("fc", "classifier", "classif", "last_linear", "head", "heads", "output", "AuxLogits", "aux1", "aux2")
"""What libraries call the layers after the features."""


@dataclass(frozen=True)
class WeightsSource:
    """Where the ImageNet weights of one network come from: the web address, and the file it has on this machine."""

    url: str
    file: Path
    found: bool


def load_weights(body: "nn.Module", weights: str | Path, arch: str) -> list[str]:
    """Load `weights` ("imagenet", "none" or a file) into `body` as `build_body(arch)` made it.

    A file is safetensors or a state dict opened with weights_only; of a whole network or of the features alone.
    Returns the keys of the file that belong to the library's classifier and were left out. Raises ConfigError naming
    keys that are missing or unexpected, and where weights can't be fetched, which file goes where.
    """
    if str(weights) == "none":
        return []
    state = fetch_imagenet(arch) if str(weights) == "imagenet" else read_state_dict(Path(weights))
    wanted = {key: value.shape for key, value in body.state_dict().items()}
    renamed, left = _rename_keys(state, arch, set(wanted))
    _check_keys(renamed, wanted, weights, arch)
    body.load_state_dict(renamed, strict=False)
    return left


def read_state_dict(path: Path) -> StateDict:
    """Read a safetensors file or a torch state dict, without running anything it holds."""
    if path.is_dir():
        raise ConfigError(f"--weights {path}: is a folder; name the file of weights in it")
    if not path.is_file():
        raise ConfigError(f"--weights {path}: there is no such file; give 'imagenet', 'none' or a weights file")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in WRAPPERS:
        state = state[wrapper] if isinstance(state.get(wrapper), dict) else state
    import torch

    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ConfigError(f"--weights {path}: holds no state dict (names with tensors)")
    return {key.removeprefix("module."): value for key, value in state.items()}


def find_weights(arch: str) -> WeightsSource | None:
    """Say where the ImageNet weights of `arch` come from, and whether they are here; None where nobody has any."""
    backbone = describe_backbone(arch)
    if backbone.library == "torchvision":
        return _find_torchvision(backbone.entry)
    if backbone.library == "timm":
        return _find_timm(backbone.entry)
    if backbone.library == "pytorchcv":
        folder = Path("~/.torch/models").expanduser()
        found = sorted(folder.glob(f"{backbone.entry}-*.pth")) if folder.is_dir() else []
        file = found[0] if found else folder / f"{backbone.entry}-*.pth"
        return WeightsSource("https://github.com/osmr/imgclsmob/releases", file, bool(found))
    return None


def fetch_imagenet(arch: str) -> StateDict:
    """The ImageNet state dict of `arch` from its library's cache, downloaded there where it is missing."""
    backbone, source = describe_backbone(arch), find_weights(arch)
    if source is None:
        raise ConfigError(f"--weights imagenet: nobody publishes any for {arch}; say --weights none, or a file")
    try:
        if backbone.library == "torchvision":
            return _fetch_torchvision(source)
        if backbone.library == "timm":
            return _fetch_timm(backbone.entry)
        provider = import_extra("pytorchcv.model_provider", "nasnet")
        return dict(provider.get_model(backbone.entry, pretrained=True).state_dict())
    except Exception as error:  # each hub client has its own tree of network errors
        raise ConfigError(
            f"--weights imagenet: {source.url} can't be fetched ({type(error).__name__}); put that file at "
            f"{source.file}, or say --weights FILE to name one, or --weights none to train from scratch"
        ) from error


def _find_torchvision(entry: str) -> WeightsSource:
    import torch
    from torchvision import models

    url = str(models.get_model_weights(entry).DEFAULT.url)
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    return WeightsSource(url, file, file.is_file())


def _fetch_torchvision(source: WeightsSource) -> StateDict:
    import torch

    return dict(torch.hub.load_state_dict_from_url(source.url, map_location="cpu", check_hash=True, weights_only=True))


def _find_timm(entry: str) -> WeightsSource | None:
    import timm
    import torch
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    known = timm.get_pretrained_cfg(entry)
    if known is None or not (known.hf_hub_id or known.url):
        return None
    if not known.hf_hub_id:
        file = Path(torch.hub.get_dir()) / "checkpoints" / known.url.rsplit("/", 1)[1]
        return WeightsSource(known.url, file, file.is_file())
    cached = try_to_load_from_cache(known.hf_hub_id, "model.safetensors")
    folder = Path(HF_HUB_CACHE) / f"models--{known.hf_hub_id.replace('/', '--')}"
    url = f"https://huggingface.co/{known.hf_hub_id}/resolve/main/model.safetensors"
    return WeightsSource(url, Path(cached) if isinstance(cached, str) else folder, isinstance(cached, str))


def _fetch_timm(entry: str) -> StateDict:
    import timm

    return dict(timm.create_model(entry, pretrained=True, num_classes=0).state_dict())


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"--weights {path}: is no safetensors file ({error})") from error


def _read_torch(path: Path) -> dict[str, Any]:
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error) else type(error).__name__
        raise ConfigError(f"--weights {path}: is no state dict that opens with weights_only ({reason})") from error
    return state if isinstance(state, dict) else {}


def _rename_keys(state: StateDict, arch: str, wanted: set[str]) -> tuple[StateDict, list[str]]:
    # A library names its layers; a body counts them. Keys already in the body's own form pass as they are.
    if len(wanted & set(state)) > len(wanted) // 2:
        return state, []
    names = _list_library_names(arch)
    renamed = {_rename_key(key, names, wanted): value for key, value in state.items()}
    left = [key for key in renamed if key not in wanted and key.split(".", 1)[0] in CLASSIFIERS]
    return {key: value for key, value in renamed.items() if key not in left}, left


def _rename_key(key: str, names: dict[str, str], wanted: set[str]) -> str:
    ours = next((place + key.removeprefix(name) for name, place in names.items() if key.startswith(name)), key)
    return ours if ours in wanted else key


def _list_library_names(arch: str) -> dict[str, str]:
    """Beginnings of keys in the library's state dict, each with the beginning it has in our body."""
    import torch

    if describe_backbone(arch).library == "maskfast":
        return {}
    if is_used_whole(arch):
        return {"": "model."}
    with torch.device("meta"):
        children = list_feature_children(arch, build_whole(arch))
    return {f"{name}.": f"{place}." for place, (name, _) in enumerate(children)}


def _check_keys(state: StateDict, wanted: dict[str, Any], weights: str | Path, arch: str) -> None:
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}  # older files lack them
    missing = sorted(set(wanted) - set(state) - counters)
    unexpected = sorted(set(state) - set(wanted))
    if missing or unexpected:
        raise ConfigError(
            f"--weights {weights}: not the weights of {arch}; {_name_some('missing', missing)}; "
            f"{_name_some('unexpected', unexpected)}; check --arch and the file"
        )
    wrong = [
        f"{key} {tuple(state[key].shape)} for {tuple(wanted[key])}" for key in state if state[key].shape != wanted[key]
    ]
    if wrong:
        raise ConfigError(f"--weights {weights}: shapes that do not fit {arch}: {'; '.join(wrong[:3])}")


def _name_some(title: str, keys: list[str]) -> str:
    shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
    return f"{len(keys)} keys {title}" + (f" ({shown})" if keys else "")
