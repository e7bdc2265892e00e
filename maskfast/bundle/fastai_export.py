"""The inert tree of a fastai export goes in; what a network and its pictures need comes out, with what is uncertain."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from maskfast.bundle.pickles import Made, Pairs, Value
from maskfast.bundle.torch_zip import TorchZip, count_values, open_torch_zip
from maskfast.bundle.trees import TreeReader
from maskfast.core.errors import BundleError, MaskfastError

MAX_MODULES = 10_000
MAX_PLACE = 500
"""Characters of a layer's place, as 0.4.1.conv1; honest ones have less than a hundred."""
MAX_TENSORS = 20_000
MAX_TRANSFORMS = 200
MAX_STATISTICS = 2**20
"""Bytes of the storage that a mean or a standard deviation lies in."""
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
STEPS = ("after_item", "before_batch", "after_batch")
"""Where a loader has the transforms of pictures."""
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
        return sum(count_values(node) for module in self.modules.values() for node in module.tensors.values())


def read_export(path: str | Path) -> Export:
    """Read the fastai export at `path` without importing or calling anything that it names.

    Raises BundleError for what is no archive of torch.save, or is larger or stranger than an export can be; a file that
    holds no Learner has no modules.
    """
    try:
        return _read_archive(open_torch_zip(path))
    except MaskfastError:
        raise
    except Exception as error:  # a stranger's file ends in one line, whatever it makes of this reader
        raise BundleError(f"{path}: cannot be read: {type(error).__name__}; it is damaged or no export") from error


def _read_archive(archive: TorchZip) -> Export:
    root, reader = archive.pickle.value, TreeReader(str(archive.path))
    export = Export(archive, root.kind if isinstance(root, Made) else type(root).__name__)
    state = reader.read_state(root)
    if "model" not in state:
        return export
    export.modules = dict(_walk_modules(reader, state["model"]))
    if sum(len(module.tensors) for module in export.modules.values()) > MAX_TENSORS:
        raise BundleError(f"{archive.path}: its network has more than {MAX_TENSORS} tensors")
    loss = state.get("loss_func")
    export.loss = loss.kind if isinstance(loss, Made) else ""
    _read_loaders(reader, export, state.get("dls"))
    return export


def _walk_modules(reader: TreeReader, root: Value) -> Iterator[tuple[str, Module]]:
    waiting: list[tuple[str, Value]] = [("", root)]
    count = 0
    while waiting:
        place, node = waiting.pop()
        count += 1
        if not isinstance(node, Made) or not node.kind:
            raise BundleError(
                f"{reader.name}: layer {place or 'model'} is no plain object; what it is cannot be known inertly"
            )
        state = reader.read_state(node)
        yield place, _read_module(reader, node.kind, state)
        prefix = f"{place}." if place else ""
        entries = reader.list_entries(state.get("_modules"))
        children = {key: child for key, child in entries.items() if child is not None}
        if count + len(waiting) + len(children) > MAX_MODULES:
            raise BundleError(f"{reader.name}: its network has more than {MAX_MODULES} layers")
        if any(len(prefix) + len(key) > MAX_PLACE for key in children):
            raise BundleError(f"{reader.name}: its layers are nested too deep, or have names too long")
        waiting += [(prefix + key, child) for key, child in children.items()]


def _read_module(reader: TreeReader, kind: str, state: dict[str, Value]) -> Module:
    module = Module(kind, hooked=any(_holds_any(state.get(hook)) for hook in HOOKS) or "forward" in state)
    hidden = {item for item in reader.list_items(state.get("_non_persistent_buffers_set")) if type(item) is str}
    for group in ("_parameters", "_buffers"):
        for key, node in reader.list_entries(state.get(group)).items():
            if node is not None and key not in hidden:
                module.tensors[key] = node
    for key, value in state.items():
        if not key.startswith("_") and _is_plain(value):
            module.settings[key] = value
    configured = state.get("pretrained_cfg")
    architecture = reader.list_entries(configured).get("architecture") if isinstance(configured, Pairs) else None
    module.architecture = architecture if type(architecture) is str and len(architecture) < 100 else ""
    return module


def _holds_any(value: Value) -> bool:
    """Say whether a dictionary or an OrderedDict may hold anything."""
    if isinstance(value, Made):
        return bool(value.pairs or value.items or value.state is not None or value.args != ())
    return isinstance(value, Pairs) and bool(value.pairs)


def _is_plain(value: Value) -> bool:
    if isinstance(value, tuple):
        return len(value) <= 8 and all(type(item) in (int, float, bool, str) for item in value)
    return type(value) in (int, float, bool, str)


def _read_loaders(reader: TreeReader, export: Export, dls: Value) -> None:
    loaders = reader.list_items(reader.get(dls, "loaders"))
    if not loaders:
        export.notes.append("it holds no data loaders, so its size, normalisation and classes are not known")
        return
    # fastai's predict runs the second loader's transforms, the one of the validation set
    loader = loaders[min(1, len(loaders) - 1)]
    steps = [reader.list_items(reader.get(loader, step, "fs")) for step in STEPS]
    if sum(map(len, steps)) > MAX_TRANSFORMS:
        raise BundleError(f"{reader.name}: its pictures go through more than {MAX_TRANSFORMS} transforms")
    for transform in chain.from_iterable(steps):
        _read_transform(reader, export, transform)
    for transforms in reader.list_items(reader.get(loader, "dataset", "tls")):
        for transform in reader.list_items(reader.get(transforms, "tfms", "fs")):
            _read_type_transform(reader, export, transform)


def _read_transform(reader: TreeReader, export: Export, transform: Value) -> None:
    kind = transform.kind if isinstance(transform, Made) else ""
    state = reader.read_state(transform)
    if kind == "fastai.vision.augment.Resize":
        _take_size(reader, export, state.get("size"), state.get("method"))
    elif kind == "fastai.data.transforms.Normalize":
        export.mean, export.std = (_read_channels(export.archive, state.get(key)) for key in ("mean", "std"))
    elif kind == "fastai.data.transforms.IntToFloatTensor" and state.get("div") != 255.0:
        export.notes.append("its pixels are not divided by 255")
    elif kind == OUR_SHRINK and state.get("size") is None:
        return  # it scales in training alone
    elif kind in HARMLESS:
        if (size := _read_size(reader, state.get("size"))) is not None:
            export.size = size
            export.notes.append(f"{kind} scales on the GPU to {size[0]} x {size[1]}; ours scales as Pillow does")
    elif state.get("split_idx") != 0:
        export.notes.append(f"the transform {kind or '(unknown)'} is not applied")


def _read_type_transform(reader: TreeReader, export: Export, transform: Value) -> None:
    """Take the classes from the transform that knows them, and size and method where pictures are read to size."""
    names = reader.list_items(reader.get(transform, "vocab", "items") or reader.get(transform, "vocab"))
    if export.vocab is None and names and all(type(name) in (str, int, bool) for name in names):
        export.vocab = [str(name) for name in names]
    if isinstance(transform, Made) and transform.kind == OUR_READER:
        side = reader.get(transform, "size")
        _take_size(reader, export, [side, side], reader.get(transform, "method"))


def _take_size(reader: TreeReader, export: Export, size: Value, method: Value) -> None:
    export.size = _read_size(reader, size)
    export.method = method if type(method) is str else "crop"


def _read_size(reader: TreeReader, value: Value) -> tuple[int, int] | None:
    items = reader.list_items(value)
    sizes = [item for item in items if type(item) is int and 0 < item < 2**16]
    return (sizes[0], sizes[1]) if len(sizes) == 2 == len(items) else None


def _read_channels(archive: TorchZip, node: Value) -> tuple[float, ...] | None:
    array = archive.read_tensor(node, largest=MAX_STATISTICS)
    return None if array is None or array.size != 3 else tuple(float(each) for each in array.ravel())


def list_unknown_names(export: Export) -> list[str]:
    """Return the names that the pickle refers to outside the packages that an honest export needs."""
    return sorted(name for name in export.archive.pickle.names if not name.startswith(EXPECTED))
