"""Normalised pictures flow in, the logits of all views flow out as one: the same sums in training, torch and ONNX."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from maskfast.core.views import parse_view

if TYPE_CHECKING:
    from torch import Tensor


def average_views(network: "Callable[[Tensor], Tensor]", images: "Tensor", views: Sequence[str]) -> "Tensor":
    """Return the mean over `views` of the network's logits (N, 2), in float32, for normalised images (N, 3, H, W).

    Logits and not probabilities are averaged, so that one temperature divides the mean as it would each view.
    """
    import torch

    logits = [network(make_view(images, view)).float() for view in views]
    return logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)


def make_view(images: "Tensor", view: str) -> "Tensor":
    """Return images (N, 3, H, W) as `view` shows them: mirrored, scaled (bilinear, antialiased), or as they are."""
    from torch.nn import functional as F  # noqa: N812  the name everybody knows

    flip, size = parse_view(view)
    turned = images.flip(3) if flip else images
    if size is None or images.shape[-1] == size:
        return turned
    return F.interpolate(turned, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
