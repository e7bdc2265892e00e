"""The inert tree of a fastai export goes in; what a network and its pictures need comes out, with what is uncertain."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskfast.bundle.pickles import Made, Pairs, Value
from maskfast.bundle.torch_zip import TorchZip, open_torch_zip
from maskfast.core.errors import BundleError

MAX_MODULES = 10_000
EXPECTED = (
    *("fastai.", "fastcore.", "fasttransform.", "torch.", "torchvision.", "timm.", "collections.", "PIL.", "pathlib."),
    *("inspect.", "functools.partial", "random.Random", "plum.", "typing.", "_codecs.encode", "os.PathLike"),
    *("numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.", "numpy._core.multiarray.", "pandas.Series"),
    *(f"__builtin__.{kind}" for kind in ("bytes", "float", "long", "print", "set", "tuple", "unicode")),
    *("builtins.set", "maskfast.bundle.layers.", "maskfast.learn.adam.", "maskfast.learn.augment."),
    *(
        "maskfast.learn.blocks.",
        "maskfast.learn.learner.split_parameters",
        "maskfast.learn.loader.",
        "maskfast.learn.scenes.loader.",
    ),
)
"""How the names begin that every export of fastai, or of ours, refers to."""
OUR_READER = "maskfast.learn.blocks.PictureReader"
OUR_SHRINK = "maskfast.learn.blocks.Shrink"
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
HARMLESS = {
    "fastai.data.transforms.ToTensor",
    "fastai.data.transforms.IntToFloatTensor",
    "fastai.data.transforms.Normalize",
    "fastai.vision.augment.Resize",
    "fastai.vision.augment.Flip",
    "fastai.vision.augment.Dihedral",
    "fastai.vision.augment.Brightness",
    "fastai.vision.augment.Contrast",
    "fastai.vision.augment.Rotate",
    "fastai.vision.augment.Zoom",
    "fastai.vision.augment.Warp",
    "fastai.vision.augment.Saturation",
    "fastai.vision.augment.Hue",
    "fastai.vision.augment.RandomErasing",
    "fastai.vision.augment.AffineCoordTfm",
    "fastai.vision.augment.LightingTfm",
}
"""Transforms that leave a validation picture as it is, or that are looked at here."""


@dataclass
class Module:
    """One layer of the exported network: its class, its plain settings, and its tensors' places in the pickle."""

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Value] = field(default_factory=dict)
    hooked: bool = False
    architecture: str = ""


@dataclass
class Export:
    """What an export.pkl says; None is what it does not say."""

    archive: TorchZip
    kind: str
    modules: dict[str, Module] = field(default_factory=dict)
    vocab: list[str] | None = None
    size: tuple[int, int] | None = None
    method: str = "crop"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    loss: str = ""
    notes: list[str] = field(default_factory=list)

    def count_parameters(self) -> int:
        """Return the number of values in all tensors of the network."""
        shapes = (node_shape(node) for module in self.modules.values() for node in module.tensors.values())
        return sum(shapes)


def read_export(path: str | Path) -> Export:
    """Read the fastai export at `path` without importing or calling anything that it names.

    Raises BundleError for what is no archive of torch.save; a file that holds no Learner has no modules.
    """
    archive = open_torch_zip(path)
    root = archive.pickle.value
    export = Export(archive, root.kind if isinstance(root, Made) else type(root).__name__)
    state = dict(_entries(root.state)) if isinstance(root, Made) else {}
    if "model" not in state:
        return export
    export.modules = dict(_walk_modules(state["model"], str(path)))
    export.loss = getattr(state.get("loss_func"), "kind", "")
    _read_loaders(export, state.get("dls"))
    return export


def node_shape(node: Value) -> int:
    """Return how many values the tensor of `node` has by its description, 0 where it is none."""
    while isinstance(node, Made) and isinstance(node.args, tuple) and node.args and isinstance(node.args[0], Made):
        node = node.args[0]
    if not isinstance(node, Made) or not isinstance(node.args, tuple) or len(node.args) < 3:
        return 0
    size = 1
    for length in node.args[2] if isinstance(node.args[2], tuple) else ():
        size *= length if type(length) is int and 0 <= length < 2**32 else 0
    return size


def _entries(value: Value) -> list[tuple[str, Value]]:
    """Return the text keys and values of a dictionary, an OrderedDict or an object's state."""
    if not isinstance(value, Pairs | Made):
        return []
    pairs = list(value.pairs)
    if isinstance(value, Made) and isinstance(value.args, tuple) and value.args and isinstance(value.args[0], list):
        pairs += [tuple(item) for item in value.args[0] if isinstance(item, list | tuple) and len(item) == 2]
    return [(key, item) for key, item in pairs if type(key) is str]


def _get(value: Value, *names: str) -> Value:
    """Return what lies under `names` in the states of nested objects, None where the way ends."""
    for name in names:
        value = dict(_entries(value.state)).get(name) if isinstance(value, Made) else None
    return value


def _list_items(value: Value) -> list[Value]:
    """Return the items of a list, a tuple, or fastcore's L."""
    if isinstance(value, Made):
        value = value.items or _get(value, "items") or (value.args[0] if value.args else [])
    return list(value) if isinstance(value, list | tuple) else []


def _walk_modules(root: Value, name: str) -> Iterator[tuple[str, Module]]:
    waiting: list[tuple[str, Value]] = [("", root)]
    count = 0
    while waiting:
        place, node = waiting.pop()
        count += 1
        if count > MAX_MODULES or place.count(".") > 100:
            raise BundleError(f"{name}: its network has more than {MAX_MODULES} layers, or they are nested too deep")
        if not isinstance(node, Made) or not node.kind:
            raise BundleError(
                f"{name}: layer {place or 'model'} is no plain object; what it is cannot be known inertly"
            )
        state = dict(_entries(node.state))
        yield place, _read_module(node.kind, state)
        prefix = f"{place}." if place else ""
        waiting += [(prefix + key, child) for key, child in _entries(state.get("_modules")) if child is not None]


def _read_module(kind: str, state: dict[str, Value]) -> Module:
    module = Module(kind, hooked=any(_entries_any(state.get(hook)) for hook in HOOKS) or "forward" in state)
    hidden = {item for item in _list_items(state.get("_non_persistent_buffers_set")) if type(item) is str}
    for group in ("_parameters", "_buffers"):
        for key, node in _entries(state.get(group)):
            if node is not None and key not in hidden:
                module.tensors[key] = node
    for key, value in state.items():
        if not key.startswith("_") and _is_plain(value):
            module.settings[key] = value
    architecture = (
        state["pretrained_cfg"].get("architecture") if isinstance(state.get("pretrained_cfg"), Pairs) else None
    )
    module.architecture = architecture if type(architecture) is str and len(architecture) < 100 else ""
    return module


def _entries_any(value: Value) -> bool:
    return isinstance(value, Pairs | Made) and bool(value.pairs)


def _is_plain(value: Value) -> bool:
    if isinstance(value, tuple):
        return len(value) <= 8 and all(type(item) in (int, float, bool, str) for item in value)
    return type(value) in (int, float, bool, str)


def _read_loaders(export: Export, dls: Value) -> None:
    loaders = _list_items(_get(dls, "loaders"))
    if not loaders:
        export.notes.append("it holds no data loaders, so its size, normalisation and classes are not known")
        return
    # fastai's predict runs the second loader's transforms, the one of the validation set
    loader = loaders[min(1, len(loaders) - 1)]
    for step in ("after_item", "before_batch", "after_batch"):
        for transform in _list_items(_get(loader, step, "fs")):
            _read_transform(export, transform)
    for transforms in _list_items(_get(loader, "dataset", "tls")):
        for transform in _list_items(_get(transforms, "tfms", "fs")):
            _read_type_transform(export, transform)


def _read_transform(export: Export, transform: Value) -> None:
    kind = transform.kind if isinstance(transform, Made) else ""
    state = dict(_entries(transform.state)) if isinstance(transform, Made) else {}
    if kind == "fastai.vision.augment.Resize":
        _take_size(export, state.get("size"), state.get("method"))
    elif kind == "fastai.data.transforms.Normalize":
        export.mean, export.std = (_read_channels(export.archive, state.get(key)) for key in ("mean", "std"))
    elif kind == "fastai.data.transforms.IntToFloatTensor" and state.get("div") != 255.0:
        export.notes.append("its pixels are not divided by 255")
    elif kind == OUR_SHRINK and state.get("size") is None:
        return  # it scales in training alone
    elif kind in HARMLESS:
        if (size := _read_size(state.get("size"))) is not None:
            export.size = size
            export.notes.append(f"{kind} scales on the GPU to {size[0]} x {size[1]}; ours scales as Pillow does")
    elif state.get("split_idx") != 0:
        export.notes.append(f"the transform {kind or '(unknown)'} is not applied")


def _read_type_transform(export: Export, transform: Value) -> None:
    """Take the classes from the transform that knows them, and size and method where pictures are read to size."""
    names = _list_items(_get(transform, "vocab", "items") or _get(transform, "vocab"))
    if export.vocab is None and names and all(type(name) in (str, int, bool) for name in names):
        export.vocab = [str(name) for name in names]
    if isinstance(transform, Made) and transform.kind == OUR_READER:
        side = _get(transform, "size")
        _take_size(export, [side, side], _get(transform, "method"))


def _take_size(export: Export, size: Value, method: Value) -> None:
    export.size = _read_size(size)
    export.method = method if type(method) is str else "crop"


def _read_size(value: Value) -> tuple[int, int] | None:
    items = _list_items(value)
    sizes = [item for item in items if type(item) is int and 0 < item < 2**16]
    return (sizes[0], sizes[1]) if len(sizes) == 2 == len(items) else None


def _read_channels(archive: TorchZip, node: Value) -> tuple[float, ...] | None:
    array = archive.read_tensor(node)
    return None if array is None or array.size != 3 else tuple(float(each) for each in array.ravel())


def list_unknown_names(export: Export) -> list[str]:
    """Return the names that the pickle refers to outside the packages that an honest export needs."""
    return sorted(name for name in export.archive.pickle.names if not name.startswith(EXPECTED))
