"""Training on made scenes, end to end on drawn ones: the loader, the losses, the bundle, and going on after a kill."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from drawn_scenes import draw_close_ups, draw_scenes
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import Adam
from killing import KilledError, kill_at_batch

from maskfast.bundle.network import NetworkSpec, build_network
from maskfast.core.config import make_config
from maskfast.core.errors import ConfigError
from maskfast.data.splits import split_items
from maskfast.data.tables import read_items
from maskfast.learn.blocks import make_dls
from maskfast.learn.scenes.callbacks import FrozenLayers, PlaceLoss
from maskfast.learn.scenes.loader import SceneLoader, learn_from_plain, learn_from_scenes
from maskfast.learn.scenes.places import lose_places
from maskfast.learn.train import resume_training, run_training
from maskfast.score.loading import load

SCENES = {
    "arch": "simple_cnn", "weights": "none", "size": 64, "head": "mil", "hidden": 8, "dropout": 0.1, "sharpness": 2.0,
    "scenes": 24, "scene_sizes": (32, 64), "batch_size": 8, "places": 0.5, "epochs": 2,
    "lr": 0.02, "optimizer": "adam", "ema": 0.9, "augment": "light", "views": ("plain@48", "plain"),
    "calibration": "balanced", "frozen_epochs": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("drawn")
    return [str(draw_scenes(root / "scenes")), str(draw_close_ups(root / "close-ups"))]


def make_loaders(data: list[str], *, workers: int = 0) -> DataLoaders:
    dls = make_dls(split_items(read_items(*data)), size=64, batch_size=8, batch_tfms=[], workers=workers)
    learn_from_scenes(dls, side=64, sizes=(32, 64), pictures=30)
    return dls


def take(dls: DataLoaders, *, seed: int = 3, skip: int = 0) -> list[Any]:
    dls.train.reseed(seed)
    dls.train.skip_batches = skip
    return [tuple(part.clone() for part in batch) for batch in dls.train]


def same(left: list[Any], right: list[Any]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def test_batches_follow_from_their_number_alone(data: list[str]) -> None:
    dls = make_loaders(data)
    whole = take(dls)
    assert len(whole) == len(dls.train) > 3
    assert same(whole, take(dls))
    assert same(whole[2:], take(dls, skip=2))
    assert same(whole, take(make_loaders(data, workers=2)))
    assert not same(whole[:1], take(dls, seed=4)[:1])


def test_batches_hold_pictures_classes_and_places(data: list[str]) -> None:
    sizes = set()
    for images, classes, places in take(make_loaders(data)):
        size = images.shape[-1]
        assert images.shape == (8 if size == 32 else 4, 3, size, size)
        assert places.shape == (len(images), size // 32, size // 32)
        assert set(classes.tolist()) <= {0, 1}
        assert (places[classes == 0] == 0).all()
        sizes.add(size)
    assert sizes == {32, 64}


def test_the_plain_loader_comes_back(data: list[str]) -> None:
    dls = make_loaders(data)
    assert isinstance(dls.train, SceneLoader)
    learn_from_plain(dls)
    assert not isinstance(dls.train, SceneLoader)
    assert len(dls.train.one_batch()) == 2


def test_the_loss_of_places_is_added_to_the_gradients_alone(data: list[str]) -> None:
    network = build_network(NetworkSpec(arch="simple_cnn", head="mil", hidden=8, dropout=0)).eval()
    learn = Learner(make_loaders(data), network, loss_func=torch.nn.CrossEntropyLoss(), opt_func=Adam)
    images, classes, places = (part.as_subclass(torch.Tensor) for part in take(learn.dls)[0])
    found: list[torch.Tensor] = []

    class Look(PlaceLoss):
        def after_loss(self) -> None:
            super().after_loss()
            found.extend((self.learn.loss.detach(), self.learn.loss_grad.detach()))

    learn.dls.train.reseed(3)
    learn.create_opt()
    with learn.no_bar(), learn.no_logging(), learn.added_cbs(Look(0.5)):
        network.train = lambda *_: network
        learn.dls.train.batches = 1
        learn.fit(1, lr=0.0)
    with torch.no_grad():
        features = network[0](images)
        plain = torch.nn.functional.cross_entropy(network(images), classes)
        both = plain + 0.5 * lose_places(network[1].score(features), places)
    torch.testing.assert_close(found[0].as_subclass(torch.Tensor), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1].as_subclass(torch.Tensor), both, rtol=1e-4, atol=1e-5)


def test_frozen_layers_stay_as_they_are(data: list[str]) -> None:
    network = build_network(NetworkSpec(arch="simple_cnn", head="mil", hidden=8))
    learn = Learner(make_loaders(data), network, loss_func=torch.nn.CrossEntropyLoss(), opt_func=Adam)
    layers = list(network[0].children())
    before = [{key: value.clone() for key, value in layer.state_dict().items()} for layer in layers]
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.01, cbs=[PlaceLoss(0.5), FrozenLayers(layers[:2])])
    after = [layer.state_dict() for layer in layers]
    kept = [all(was[key].equal(now[key]) for key in was) for was, now in zip(before, after, strict=True)]
    assert kept[:2] == [True, True]
    assert not all(kept[2:])


def test_the_bundle_answers_as_was_validated(data: list[str], tmp_path: Path) -> None:
    run = run_training(make_config({**SCENES, "data": data, "out": tmp_path / "model"}))
    validation = pd.read_csv(tmp_path / "model" / "report" / "validation.csv")
    paths = {row.image: row.path for row in run.learn.dls.valid.items.itertuples() if row.source == data[1]}
    plain = validation[validation["image"].isin(paths)].drop_duplicates("image", keep="last")
    assert {"model.onnx", "report/sources.json"} <= set(run.manifest.sha256)
    assert run.manifest.views == ("plain@48", "plain")
    for backend in ("onnx", "torch-fp32"):
        predictor = load(tmp_path / "model", backend=backend)
        for row in plain.itertuples():
            if (validation["image"] == row.image).sum() == 1:
                answer = predictor.predict(paths[row.image]).probability
                assert answer == pytest.approx(row.probability, abs=1e-5)
                margin = (row.logit_mask - row.logit_no_mask) / run.manifest.temperature
                assert answer == pytest.approx(1 / (1 + np.exp(-margin)), abs=1e-5)


def test_a_killed_run_ends_in_the_same_weights(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**SCENES, "data": data, "checkpoint_minutes": 1e-9}
    whole = run_training(make_config({**config, "out": tmp_path / "whole"}))
    kill_at_batch(monkeypatch, 5)
    with pytest.raises(KilledError, match="at a batch"):
        run_training(make_config({**config, "out": tmp_path / "again"}))
    monkeypatch.undo()
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))
    resumed = resume_training(make_config({**config, "out": tmp_path / "again"}))
    left, right = (run.learn.model.state_dict() for run in (whole, resumed))
    assert all(left[key].equal(right[key]) for key in left)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"head": "concat"}, "head"),
        ({"head": "concat", "scenes": 0}, "head"),
        ({"mixup": 0.2}, "mixup"),
        ({"method": "crop"}, "method"),
        ({"progressive": (32,)}, "progressive"),
        ({"scene_sizes": (16,)}, "scene_sizes"),
        ({"views": ("plain@9999",)}, "view"),
    ],
)
def test_what_does_not_fit_together_is_named(changes: dict[str, object], word: str) -> None:
    make_config(SCENES)
    with pytest.raises(ConfigError, match=word):
        make_config({**SCENES, **changes})
