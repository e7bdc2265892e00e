"""Made scenes: masks are drawn blue and bare faces green, so the pixels themselves say what a label must be."""

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw

from maskfast.core.errors import ConfigError, DataError
from maskfast.learn import scenes
from maskfast.learn.scene_training import lose_places, read_size
from maskfast.learn.scenes import FREE, MASK, Box, Scene, SceneMaker, Stock, draw_window, mark_places
from maskfast.learn.train import train_learner

SIDE = 128
BLUE, GREEN, GREY = (0, 0, 255), (0, 160, 0), (120, 120, 120)


def draw_boxed(kinds: list[int], seed: int) -> tuple[Image.Image, list[Box]]:
    rng = np.random.default_rng(seed)
    image, boxes = Image.new("RGB", (SIDE, SIDE), GREY), []
    for place, kind in enumerate(kinds):
        x, y = 4 + 62 * (place % 2) + rng.integers(0, 12), 4 + 62 * (place // 2) + rng.integers(0, 12)
        ImageDraw.Draw(image).ellipse([x, y, x + 40, y + 40], fill=BLUE if kind else GREEN)
        boxes.append(Box(kind, x, y, x + 41, y + 41))
    return image, boxes


@pytest.fixture(scope="module")
def stock() -> Stock:
    stock = Stock(SIDE)
    for seed, kinds in enumerate([[1, 0, 1], [0, 1], [1], [0, 0], [0], [1, 1, 0, 0]]):
        image, boxes = draw_boxed(kinds, seed)
        stock.add(image, int(any(kinds)), boxes, (400, 400))
    for label in (FREE, MASK):
        stock.add(Image.new("RGB", (SIDE, SIDE), BLUE if label else GREEN), label, None, (100, 100))
    return stock


def share_of_blue(image: Image.Image) -> float:
    pixels = np.asarray(image).astype(int)
    return float(((pixels[..., 2] > pixels[..., 0] + 20) & (pixels[..., 2] > pixels[..., 1] + 20)).mean())


def test_pixels_agree_with_the_labels(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    paste = scenes._paste  # the colours say what is seen, so they must not be moved towards the ground's
    monkeypatch.setattr(scenes, "_paste", lambda *parts, **_options: paste(*parts, tone=False))
    maker = SceneMaker(stock)
    made = [maker.make(64, seed) for seed in range(600)]
    for scene in made:
        assert scene.image.size == (64, 64)
        assert share_of_blue(scene.image) > 0.004 if scene.label else share_of_blue(scene.image) < 0.015
    assert 0.4 < np.mean([scene.label for scene in made]) < 0.6


def test_boxes_are_where_the_faces_are(stock: Stock) -> None:
    maker = SceneMaker(stock)
    for seed in range(200):
        scene = maker._make_window(96, MASK, random.Random(seed))
        for box in scene.boxes:
            x, y = int((box.x0 + box.x1) / 2), int((box.y0 + box.y1) / 2)
            if 0 <= x < 96 and 0 <= y < 96:
                _, green, blue = scene.image.getpixel((x, y))
                assert (blue > green) == (box.kind == MASK)


def test_the_same_number_is_the_same_picture(stock: Stock) -> None:
    maker = SceneMaker(stock)
    assert maker.make(64, 5).image.tobytes() == maker.make(64, 5).image.tobytes()
    assert maker.make(64, 5).image.tobytes() != maker.make(64, 6).image.tobytes()


@pytest.mark.parametrize("label", [FREE, MASK])
def test_windows_cut_no_mask_in_half(stock: Stock, label: int) -> None:
    found = 0
    for seed in range(100):
        boxes = stock.boxed[MASK][seed % len(stock.boxed[MASK])].boxes
        window = draw_window(boxes, label, SIDE, random.Random(seed))
        if window is None:
            continue
        found += 1
        shares = [box.share_in(window) for box in boxes if box.kind == MASK]
        assert all(share <= 0.15 or share >= 0.75 for share in shares)
        assert any(share >= 0.75 for share in shares) == bool(label)
    assert found > 50


def test_places_are_marked() -> None:
    scene = Scene(Image.new("RGB", (96, 96)), MASK, (Box(MASK, 0, 0, 32, 32), Box(FREE, 64, 64, 96, 96)))
    places = mark_places(scene, 96, 32)
    assert places[0, 0] == 1
    assert places[2, 2] == 0
    assert places[1, 1] == -1
    assert (mark_places(Scene(scene.image, MASK, None), 96, 32) == -1).all()
    assert (mark_places(Scene(scene.image, FREE, ()), 96, 32) == 0).all()
    close = mark_places(Scene(scene.image, MASK, (Box(MASK, 20, 48, 76, 90, only=True),)), 96, 32)
    assert close[1, 1] in (-1, 1)
    assert (close == 1).any()
    assert not (close == 0).any()


def test_the_loss_of_places_ignores_what_is_unknown() -> None:
    scores = torch.tensor([[[9.0, -9.0], [9.0, -9.0]]])
    good = torch.tensor([[[1.0, 0.0], [-1.0, -1.0]]])
    bad = torch.tensor([[[0.0, 1.0], [-1.0, -1.0]]])
    assert lose_places(scores, good) < 1e-3
    assert lose_places(scores, bad) > 5


def test_the_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_size(str(tmp_path / "a.jpg")) == (20, 30)


@pytest.fixture
def boxed(tmp_path: Path) -> Path:
    folder = tmp_path / "boxed"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, kinds in enumerate([[1, 0], [0, 0], [1], [0], [1, 1, 0], [0, 0, 0]] * 3):
        image, boxes = draw_boxed(kinds, number)
        image.putpixel((0, 0), (number, 0, 0))
        image.save(folder / "images" / f"{number}.png")
        rows += [(f"{number}.png", *box[1:5], "with_mask" if box.kind else "without_mask") for box in boxes]
    columns = ["name", "xmin", "ymin", "xmax", "ymax", "classname"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "train.csv", index=False)
    return folder


SMALL = {"arch": "simple_cnn", "weights": "none", "size": 96, "scene_sizes": (64, 96), "batch_size": 4, "epochs": 1,
         "head": "mil", "lr": 0.01, "augment": "light", "hidden": 16, "stem": 1}  # fmt: skip


def test_a_network_trains_on_made_scenes(toy: Path, boxed: Path, tmp_path: Path) -> None:
    learn = train_learner([toy, boxed], **SMALL, scenes=8, views=("plain@64", "plain"), out=tmp_path / "model")
    assert set(learn.dls.train.items["split"]) == {"train"}
    again = train_learner([toy, boxed], **SMALL, scenes=8, workers=2, out=tmp_path / "again")
    state, other = learn.model.state_dict(), again.model.state_dict()
    assert all(state[key].equal(other[key]) for key in state)


def test_scenes_need_boxes_and_places(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="boxed faces"):
        train_learner(toy, **SMALL, scenes=8, out=tmp_path / "model")
    with pytest.raises(ConfigError, match="mil"):
        train_learner(toy, **SMALL | {"head": "concat"}, scenes=8, out=tmp_path / "model")
