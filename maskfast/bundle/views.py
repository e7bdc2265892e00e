"""Normalised pictures flow in, the logits of all views flow out as one: the same sums in training, torch and ONNX."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from maskfast.core.views import parse_view

if TYPE_CHECKING:
    from torch import Tensor


def average_views(network: "Callable[[Tensor], Tensor]", images: "Tensor", views: Sequence[str]) -> "Tensor":
    """Return the mean over `views` of the network's logits (N, 2), in float32, for normalised images (N, 3, H, W).

    Logits and not probabilities are averaged, so that one temperature divides the mean as it would each view. Views of
    one size go through the network together.
    """
    import torch

    alike: dict[int, list[Tensor]] = {}
    for view in views:
        shown = make_view(images, view)
        alike.setdefault(shown.shape[-1], []).append(shown)
    logits = [
        network(torch.cat(several) if len(several) > 1 else several[0]).float().reshape(len(several), -1, 2)
        for several in alike.values()
    ]
    return torch.cat(logits).mean(0)


def make_view(images: "Tensor", view: str) -> "Tensor":
    """Return images (N, 3, H, W) as `view` shows them: mirrored, scaled (bilinear, antialiased), or as they are."""
    from torch.nn import functional as F  # noqa: N812  the name everybody knows

    flip, size = parse_view(view)
    turned = images.flip(3) if flip else images
    if size is None or images.shape[-1] == size:
        return turned
    return F.interpolate(turned, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
