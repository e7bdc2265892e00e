"""Made scenes as training data: items with boxes flow in, a fastai loader of scenes and the loss of places flow out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback
from fastai.torch_core import TensorCategory, TensorImage
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the name everybody knows

from maskfast.core.errors import DataError
from maskfast.core.image import Method
from maskfast.learn.blocks import make_batch_tfms
from maskfast.learn.loader import PictureLoader
from maskfast.learn.pixels import PixelCache, decode_all
from maskfast.learn.scenes import Box, SceneMaker, Stock, mark_places
from maskfast.learn.seeding import mix_seed

STRIDE = 32
"""Pixels a place of the score map stands for, in nearly every backbone."""
ORIENTATION = 0x0112
"""The EXIF tag; 5 to 8 are turned by a quarter."""


class SceneDataset:
    """So many made pictures an epoch; which ones follows from the epoch's seed, and their size from the batch."""

    n_inp = 1
    split_idx = 0

    def __init__(self, maker: SceneMaker, count: int, batch_size: int, sizes: Sequence[int]) -> None:
        self.maker, self.count, self.batch_size, self.sizes = maker, count, batch_size, list(sizes)
        self.seed = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[TensorImage, TensorCategory, Tensor]:
        size = self.sizes[mix_seed(self.seed, "size", number // self.batch_size) % len(self.sizes)]
        scene = self.maker.make(size, mix_seed(self.seed, "scene", number))
        image = torch.from_numpy(np.array(scene.image)).permute(2, 0, 1)
        return TensorImage(image), TensorCategory(scene.label), torch.from_numpy(mark_places(scene, size, STRIDE))


class SceneLoader(PictureLoader):
    """A loader of made scenes: the epoch's seed decides what is made, so the numbers need no shuffling."""

    def get_idxs(self) -> list[int]:
        """The numbers of the epoch's scenes."""
        self.dataset.seed = self.order_seed or 0
        return super().get_idxs()


def make_scene_loader(
    items: pd.DataFrame, pixels: PixelCache | None, *, side: int, method: Method, count: int, batch_size: int,
    sizes: Sequence[int], batch_tfms: Sequence[Any], mean: Sequence[float], std: Sequence[float], workers: int,
    device: torch.device,
) -> SceneLoader:  # fmt: skip
    """The loader of `count` made scenes an epoch, of the training rows of an items table with boxes.

    Raises DataError where nothing can be made of them.
    """
    maker = SceneMaker(stock_up(items, pixels, side, method))
    if "window" not in maker.shares:
        raise DataError("scenes: need boxed faces and close pictures, with and without masks; add such data")
    dataset = SceneDataset(maker, count, batch_size, sizes)
    return SceneLoader(
        dataset, bs=batch_size, shuffle=False, num_workers=workers, device=device,
        after_batch=make_batch_tfms(batch_tfms, mean, std),
    )  # fmt: skip


def stock_up(items: pd.DataFrame, pixels: PixelCache | None, side: int, method: Method) -> Stock:
    """Gather the training pictures, their boxes scaled with them, and the faces in them."""
    stock = Stock(side)
    rows = items[items["split"] == "train"]
    paths = [str(path) for path in rows["path"]]
    arrays = ((path, pixels.read(path)) for path in paths) if pixels else decode_all(paths, side, method)
    known = rows["boxes"] if "boxes" in rows else [None] * len(rows)
    for (path, array), label, boxes in zip(arrays, rows["label"], known, strict=True):
        if isinstance(array, str):
            continue
        width, height = original = read_size(path)
        found = boxes if isinstance(boxes, list | tuple) else []
        scaled = [Box(int(k), x0 * side / width, y0 * side / height, x1 * side / width, y1 * side / height)
                  for x0, y0, x1, y1, k in found]  # fmt: skip
        stock.add(Image.fromarray(np.array(array)), int(label), scaled, original)
    return stock


def read_size(path: str) -> tuple[int, int]:
    """Width and height of an upright picture, read from the head of its file."""
    with Image.open(path) as head:
        turned = head.getexif().get(ORIENTATION, 1) >= 5
        return (head.height, head.width) if turned else (head.width, head.height)


class PlacesLoss(Callback):  # type: ignore[misc]
    """Add the loss of the score map of head 'mil' against what the boxes say about its places."""

    order = 5  # before anything counts the targets

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self._places: Tensor | None = None
        self._map: Tensor | None = None
        self._hook: Any = None

    def before_fit(self) -> None:
        """Listen to the score map."""
        self._hook = self.learn.model[1].score.register_forward_hook(self._keep)

    def before_batch(self) -> None:
        """Take the places out of the targets, which the loss of the picture does not know."""
        self._places = None
        if len(self.learn.yb) > 1:
            self._places = self.learn.yb[1]
            self.learn.yb = self.learn.yb[:1]

    def after_loss(self) -> None:
        """Add the loss of the places."""
        if self.learn.training and self._places is not None and self._map is not None:
            self.learn.loss_grad = self.learn.loss_grad + self.weight * lose_places(self._map, self._places)

    def after_fit(self) -> None:
        """Listen no more."""
        self._hook.remove()
        self._map = self._places = None

    def _keep(self, _module: Any, _inputs: Any, output: Tensor) -> None:
        self._map = output[:, 0].float()


def lose_places(scores: Tensor, places: Tensor) -> Tensor:
    """The loss of a score map (N,h,w) against known places: masks, none (twice), and each picture's hardest none."""
    loss = F.binary_cross_entropy_with_logits(scores, places.clamp(0, 1), reduction="none")
    mask, none = (places == 1).float(), (places == 0).float()
    hardest = (loss * none).flatten(1).amax(1).mean()
    mean_mask = (loss * mask).sum() / mask.sum().clamp(min=1)
    mean_none = (loss * none).sum() / none.sum().clamp(min=1)
    return (mean_mask + 2 * mean_none + hardest) / 3


class FrozenStem(Callback):  # type: ignore[misc]
    """Leave the first layers of a pretrained body as they are, batch statistics included: faster, and often as good."""

    order = 15  # after fastai put the model into training mode

    def __init__(self, layers: Sequence[torch.nn.Module]) -> None:
        self.layers = list(layers)

    def before_fit(self) -> None:
        """Take the layers out of training."""
        for layer in self.layers:
            layer.requires_grad_(False)

    def before_train(self) -> None:
        """Keep their statistics."""
        for layer in self.layers:
            layer.eval()
