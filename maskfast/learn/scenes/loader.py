"""A stock flows in, batches of made pictures flow out of a fastai loader, each batch from a seed of its own."""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.torch_core import TensorCategory, TensorImage
from torch import Tensor

from maskfast.core.image import load_image
from maskfast.learn.loader import PictureLoader
from maskfast.learn.scenes.makers import make_picture
from maskfast.learn.scenes.places import draw_places
from maskfast.learn.scenes.stock import Stock, gather_stock
from maskfast.learn.seeding import mix_seed

STRIDE = 32
"""Pixels between two places of the map that most networks make."""


def learn_from_scenes(dls: DataLoaders, *, side: int, sizes: Sequence[int], pictures: int) -> None:
    """Put a SceneLoader in the place of the training loader, made from the same rows with the same batch transforms.

    `side`: pixels of the squares that the rows are read as; `sizes` of those that are made; `pictures`: about how many
    an epoch has. Raises ConfigError where the rows have no boxes of masks.
    """
    plain, pixels = dls.train, dls.valid.tfms[0][-1].pixels
    read = pixels.read if pixels is not None else partial(load_image, size=side, method="squish")
    loader = SceneLoader(
        plain.dataset, bs=plain.bs, num_workers=plain.fake_l.num_workers, pin_memory=plain.pin_memory,
        device=plain.device, after_batch=plain.after_batch, do_setup=False,
    )  # fmt: skip
    loader.plain = plain
    stock = gather_stock(plain.items, read, side)
    dls.loaders[0] = loader.fill(stock, sizes=sizes, pictures=pictures)


def learn_from_plain(dls: DataLoaders) -> None:
    """Put the plain training loader back where a SceneLoader is."""
    if isinstance(dls.train, SceneLoader):
        dls.loaders[0] = dls.train.plain


class SceneLoader(PictureLoader):
    """Gives (pictures, classes, place targets) made from a stock, each batch at one of several sizes.

    An epoch has a fixed number of batches; batch `k` follows from the epoch's seed and `k` alone, so that a run can go
    on at any batch, with any number of workers. Batches hold as many pixels at every size.
    """

    stock: Stock
    sizes: tuple[int, ...]
    batches: int
    plain: PictureLoader

    def fill(self, stock: Stock, *, sizes: Sequence[int], pictures: int) -> "SceneLoader":
        """Say what the pictures are made from, their sizes in pixels, and about how many make an epoch."""
        self.stock, self.sizes = stock, tuple(sizes)
        mean = sum(self.count_pictures(size) for size in sizes) / len(sizes)
        self.batches = max(1, round(pictures / mean))
        return self

    def count_pictures(self, size: int) -> int:
        """Pictures in a batch of `size`: the batch size at the smallest, fewer at larger ones."""
        return max(4, round(int(self.bs) * (min(self.sizes) / size) ** 2))

    def make_batch(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make batch `number` of the epoch: pictures (N,3,S,S) uint8, classes (N,), targets (N,S/32,S/32)."""
        rng = random.Random(mix_seed(self.order_seed or 0, "made", number))
        size = rng.choice(self.sizes)
        made = [make_picture(self.stock, rng, size) for _ in range(self.count_pictures(size))]
        pixels = torch.from_numpy(np.stack([np.asarray(picture.image) for picture in made])).permute(0, 3, 1, 2)
        classes = torch.tensor([int(picture.shows_mask or not picture.known) for picture in made])
        places = torch.from_numpy(np.stack([draw_places(picture, max(1, size // STRIDE)) for picture in made]))
        return TensorImage(pixels.contiguous()), TensorCategory(classes), places

    def get_idxs(self) -> list[int]:
        """The batches of the next epoch, each as often as fastai gives indices to one batch."""
        numbers = range(self.skip_batches, self.batches)
        return [number for number in numbers for _ in range(int(self.bs))]

    def create_batches(self, samps: Iterator[int]) -> Iterator[Any]:
        """Make the batches that `get_idxs` (or a worker's part of it) names."""
        for number in dict.fromkeys(samps):
            yield self.make_batch(number)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.batches
