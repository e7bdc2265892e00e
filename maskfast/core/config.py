"""One typed model of everything a training run can be told; flags, JSON and TOML files all end here."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainConfig(BaseModel):
    """The options of one training run; the resolved one is saved with the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arch: str = "resnet34"
    weights: str = Field(default="imagenet", description="'imagenet', 'none', or the path of a weights file")
    size: int = Field(default=224, ge=32, le=1024, description="side of the square input, in pixels")
    method: Literal["squish", "pad", "crop"] = "squish"
    head: Literal["concat", "mil"] = "concat"
    dropout: float = Field(default=0.5, ge=0, lt=1)
    frozen_epochs: int = Field(default=1, ge=0, description="epochs that train only the head, before `epochs`")
    epochs: int = Field(default=4, ge=0, description="epochs that train the whole network")
    batch_size: int = Field(default=32, ge=1)
    lr: float | Literal["auto"] = "auto"
    weight_decay: float = Field(default=0.01, ge=0)
    valid: float = Field(default=0.2, gt=0, lt=1, description="part of the groups kept for validation")
    folds: int = Field(default=0, ge=0, description="0 trains once; 2 or more trains that many folds")
    augment: Literal["default", "strong", "classic", "none"] = "default"
    mixup: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    seed: int = 0
    out: Path = Path("export/model")
