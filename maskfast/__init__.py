"""maskfast: does this picture contain at least one person wearing a face mask? A calibrated probability, with fastai.

The public names are loaded when first used (PEP 562), so that `import maskfast` takes milliseconds and a machine that
only scores never imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from maskfast._version import __version__

_HOME = {
    "load_image": "maskfast.core.image",
    "MaskfastError": "maskfast.core.errors",
    "TrainConfig": "maskfast.core.config",
    "read_items": "maskfast.data.tables",
    "load": "maskfast.score.loading",
    "Predictor": "maskfast.score.predictor",
    "Prediction": "maskfast.score.predictor",
    "get_transforms": "maskfast.learn.augment",
    "mask_datablock": "maskfast.learn.blocks",
    "make_dls": "maskfast.learn.blocks",
    "make_learner": "maskfast.learn.learner",
    "find_lr": "maskfast.learn.learner",
    "train_learner": "maskfast.learn.train",
}

__all__ = [
    "MaskfastError",
    "Prediction",
    "Predictor",
    "TrainConfig",
    "__version__",
    "find_lr",
    "get_transforms",
    "load",
    "load_image",
    "make_dls",
    "make_learner",
    "mask_datablock",
    "read_items",
    "train_learner",
]

if TYPE_CHECKING:
    from maskfast.core.config import TrainConfig
    from maskfast.core.errors import MaskfastError
    from maskfast.core.image import load_image
    from maskfast.data.tables import read_items
    from maskfast.learn.augment import get_transforms
    from maskfast.learn.blocks import make_dls, mask_datablock
    from maskfast.learn.learner import find_lr, make_learner
    from maskfast.learn.train import train_learner
    from maskfast.score.loading import load
    from maskfast.score.predictor import Prediction, Predictor


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'maskfast' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
