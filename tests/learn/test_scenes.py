"""Made pictures, held against their own pixels: in drawn scenes a mask is where there is colour, and nowhere else."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_scenes import draw_close_ups, draw_scenes, find_masks, paint_mask
from PIL import Image

from maskfast.core.errors import ConfigError
from maskfast.core.image import load_image
from maskfast.data.tables import read_items
from maskfast.learn.scenes.makers import MAKERS, make_picture
from maskfast.learn.scenes.places import draw_places, lose_places
from maskfast.learn.scenes.shapes import Box, Picture, cut_window, measure_seen, mirror_picture
from maskfast.learn.scenes.stock import Stock, gather_stock
from maskfast.learn.scenes.windows import find_window, is_clear

SIDE = 96


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    root = tmp_path_factory.mktemp("drawn")
    items = read_items(draw_scenes(root / "scenes"), draw_close_ups(root / "close-ups"))
    pixels = {path: load_image(path, SIDE) for path in items["path"]}
    return gather_stock(items, pixels.__getitem__, SIDE)


def make_many(stock: Stock, name: str, *, mask: bool, count: int = 60) -> list[Picture]:
    rng = random.Random(name)
    return [MAKERS[name][1](stock, rng, 64, mask) for _ in range(count)]


@pytest.mark.parametrize("name", list(MAKERS))
def test_no_mask_is_seen_where_none_is_wanted(name: str, stock: Stock) -> None:
    for picture in make_many(stock, name, mask=False):
        assert not picture.shows_mask
        assert picture.known
        assert not find_masks(picture.image).any()


@pytest.mark.parametrize("name", list(MAKERS))
def test_a_mask_is_seen_where_one_is_wanted(name: str, stock: Stock) -> None:
    for picture in make_many(stock, name, mask=True):
        assert picture.shows_mask or not picture.known
        assert find_masks(picture.image).any()


@pytest.mark.parametrize("name", ["window", "whole", "swapped"])
def test_places_are_where_the_masks_are(name: str, stock: Stock) -> None:
    asked = 0
    for picture in make_many(stock, name, mask=True):
        seen = find_masks(picture.image).reshape(8, 8, 8, 8).any(axis=(1, 3))
        places = draw_places(picture, 8)
        assert not (seen & (places == 0)).any()
        assert seen[places == 1].all()
        asked += int((places == 1).sum())
    assert asked > 30


def test_close_ups_are_asked_about_their_lower_middle_alone(stock: Stock) -> None:
    for picture in make_many(stock, "plain", mask=True):
        places = draw_places(picture, 8)
        assert (places != 0).all()
        assert (places == 1).any()
        assert find_masks(picture.image).reshape(8, 8, 8, 8).any(axis=(1, 3))[places == 1].all()
    for picture in make_many(stock, "plain", mask=False):
        assert (draw_places(picture, 8) == 0).all()


def test_both_classes_are_made_equally_often_in_every_way(stock: Stock) -> None:
    rng = random.Random(0)
    made = [make_picture(stock, rng, 32) for _ in range(600)]
    assert 0.42 < np.mean([picture.shows_mask or not picture.known for picture in made]) < 0.58


def test_the_same_draws_give_the_same_picture(stock: Stock) -> None:
    first, again, other = (make_picture(stock, random.Random(seed), 64) for seed in (5, 5, 6))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.boxes == again.boxes
    assert first.image.tobytes() != other.image.tobytes()


def test_boxes_move_with_their_pixels() -> None:
    pixels = np.full((100, 100, 3), 128, np.uint8)
    paint_mask(pixels, 40, 20, 60, 50)
    picture = Picture(Image.fromarray(pixels), [Box(True, 40, 20, 60, 50)])
    for moved in (mirror_picture(picture), cut_window(picture, (30, 10, 80, 60), 100)):
        rows, columns = np.nonzero(find_masks(moved.image))
        box = moved.boxes[0]
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert box.window == pytest.approx(seen, abs=1)


def test_windows_are_clear(stock: Stock) -> None:
    rng = random.Random(0)
    for source in stock.masked:
        picture = stock.open(source)
        for mask in (True, False):
            window = find_window(picture, rng, mask=mask)
            assert window is None or is_clear(picture, window, mask=mask)
    half = Picture(Image.new("RGB", (100, 100)), [Box(True, 40, 40, 60, 60)])
    assert not is_clear(half, (50, 0, 100, 100), mask=True)
    assert not is_clear(half, (50, 0, 100, 100), mask=False)
    assert is_clear(half, (60, 0, 100, 100), mask=False)
    assert measure_seen((40, 40, 60, 60), (50, 0, 100, 100)) == 0.5


def test_faces_without_a_mask_are_cut_clear_of_their_neighbours_masks(tmp_path: Path) -> None:
    pixels = np.full((100, 100, 3), 128, np.uint8)
    paint_mask(pixels, 52, 20, 82, 50)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    lines = "name,xmin,ymin,xmax,ymax,classname\na.png,52,20,82,50,with_mask\n"
    (tmp_path / "boxes.csv").write_text(lines + "a.png,20,20,50,50,without_mask\na.png,10,60,40,90,without_mask\n")
    items = read_items(tmp_path / "boxes.csv")
    stock = gather_stock(items, lambda path: load_image(path, 100), 100)
    assert len(stock.faces[0]) == 1
    assert stock.faces[0][0].window[1] > 50


def test_the_loss_of_places_is_torchs() -> None:
    torch.manual_seed(0)
    scores, targets = torch.randn(3, 1, 4, 4), torch.randint(-1, 2, (3, 4, 4)).float()
    flat, wanted = scores[:, 0], targets
    each = torch.nn.functional.softplus(torch.where(wanted == 1, -flat, flat))
    worst = torch.stack([each[row][wanted[row] == 0].max() for row in range(3)]).mean()
    expected = (each[wanted == 1].mean() + 2 * each[wanted == 0].mean() + worst) / 3
    torch.testing.assert_close(lose_places(scores, targets), expected)
    doubled = torch.nn.functional.interpolate(scores, scale_factor=2)
    torch.testing.assert_close(lose_places(doubled, targets), expected)


def test_without_boxes_it_is_said_what_is_needed(tmp_path: Path) -> None:
    items = read_items(draw_close_ups(tmp_path / "plain"))
    with pytest.raises(ConfigError, match="boxes set"):
        gather_stock(items, lambda path: load_image(path, SIDE), SIDE)


def test_without_a_face_to_lay_over_masks_it_is_said(tmp_path: Path) -> None:
    folder = draw_scenes(tmp_path / "scenes")
    table = (folder / "train.csv").read_text().replace("without_mask", "hat")
    (folder / "train.csv").write_text(table)
    items = read_items(folder)
    with pytest.raises(ConfigError, match="without a mask"):
        gather_stock(items[items["label"].notna()], lambda path: load_image(path, SIDE), SIDE)
