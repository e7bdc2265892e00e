"""One typed model of everything a training run can be told; flags, JSON and TOML files all end here."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskfast.core.errors import ConfigError
from maskfast.core.views import View

MAX_EPOCHS = 100_000


class TrainConfig(BaseModel):
    """The options of one training run; the resolved one is saved with the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # What is learned from
    data: tuple[str, ...] = Field(default=(), description="folders, tables or zips of labelled pictures")
    positive: str | None = Field(default=None, description="the class or folder that is 'mask', where unclear")
    classes: dict[str, Literal["mask", "no_mask", "ignored"]] = Field(
        default={}, description="what classes of boxes say, where they are not known"
    )
    drop: Path | None = Field(default=None, description="a table of images to leave out (column `image`)")
    valid: float = Field(default=0.2, gt=0, lt=1, description="part of the pictures kept for validation, by groups")
    folds: int = Field(default=0, ge=0, le=50, description="0 trains once; 2 or more train so often and are averaged")

    # The network
    arch: str = Field(default="resnet34", description="a name `maskfast models` lists, or any torchvision or timm name")
    weights: str = Field(default="imagenet", description="'imagenet', 'none', or the path of a weights file")
    size: int | None = Field(default=None, ge=32, le=1024, description="side in pixels; default: the network's own")
    method: Literal["squish", "pad", "crop"] = Field(default="squish", description="how pictures become squares")
    head: Literal["concat", "mil"] = Field(default="concat", description="'mil' scores places: for whole scenes")
    hidden: int = Field(default=512, ge=1, le=65536, description="width of the head's hidden layer")
    dropout: float = Field(default=0.5, ge=0, lt=1)
    sharpness: float = Field(default=2.0, gt=0, description="of the soft maximum over places (head 'mil')")
    learn_sharpness: bool = Field(default=False, description="train the sharpness too (head 'mil')")

    # The recipe
    frozen_epochs: int = Field(
        default=1, ge=0, le=MAX_EPOCHS, description="epochs that train only the head, where it is pretrained"
    )
    epochs: int = Field(default=4, ge=0, le=MAX_EPOCHS, description="epochs that train the whole network")
    batch_size: int = Field(default=32, ge=2, le=65536)
    lr: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        default="auto", description="highest rate of the head; 'auto' searches it"
    )
    lr_mult: float = Field(default=100.0, ge=1, description="the first layers learn so many times slower than the head")
    optimizer: Literal["auto", "adam", "sgd", "muon"] = Field(
        default="auto", description="'auto': sgd for simple_cnn, else adam; 'muon' is for training from scratch"
    )
    weight_decay: float = Field(default=0.01, ge=0)
    augment: Literal["default", "strong", "classic", "challenge", "scenes", "light", "none"] = "default"
    mixup: float = Field(default=0.0, ge=0, description="alpha of mixup; 0 is off")
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    balance: Literal["none", "weights", "sampling"] = Field(default="none", description="against unequal classes")
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay of averaged weights a step; 0 is off")
    stem: int = Field(default=0, ge=0, description="so many first layers stay as pretrained: faster")
    scenes: int = Field(default=0, ge=0, description="made scenes an epoch, from boxed faces, in place of the pictures")
    scene_sizes: tuple[int, ...] = Field(
        default=(256, 320, 384), description="sides they are made with, multiples of 32"
    )
    places: float = Field(default=0.5, ge=0, description="weight of the loss of places in made scenes (head 'mil')")
    calibration: Literal["temperature", "balanced"] = Field(
        default="temperature", description="'balanced': an offset too, each class of each source weighing the same"
    )
    early_stop: int = Field(default=0, ge=0, description="stop after so many epochs without progress; 0 never")
    progressive: tuple[Annotated[int, Field(ge=32, le=1024)], ...] = Field(
        default=(), description="smaller sizes for equal first parts of the epochs"
    )
    views: tuple[View, ...] = Field(
        default=("plain",),
        min_length=1,
        description="averaged at every prediction: plain, flip, or at another size: plain@256",
    )
    recall: float | None = Field(
        default=None, gt=0, le=1, description="choose the threshold to find this part of masks"
    )
    cost_miss: float | None = Field(default=None, gt=0, description="cost of a missed mask, for choosing the threshold")
    cost_false_alarm: float | None = Field(default=None, gt=0, description="cost of a false alarm, likewise")

    # The machine
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'"
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        le=1024,
        description="processes that load pictures; default: none with the cache, else measured",
    )
    cache: bool = Field(default=True, description="decode pictures once, into a cache that later runs share")
    deterministic: bool = Field(default=False, description="only algorithms that repeat bit for bit on a GPU")
    checkpoint_minutes: float = Field(default=5.0, gt=0, description="save a resumable state at least so often")
    track: Literal["none", "tensorboard", "wandb"] = Field(default="none", description="record the run there")
    seed: int = Field(default=0, ge=0, lt=2**32)
    out: Path = Field(default=Path("export/model"), description="the bundle's folder")

    @model_validator(mode="after")
    def _check_together(self) -> "TrainConfig":
        if self.folds == 1:
            raise ValueError("folds: 1 leaves nothing to validate on; say 0, or 2 or more")
        self._check_scenes()
        if self.recall is not None and (self.cost_miss or self.cost_false_alarm):
            raise ValueError("recall: a threshold is chosen for a recall or for costs, not for both")
        if self.epochs + self.frozen_epochs == 0:
            raise ValueError("epochs: 0 epochs train nothing; say 1 or more")
        return self

    def _check_scenes(self) -> None:
        if self.head != "mil" and (self.scenes or self.calibration == "balanced"):
            told = "scenes: made scenes teach places" if self.scenes else "calibration: 'balanced' needs an offset"
            raise ValueError(f"{told}; say head 'mil' with it")
        unfit = {
            "method": self.method != "squish",
            "mixup": self.mixup > 0,
            "progressive": bool(self.progressive),
            "balance": self.balance == "sampling",
        }
        for name in (name for name, is_told in unfit.items() if self.scenes and is_told):
            raise ValueError(f"{name}: {getattr(self, name)} can't be used with made scenes; leave it out")
        if not self.scene_sizes or any(size % 32 or not 32 <= size <= 1024 for size in self.scene_sizes):
            raise ValueError(f"scene_sizes: seen {list(self.scene_sizes)}; say multiples of 32 from 32 to 1024")


def make_config(options: dict[str, Any], *, origin: str = "") -> TrainConfig:
    """Check `options` and return the whole configuration.

    `origin` names the file or flags the options came from. Raises ConfigError naming the first wrong option: an
    unknown one with the nearest known name, a wrong type or range with the value seen.
    """
    unknown = [name for name in options if name not in TrainConfig.model_fields]
    if unknown:
        raise ConfigError(f"{_prefix(origin)}{unknown[0]}: is no option{suggest(unknown[0])}")
    try:
        return TrainConfig(**options)
    except ValidationError as error:
        raise ConfigError(_prefix(origin) + _describe(error)) from error


def suggest(name: str) -> str:
    """Say which known option `name` may mean: "; did you mean epochs?", or nothing."""
    near = get_close_matches(name.lower(), list(TrainConfig.model_fields), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "; `maskfast train --help` lists them"


def _prefix(origin: str) -> str:
    return f"{origin}: " if origin else ""


def _describe(error: ValidationError) -> str:
    first = error.errors()[0]
    if not first["loc"]:
        return str(first["msg"]).removeprefix("Value error, ")
    seen = repr(first["input"])
    return f"{first['loc'][0]}: seen {seen[:60]}; {first['msg'][:1].lower()}{first['msg'][1:]}"
