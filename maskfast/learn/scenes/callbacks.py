"""Place targets in a batch flow into a loss on the network's map of places, beside the loss of the whole picture."""

from typing import Any

from fastai.callback.core import Callback
from torch import Tensor, nn

from maskfast.learn.scenes.places import lose_places


class PlaceLoss(Callback):  # type: ignore[misc]
    """Add `weight` times the loss of the map of places (head "mil") to the loss of the pictures.

    The targets leave the batch before anything else sees it, so that losses, metrics and other callbacks find what
    they find in any fastai batch: pictures and classes.
    """

    order = 13  # after fastai has cast the batch, and after everything that lays it out

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self._targets: Tensor | None = None
        self._scores: Tensor | None = None
        self._hook: Any = None

    def before_fit(self) -> None:
        """Listen to the map."""
        if self.weight:
            self._hook = self.learn.model[1].score.register_forward_hook(self._keep)

    def after_fit(self) -> None:
        """Listen no more."""
        if self._hook is not None:
            self._hook.remove()

    def before_batch(self) -> None:
        """Take the targets out of the batch."""
        self._targets = self.learn.yb[1] if len(self.learn.yb) > 1 else None
        self.learn.yb = self.learn.yb[:1]

    def after_loss(self) -> None:
        """Add the loss of the places to what is learned from; the loss that is told stays that of the pictures."""
        if self.learn.training and self._targets is not None and self.weight:
            assert self._scores is not None, "the head ran"
            self.learn.loss_grad = self.learn.loss_grad + self.weight * lose_places(self._scores, self._targets)
        self._scores = self._targets = None

    def _keep(self, _head: nn.Module, _inputs: Any, scores: Tensor) -> None:
        self._scores = scores


class FrozenLayers(Callback):  # type: ignore[misc]
    """Leave the first layers of the body as they are: no gradients, and their statistics as they came."""

    order = 14

    def __init__(self, layers: list[nn.Module]) -> None:
        self.layers = layers

    def before_fit(self) -> None:
        """Ask for no gradients, whatever fastai's freezing asked for."""
        for layer in self.layers:
            layer.requires_grad_(False)

    def before_batch(self) -> None:
        """Use the statistics as they are."""
        for layer in self.layers:
            layer.eval()
