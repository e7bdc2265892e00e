"""Turns the description of a network (NetworkSpec) into a torch module that maps normalised images to two logits."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from maskfast.bundle.backbones import build_body, count_features
from maskfast.core.views import View

if TYPE_CHECKING:
    from torch import nn

CLASSES = 2
SCALES = (1e-6, 1e6)
"""What a deviation or a temperature may be: smaller and larger ones make zeros and infinities in float32."""
Scale = Annotated[float, Field(ge=SCALES[0], le=SCALES[1], allow_inf_nan=False)]
Mean = Annotated[float, Field(ge=-SCALES[1], le=SCALES[1], allow_inf_nan=False)]


class NetworkSpec(BaseModel):
    """All that is needed to build a network again in code, without its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arch: str
    head: Literal["concat", "mil"] = "concat"
    hidden: int = Field(default=512, ge=1, le=65536, description="width of the hidden layer of the head")
    dropout: float = Field(default=0.5, ge=0, lt=1)
    concat_pool: bool = Field(default=True, description="pool by maximum and mean, not by mean alone")
    sharpness: float = Field(
        default=2.0, gt=0, allow_inf_nan=False, description="of the soft maximum over places (head 'mil')"
    )
    learn_sharpness: bool = Field(default=False, description="train the sharpness with the weights (head 'mil')")
    parts: tuple["Part", ...] = Field(default=(), description="of an ensemble, whose `arch` is 'ensemble'")


class Part(BaseModel):
    """One trained network of an ensemble, with all that turns pictures of 0..1 into its calibrated answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: NetworkSpec
    size: int = Field(ge=32, le=1024)
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Scale, Scale, Scale]
    temperature: Scale
    weight: float = Field(gt=0, le=1)
    views: tuple[View, ...] = ("plain",)


def build_network(spec: NetworkSpec) -> "nn.Module":
    """Build the untrained network of `spec`: nn.Sequential(body, head), or the ensemble of its parts.

    Maps normalised images, float (N,3,H,W), to logits (N,2): [no_mask, mask]. Raises ConfigError for an unknown arch.
    """
    from torch import nn

    if spec.parts:
        from maskfast.bundle.layers import Ensemble

        return Ensemble([build_network(part.network) for part in spec.parts], spec.parts)
    return nn.Sequential(build_body(spec.arch), build_head(spec))


def build_head(spec: NetworkSpec, *, features: int | None = None) -> "nn.Module":
    """Build the head of `spec` alone, for `features` channels (default: as many as its backbone gives)."""
    channels = features or count_features(spec.arch)
    if spec.head == "concat":
        return _build_concat_head(spec, channels)
    from maskfast.bundle.layers import MilHead

    return MilHead(channels, spec.hidden, spec.dropout, spec.sharpness, learned=spec.learn_sharpness)


def _build_concat_head(spec: NetworkSpec, channels: int) -> "nn.Sequential":
    # The same places as in fastai.vision.learner.create_head, so that its state dicts load by key.
    from torch import nn

    from maskfast.bundle.layers import ConcatPool

    pooled = 2 * channels if spec.concat_pool else channels
    return nn.Sequential(
        ConcatPool() if spec.concat_pool else nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(pooled),
        nn.Dropout(spec.dropout / 2),
        nn.Linear(pooled, spec.hidden, bias=False),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(spec.hidden),
        nn.Dropout(spec.dropout),
        nn.Linear(spec.hidden, CLASSES, bias=False),
    )
