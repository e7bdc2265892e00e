"""The few layers of our networks that torch lacks: feature maps (N,C,h,w) flow in, pooled features or logits flow out.

The one file of this floor that imports torch at its top, since classes must be importable by name for fastai's
export.pkl; it is itself imported only inside functions.
"""

import torch
from torch import Tensor, nn


class ConcatPool(nn.Module):
    """Global max and mean of each channel side by side, (N,C,h,w) to (N,2C,1,1); fastai's AdaptiveConcatPool2d."""

    def forward(self, features: Tensor) -> Tensor:
        """Pool `features`; the maxima come first, as in fastai."""
        return torch.cat([features.amax((2, 3), keepdim=True), features.mean((2, 3), keepdim=True)], dim=1)


class LogSumExpPool(nn.Module):
    """A soft maximum over places, (N,1,h,w) to (N,): log(mean(exp(r * s))) / r.

    With sharpness r near 0 it is the mean, with a large r the maximum; Pinheiro and Collobert,
    "From Image-level to Pixel-level Labeling with Convolutional Networks", CVPR 2015, equation 3.
    """

    def __init__(self, sharpness: float = 4.0, *, learned: bool = False) -> None:
        super().__init__()
        start = torch.tensor(float(sharpness)).log()
        if learned:
            self.log_sharpness = nn.Parameter(start)
        else:
            self.register_buffer("log_sharpness", start)

    def forward(self, scores: Tensor) -> Tensor:
        """Pool the score map in float32, where the sum of exponentials is exact enough at any precision."""
        sharpness = self.log_sharpness.float().exp()
        flat = scores.float().flatten(1)
        return (torch.logsumexp(flat * sharpness, dim=1) - torch.log(torch.tensor(float(flat.shape[1])))) / sharpness


class MilHead(nn.Module):
    """'At least one' as multiple-instance learning: 1x1 convolutions score every place, a soft maximum pools them."""

    def __init__(self, features: int, hidden: int, dropout: float, sharpness: float, *, learned: bool) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.BatchNorm2d(features),
            nn.Dropout2d(dropout / 2),
            nn.Conv2d(features, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(hidden, 1, 1),
        )
        self.pool = LogSumExpPool(sharpness, learned=learned)

    def forward(self, features: Tensor) -> Tensor:
        """Feature maps (N,C,h,w) to logits (N,2) whose difference is the pooled score."""
        evidence = self.pool(self.score(features))
        return torch.stack([-evidence / 2, evidence / 2], dim=1)


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
