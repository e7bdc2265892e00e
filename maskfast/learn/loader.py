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
    share = (0, 1)
    """Which part of the pictures this process takes, of how many; of a shuffled loader that is a part of each batch."""
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
        return self._take_share(order[self.skip_batches * self._step() : len(order) - self._count_left_over()])

    def __len__(self) -> int:
        """The number of batches in a whole epoch."""
        return -(-(int(self.n) - self._count_left_over()) // self._step())

    def _step(self) -> int:
        """Pictures of one step, in all processes."""
        return int(self.bs or 1) * self.share[1]

    def _count_left_over(self) -> int:
        # Batch normalisation can't train on one picture.
        rest = self.n % self._step() if self.shuffle and self.bs and self.n > 1 else 0
        return rest if rest < 2 * self.share[1] else 0

    def _take_share(self, order: list[int]) -> list[int]:
        """The own part: equally long for all while training, by repeating the first pictures of a last batch."""
        rank, ranks = self.share
        if ranks == 1 or not self.shuffle:
            return order[rank::ranks]
        batches = [order[start : start + self._step()] for start in range(0, len(order), self._step())]
        padded = [batch + batch[: -len(batch) % ranks] for batch in batches]
        return [
            place for batch in padded for place in batch[rank * len(batch) // ranks : (rank + 1) * len(batch) // ranks]
        ]

    def _draw_weighted(self) -> list[int]:
        assert self.weights is not None, "asked for only with weights"
        return self.rng.choices(range(self.n), weights=self.weights.tolist(), k=self.n)
