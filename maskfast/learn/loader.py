"""The data loader of pictures: a fastai TfmdDL whose order is told by a seed, and which can go on in mid-epoch."""

import random

import torch
from fastai.data.core import TfmdDL

from maskfast.learn.augment import Augment


class PictureLoader(TfmdDL):  # type: ignore[misc]
    """A TfmdDL that draws its order and its transforms from `reseed` alone, with any number of workers.

    `skip_batches` leaves out the first batches of the next epoch; `weights` (one a picture) draws with replacement.
    """

    skip_batches = 0
    weights: torch.Tensor | None = None
    order_seed: int | None = None

    def reseed(self, seed: int) -> None:
        """Let the next epoch's order follow from `seed`."""
        self.order_seed = seed

    def seed_batch(self, seed: int) -> None:
        """Let the transforms of the next batch draw from `seed`."""
        for transform in self.after_batch.fs:
            if isinstance(transform, Augment):
                transform.seed(seed)

    def get_idxs(self) -> list[int]:
        """The order of the pictures in the next epoch."""
        if self.order_seed is not None:
            self.rng = random.Random(self.order_seed)
        order: list[int] = self._draw_weighted() if self.weights is not None else super().get_idxs()
        return order[self.skip_batches * (self.bs or 1) : len(order) - self._has_lone_last()]

    def __len__(self) -> int:
        """The number of batches in a whole epoch."""
        return int(super().__len__()) - self._has_lone_last()

    def _has_lone_last(self) -> bool:
        # Batch normalisation can't train on one picture.
        return bool(self.shuffle and self.bs and self.n > 1 and self.n % self.bs == 1)

    def _draw_weighted(self) -> list[int]:
        assert self.weights is not None, "asked for only with weights"
        return self.rng.choices(range(self.n), weights=self.weights.tolist(), k=self.n)
