"""Networks and a manifest go in; one module from uint8 pictures to logits and calibrated probability comes out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskfast.bundle.manifest import Manifest
from maskfast.bundle.views import average_views

if TYPE_CHECKING:
    from torch import Tensor, nn


def make_scorer(networks: "Sequence[nn.Module]", manifest: Manifest) -> "nn.Module":
    """Return a module from images (N, size, size, 3) uint8 to logits (N, 2) and the probability of a mask (N,).

    The same module is exported to ONNX and run by the torch backend, so that normalisation, temperature, views and the
    mean over members are written once. With one member the logits are the network's own (their mean over the views),
    before the temperature; with several they are the logarithm of the mean probability of the classes.
    """
    import torch
    from torch import nn

    class Scorer(nn.Module):
        mean: "Tensor"
        std: "Tensor"

        def __init__(self) -> None:
            super().__init__()
            self.members = nn.ModuleList(networks)
            # a whole row of pixels long: with three numbers at a time runtimes take several times as long
            self.register_buffer("mean", torch.tensor(manifest.mean).repeat(manifest.size))
            self.register_buffer("std", torch.tensor(manifest.std).repeat(manifest.size))

        def forward(self, images: "Tensor") -> "tuple[Tensor, Tensor]":
            rows = (images.flatten(2).float() / 255.0 - self.mean) / self.std
            plain = rows.reshape(images.shape).permute(0, 3, 1, 2)
            logits = [average_views(member, plain, manifest.views) for member in self.members]
            if len(logits) == 1:
                return logits[0], (logits[0] / manifest.temperature).softmax(1)[:, 1]
            logs = torch.stack([(each / manifest.temperature).log_softmax(1) for each in logits])
            mean = logs.logsumexp(0) - torch.tensor(float(len(logits))).log()
            return mean, mean.exp()[:, 1]

    return Scorer().eval()


def fold_norms(network: "nn.Module") -> "nn.Module":
    """Return a copy in evaluation mode with batch norms folded into the convolutions before them, or the same network.

    The answers are the same but for rounding. It is the same network where torch cannot trace it: where its forward
    depends on values.
    """
    from torch.fx.experimental.optimization import fuse
    from torch.fx.proxy import TraceError

    try:
        return fuse(network.eval())
    except (TraceError, TypeError, AttributeError):
        return network
