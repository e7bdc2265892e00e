"""A foreign fastai export goes in, read inertly; the draft of a bundle of the same network comes out."""

from pathlib import Path
from typing import Any, cast, get_args

from maskfast.bundle.fastai_export import Export, read_export
from maskfast.bundle.network import SCALES
from maskfast.bundle.rebuild import rebuild_export, swap_classes
from maskfast.bundle.store import Draft, hash_file
from maskfast.core.errors import BundleError, ConfigError
from maskfast.core.image import Method
from maskfast.core.views import SIZES
from maskfast.data.labels import read_label

NO_MEAN, NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
SOFTMAX_LOSSES = {
    "fastai.losses.CrossEntropyLossFlat",
    "fastai.losses.LabelSmoothingCrossEntropyFlat",
    "fastai.losses.LabelSmoothingCrossEntropy",
    "fastai.losses.FocalLossFlat",
    "fastai.losses.FocalLoss",
}


def draft_export(path: str | Path, *, positive: str | None = None, size: int | None = None) -> Draft:
    """Return a draft with the network, classes, size and normalisation of the fastai export at `path`.

    `positive` names its class that is the mask, where the spelling does not tell; `size` its input, where the export
    does not. Its probability is not calibrated: the temperature is 1. Raises BundleError or ConfigError.
    """
    export = read_export(path)
    spec, weights = rebuild_export(export)
    mask = find_mask(export, positive)
    return Draft(
        network=spec,
        state_dicts=[weights if mask == 1 else swap_classes(spec, weights)],
        **read_draft_fields(export, size),
    )


def read_draft_fields(export: Export, size: int | None) -> dict[str, Any]:
    """Return size, method, mean, std and config as a Draft has them; without a normalisation pixels stay in 0..1.

    The config says which file it was, by its sha256, and what in it is not known.
    """
    path = export.archive.path
    side, method = _choose_size(export, size)
    mean, std = _triple(export.mean) or NO_MEAN, _triple(export.std) or NO_STD
    if not all(abs(each) <= SCALES[1] for each in mean) or not all(SCALES[0] <= each <= SCALES[1] for each in std):
        raise BundleError(f"{path}: it normalises by the mean {mean} and the deviation {std}; export it anew")
    notes = [*export.notes, *([] if export.loss in SOFTMAX_LOSSES else [f"its loss is {export.loss or 'unknown'}"])]
    origin = {"converted_from": path.name, "sha256": hash_file(path), "classes": export.vocab, "notes": notes}
    return {"size": side, "method": method, "mean": mean, "std": std, "config": origin}


def _choose_size(export: Export, size: int | None) -> tuple[int, Method]:
    name = export.archive.path
    if export.method not in get_args(Method):
        known = ", ".join(get_args(Method))
        raise BundleError(f"{name}: its Resize has the method {export.method!r:.40}; known are {known}")
    method = cast(Method, export.method)
    if size is not None:
        return size, method
    if export.size is None:
        raise ConfigError(f"{name}: it does not say the size of its pictures; {_advise(name, '--size 224')}")
    width, height = export.size
    if width != height:
        raise BundleError(f"{name}: its pictures are {width} x {height}; only squares are scored")
    if not SIZES[0] <= width <= SIZES[1]:
        told = f"its pictures have {width} pixels a side, scored are {SIZES[0]} to {SIZES[1]}"
        raise BundleError(f"{name}: {told}; {_advise(name, '--size 64')}")
    return width, method


def _advise(name: Path, option: str) -> str:
    return f"make a bundle of it: maskfast convert {name} OUT {option}"


def find_mask(export: Export, positive: str | None) -> int:
    """Return the index of the class that is the mask."""
    name, vocab = export.archive.path, export.vocab
    if vocab is None or len(vocab) != 2:
        raise BundleError(f"{name}: its classes are {vocab!r:.200}; a network of two named classes is needed")
    if positive is not None and positive not in vocab:
        raise ConfigError(f"--positive {positive}: the classes of {name} are {_name_both(vocab)}")
    try:
        labels = [read_label(each, positive=positive) for each in vocab]
    except ValueError:
        labels = []
    if sorted(labels, key=str) != [0, 1]:
        raise ConfigError(f"{name}: which of {_name_both(vocab)} is the mask? {_advise(name, '--positive NAME')}")
    return labels.index(1)


def _name_both(vocab: list[str]) -> str:
    return f"{vocab[0]!r:.60} and {vocab[1]!r:.60}"


def _triple(values: tuple[float, ...] | None) -> tuple[float, float, float] | None:
    return None if values is None or len(values) != 3 else (values[0], values[1], values[2])
