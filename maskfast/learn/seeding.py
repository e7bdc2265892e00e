"""Randomness from counters: a seed, a fold, an epoch and a step flow in; what is drawn follows from them alone.

So the same run can be repeated with any number of workers, and taken up again at any batch.
"""

import hashlib
import random

import numpy as np
import torch
from fastai.callback.core import Callback

from maskfast.learn.loader import PictureLoader
from maskfast.learn.ranks import get_rank


def mix_seed(*parts: int | str) -> int:
    """A seed of 63 bits that follows from all `parts`; other parts give an unrelated one."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class Seeding(Callback):  # type: ignore[misc]
    """Seed the order, the transforms and the network's own draws of each batch from where it stands in the run."""

    order = -20  # before anything that draws

    def __init__(self, *stream: int | str) -> None:
        self.stream = stream
        self.own = (f"rank {get_rank()}",) if get_rank() else ()

    def before_train(self) -> None:
        """Seed an epoch; a loader that leaves out batches begins with the transforms of the first it gives."""
        seed_all(mix_seed(*self.stream, self.learn.epoch))
        loader = self.learn.dls.train
        if isinstance(loader, PictureLoader):
            loader.reseed(mix_seed(*self.stream, self.learn.epoch, "order"))
            loader.seed_batch(mix_seed(*self.stream, self.learn.epoch, "varied", loader.skip_batches, *self.own))

    def before_batch(self) -> None:
        """Seed the network's draws of this batch, and the transforms of the next."""
        if not self.learn.training:
            return
        loader = self.learn.dls.train
        step = self.learn.iter + getattr(loader, "skip_batches", 0)
        torch.manual_seed(mix_seed(*self.stream, self.learn.epoch, "step", step, *self.own))
        if isinstance(loader, PictureLoader):
            loader.seed_batch(mix_seed(*self.stream, self.learn.epoch, "varied", step + 1, *self.own))
