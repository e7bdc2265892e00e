"""Batches from the items table, held against load_image, Pillow and torch."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.core import TensorImage
from PIL import Image

from maskfast.core.errors import DataError
from maskfast.core.image import load_image
from maskfast.data.splits import split_items
from maskfast.data.tables import read_items
from maskfast.learn.augment import get_transforms
from maskfast.learn.blocks import PictureReader, Shrink, make_dls, mask_datablock

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture
def items(toy: Path) -> pd.DataFrame:
    return add_split(read_items(toy))


def add_split(items: pd.DataFrame) -> pd.DataFrame:
    return split_items(items.assign(group=pd.array(range(len(items)), dtype="Int64")))


@pytest.mark.parametrize("cache", [True, False])
def test_validation_batches_are_the_loaded_pictures(items: pd.DataFrame, cache: bool) -> None:
    dls = make_dls(items, size=32, batch_size=4, cache=cache)
    images, classes = dls.valid.one_batch()
    rows = dls.valid.items.iloc[:4]
    expected = np.stack([load_image(path, 32) for path in rows["path"]])
    decoded = (images.permute(0, 2, 3, 1).as_subclass(torch.Tensor) * STD + MEAN) * 255
    np.testing.assert_allclose(decoded, expected, atol=1e-3)
    assert classes.tolist() == rows["label"].astype(int).tolist()
    assert list(dls.vocab) == ["no_mask", "mask"]


def test_the_split_is_the_tables(items: pd.DataFrame) -> None:
    dls = make_dls(items, size=32)
    assert set(dls.train.items["image"]) == set(items.loc[items["split"] == "train", "image"])
    assert set(dls.valid.items["image"]) == set(items.loc[items["split"] == "valid", "image"])


def test_order_and_variation_follow_the_seed_with_any_number_of_workers(items: pd.DataFrame) -> None:
    def first_batches(workers: int, seed: int) -> torch.Tensor:
        dls = make_dls(items, size=32, batch_size=4, workers=workers)
        dls.train.reseed(seed)
        dls.train.seed_batch(seed)
        return torch.cat([images.as_subclass(torch.Tensor) for images, _ in dls.train])

    once = first_batches(0, seed=1)
    assert torch.equal(once, first_batches(0, seed=1))
    assert torch.equal(once, first_batches(2, seed=1))
    assert not torch.equal(once, first_batches(0, seed=2))


def test_a_loader_goes_on_in_mid_epoch(items: pd.DataFrame) -> None:
    dls = make_dls(items, size=32, batch_size=4, batch_tfms=[])
    dls.train.reseed(5)
    whole = [images.as_subclass(torch.Tensor) for images, _ in dls.train]
    dls.train.reseed(5)
    dls.train.skip_batches = 2
    rest = [images.as_subclass(torch.Tensor) for images, _ in dls.train]
    assert len(dls.train) == len(whole)
    assert torch.equal(torch.cat(rest), torch.cat(whole[2:]))


def test_a_lone_last_picture_is_left_out(items: pd.DataFrame) -> None:
    train = int((items["split"] == "train").sum())
    dls = make_dls(items, size=32, batch_size=train - 1)
    assert [len(images) for images, _ in dls.train] == [train - 1]
    assert len(dls.train) == 1


def test_weights_decide_what_is_drawn(items: pd.DataFrame) -> None:
    dls = make_dls(items, size=32, batch_size=8)
    dls.train.weights = torch.tensor(dls.train.items["label"].astype(float).to_numpy())
    assert all((classes == 1).all() for _, classes in dls.train)


def test_a_picture_that_vanishes_costs_its_row(items: pd.DataFrame) -> None:
    dls = make_dls(items, size=32, batch_size=4, cache=False)
    gone = Path(dls.valid.items["path"].iloc[0])
    before = sum(len(images) for images, _ in dls.valid)
    gone.unlink()
    assert sum(len(images) for images, _ in dls.valid) == before - 1


def test_a_picture_that_vanishes_after_it_was_cached_costs_nothing(items: pd.DataFrame) -> None:
    dls = make_dls(items, size=32, batch_size=4)
    before = sum(len(images) for images, _ in dls.train)
    Path(dls.train.items["path"].iloc[0]).unlink()
    assert sum(len(images) for images, _ in dls.train) == before


def test_an_empty_split_is_named(items: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="valid"):
        make_dls(items.assign(split="train"), size=32)


def test_labelled_test_pictures_are_in_no_loader(items: pd.DataFrame) -> None:
    items.loc[items.index[items["split"] == "train"][:3], "split"] = "test"
    dls = make_dls(items, size=32)
    assert [len(loader.items) for loader in dls.loaders] == [
        items["split"].eq(name).sum() for name in ("train", "valid")
    ]


def test_the_reader_takes_paths_bytes_pictures_and_arrays(toy: Path) -> None:
    path = toy / "images" / "1.png"
    reader = PictureReader(24, "pad")
    expected = load_image(path, 24, "pad")
    with Image.open(path) as opened:
        picture = opened.copy()
    for source in (str(path), path, path.read_bytes(), picture, np.asarray(picture)):
        made = reader(source)
        assert isinstance(made, TensorImage)
        np.testing.assert_array_equal(made.permute(1, 2, 0).numpy(), expected)


def test_shrinking_is_torchs_antialiased_interpolation() -> None:
    images = torch.rand(2, 3, 32, 32)
    made = Shrink(20)(TensorImage(images)).as_subclass(torch.Tensor)
    wanted = torch.nn.functional.interpolate(images, size=20, mode="bilinear", antialias=True)
    torch.testing.assert_close(made, wanted)
    assert Shrink()(TensorImage(images)).shape == images.shape


def test_fastais_own_ways_work(items: pd.DataFrame) -> None:
    block = mask_datablock(32, batch_tfms=get_transforms(max_shift=0.1))
    dls = block.dataloaders(items, bs=4, num_workers=0)
    dls.show_batch(max_n=4)
    assert dls.train.one_batch()[0].shape == (4, 3, 32, 32)
    assert dls.test_dl([items["path"].iloc[0]]).one_batch()[0].shape == (1, 3, 32, 32)
