"""From the items table to fastai DataLoaders: pictures are read by core.image, everything after is done in batches."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastai.vision.data  # noqa: F401  teaches show_batch and show_results to draw pictures
import numpy as np
import pandas as pd
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.core import DataLoaders
from fastai.data.load import SkipItemException
from fastai.data.transforms import IndexSplitter, IntToFloatTensor, Normalize
from fastai.torch_basics import DisplayedTransform
from fastai.torch_core import TensorImage
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the name everybody knows

from maskfast.bundle.backbones import IMAGENET_MEAN, IMAGENET_STD
from maskfast.core.errors import DataError, ImageError
from maskfast.core.image import Method, load_image
from maskfast.learn.augment import get_transforms
from maskfast.learn.loader import PictureLoader
from maskfast.learn.pixels import PixelCache, open_pixels

VOCAB = ["no_mask", "mask"]


class PictureReader(DisplayedTransform):  # type: ignore[misc]
    """The type transform: a path, bytes, a Pillow picture or an array becomes a TensorImage (3,size,size) uint8.

    With `skip_broken` a file that can't be read costs its row in training, and nothing else; the caller is not told,
    since it was there when the run began.
    """

    def __init__(
        self, size: int, method: Method, *, pixels: PixelCache | None = None, skip_broken: bool = False
    ) -> None:
        super().__init__()
        self.input_types = (str, os.PathLike, bytes, Image.Image, np.ndarray)  # what `learn.predict` takes
        self.size, self.method, self.pixels, self.skip_broken = size, method, pixels, skip_broken

    def encodes(self, source: object) -> TensorImage:
        """Read one picture; a path, bytes, a Pillow picture or an array."""
        return TensorImage(torch.from_numpy(self._read(source)).permute(2, 0, 1))

    def _read(self, source: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if self.pixels is not None and isinstance(source, str) and source in self.pixels:
            return np.array(self.pixels.read(source))
        try:
            return load_image(source, self.size, self.method)
        except ImageError:
            if self.skip_broken:
                raise SkipItemException from None
            raise

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "pixels": None, "skip_broken": False}


class Shrink(DisplayedTransform):  # type: ignore[misc]
    """A batch transform that scales pictures down, antialiased, to `size` where that is set: progressive resizing."""

    order = 20  # after IntToFloatTensor, before Augment

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.size = size

    def encodes(self, images: TensorImage) -> TensorImage:
        """Scale a batch (N,3,H,W)."""
        if self.size is None or images.shape[-1] == self.size:
            return images
        size, plain = (self.size, self.size), images.as_subclass(Tensor)
        return TensorImage(F.interpolate(plain, size=size, mode="bilinear", antialias=True, align_corners=False))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "size": None}


def mask_datablock(
    size: int = 224,
    method: Method = "squish",
    *,
    batch_tfms: Sequence[Any] | None = None,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    pixels: PixelCache | None = None,
    skip_broken: bool = False,
) -> DataBlock:
    """Make the DataBlock from an items table (columns path, label, split) to batches of normalised pictures.

    Pictures come through core.image.load_image at `size` (pixels a side) by `method`; `batch_tfms` vary them (default:
    `get_transforms()`); `mean` and `std` of each channel, for values in 0..1, are the backbone's. `pixels`: decoded
    files. The classes are always no_mask, mask, in this order.
    """
    reader = PictureReader(size, method, pixels=pixels, skip_broken=skip_broken)
    pictures = TransformBlock(type_tfms=[reader], batch_tfms=[IntToFloatTensor], dl_type=PictureLoader)
    varied = get_transforms() if batch_tfms is None else list(batch_tfms)
    return DataBlock(
        blocks=(pictures, CategoryBlock(vocab=VOCAB, sort=False)),
        get_x=_get_path,
        get_y=_get_class,
        splitter=split_by_column,
        batch_tfms=[Shrink(), *varied, Normalize.from_stats(mean, std)],
    )


def make_dls(
    items: pd.DataFrame,
    *,
    size: int = 224,
    method: Method = "squish",
    batch_size: int = 32,
    batch_tfms: Sequence[Any] | None = None,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    cache: bool = True,
    workers: int = 0,
    device: str | torch.device | None = None,
) -> DataLoaders:
    """Make fastai DataLoaders of the usable rows of an items table whose column `split` says "train" or "valid".

    Pictures are decoded once into a cache that later runs share (`cache=False` decodes them at each epoch, in
    `workers` processes). Raises DataError where a split has no picture.
    """
    from maskfast.data.tables import select_usable

    usable = select_usable(items[items["split"].isin(["train", "valid"])])
    pixels = open_pixels([str(path) for path in usable["path"]], size, method) if cache else None
    if pixels is not None:
        usable = usable[usable["path"].isin(pixels.rows)].reset_index(drop=True)
    for split in ("train", "valid"):
        if not (usable["split"] == split).any():
            raise DataError(f"no usable picture is in split {split!r}; give more data, or mend its column split")
    block = mask_datablock(
        size, method, batch_tfms=batch_tfms, mean=mean, std=std, pixels=pixels, skip_broken=pixels is None
    )
    pinned = torch.device(device).type == "cuda" if device else torch.cuda.is_available()
    return block.dataloaders(
        usable, path=Path("."), bs=batch_size, num_workers=workers, device=device or "cpu", pin_memory=pinned,
        drop_last=False,
    )  # fmt: skip


def split_by_column(items: pd.DataFrame) -> Any:
    """The fastai splitter that follows the column `split` of the items table."""
    return IndexSplitter(np.flatnonzero((items["split"] == "valid").to_numpy()).tolist())(items)


def _get_path(row: pd.Series) -> str:
    return str(row["path"])


def _get_class(row: pd.Series) -> str:
    return VOCAB[int(row["label"])]
