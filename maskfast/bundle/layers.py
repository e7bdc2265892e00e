"""The few layers of our networks that torch lacks: feature maps (N,C,h,w) flow in, pooled features or logits flow out.

The one file of this floor that imports torch at its top, since classes must be importable by name for fastai's
export.pkl; it is itself imported only inside functions.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maskfast.bundle.views import average_views, make_view

if TYPE_CHECKING:
    from maskfast.bundle.network import Part


class ConcatPool(nn.Module):
    """Global max and mean of each channel side by side, (N,C,h,w) to (N,2C,1,1); fastai's AdaptiveConcatPool2d."""

    def forward(self, features: Tensor) -> Tensor:
        """Pool `features`; the maxima come first, as in fastai."""
        return torch.cat([features.amax((2, 3), keepdim=True), features.mean((2, 3), keepdim=True)], dim=1)


class LogSumExpPool(nn.Module):
    """A soft maximum over places, (N,1,h,w) to (N,): log(sum(exp(r * s))) / r, which a larger sharpness r hardens.

    After Pinheiro and Collobert, "From Image-level to Pixel-level Labeling with Convolutional Networks", CVPR 2015,
    whose equation 3 divides by the number of places; here a head's bias takes that part.
    """

    def __init__(self, sharpness: float = 2.0, *, learned: bool = False) -> None:
        super().__init__()
        start = torch.tensor(float(sharpness)).log()
        if learned:
            self.log_sharpness = nn.Parameter(start)
        else:
            self.register_buffer("log_sharpness", start)

    def forward(self, scores: Tensor) -> Tensor:
        """Pool the score map in float32, where the sum of exponentials is exact enough at any precision."""
        sharpness = self.log_sharpness.float().exp()
        return torch.logsumexp(scores.float().flatten(1) * sharpness, dim=1) / sharpness


class MilHead(nn.Module):
    """'At least one' as multiple-instance learning: 1x1 convolutions score every place, a soft maximum pools them."""

    START = -3.0
    """The score of a place before anything is learned: most places show no mask."""

    def __init__(self, features: int, hidden: int, dropout: float, sharpness: float, *, learned: bool) -> None:
        super().__init__()
        last = nn.Conv2d(hidden, 1, 1)
        nn.init.normal_(last.weight, std=0.02)
        nn.init.constant_(last.bias, self.START)  # type: ignore[arg-type]
        self.score = nn.Sequential(
            nn.Dropout2d(dropout / 2),
            nn.Conv2d(features, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            last,
        )
        self.pool = LogSumExpPool(sharpness, learned=learned)
        self.scale = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Feature maps (N,C,h,w) to logits (N,2) whose difference is the pooled score."""
        evidence = self.scale * self.pool(self.score(features)) + self.bias
        return torch.stack([-evidence / 2, evidence / 2], dim=1)


class Ensemble(nn.Module):
    """Several calibrated networks whose probabilities are averaged with weights: images of 0..1 to their logarithm."""

    def __init__(self, networks: Sequence[nn.Module], parts: "Sequence[Part]") -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.parts = tuple(parts)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N,3,H,W) of 0..1, not normalised, to the logarithm of the mean probabilities (N,2)."""
        logs = [self._answer(network, part, images) for network, part in zip(self.networks, self.parts, strict=True)]
        return torch.stack(logs).logsumexp(0)

    def _answer(self, network: nn.Module, part: "Part", images: Tensor) -> Tensor:
        scaled = make_view(images, f"plain@{part.size}")
        mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (part.mean, part.std))
        logits = average_views(network, (scaled - mean) / std, part.views)
        return (logits / part.temperature).log_softmax(1) + math.log(part.weight)


class TimmBody(nn.Module):
    """A timm network up to its feature map, (N,C,h,w) whatever the family; keys as in fastai's TimmBody."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N,3,H,W) to features; maps with channels last are turned, tokens are pooled timm's way."""
        model: nn.Module = self.model
        features: Tensor = model.forward_features(images)  # type: ignore[operator]
        channels = model.num_features
        if features.ndim == 3:
            pooled: Tensor = model.forward_head(features, pre_logits=True)  # type: ignore[operator]
            return pooled[:, :, None, None]
        return features if features.shape[1] == channels else features.permute(0, 3, 1, 2)


class PooledBody(nn.Module):
    """A whole network without its classifier, whose pooled features (N,C) become maps of one place (N,C,1,1)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N,3,H,W) to features (N,C,1,1)."""
        features: Tensor = self.model(images)
        return features.flatten(1)[:, :, None, None]
