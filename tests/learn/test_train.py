"""The whole way on drawn pictures with a toy network: bundle, export.pkl and every prediction agree."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toys import draw_toy

from maskfast.core.errors import ConfigError, DataError
from maskfast.core.image import load_image
from maskfast.learn import train
from maskfast.learn.train import train_learner
from maskfast.score.loading import load

TOY = {"arch": "simple_cnn", "weights": "none", "size": 32, "epochs": 2, "batch_size": 8, "lr": 0.02}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKFAST_CACHE", str(root / "cache"))
        train_learner(draw_toy(root / "toy"), **TOY, out=root / "model")
    return root


def test_the_bundle_is_whole_and_nothing_else_stays(trained: Path) -> None:
    assert {entry.name for entry in trained.iterdir()} == {"cache", "toy", "model"}
    names = {entry.name for entry in (trained / "model").iterdir()}
    assert {"bundle.json", "model.safetensors", "export.pkl", "README.md", "report"} <= names
    report = {entry.name for entry in (trained / "model" / "report").iterdir()}
    assert {"losses.png", "accuracy.png", "history.csv", "validation.csv"} <= report
    assert len(pd.read_csv(trained / "model" / "report" / "history.csv")) == 2


def test_validation_and_later_predictions_agree(trained: Path) -> None:
    validation = pd.read_csv(trained / "model" / "report" / "validation.csv")
    predictor = load(trained / "model")
    for row in validation.itertuples():
        found = predictor.predict(trained / "toy" / "images" / row.image)
        assert found.probability == pytest.approx(row.probability, abs=1e-5)


def test_the_export_gives_the_same_uncalibrated_probability_elsewhere(trained: Path) -> None:
    picture = trained / "toy" / "images" / "1.png"
    code = (
        "import sys, maskfast\n"
        "from fastai.vision.all import load_learner\n"
        "from PIL import Image\n"
        f"learn = load_learner({str(trained / 'model' / 'export.pkl')!r})\n"
        f"path = {str(picture)!r}\n"
        "with learn.no_bar():\n"
        "    print(*(float(learn.predict(s)[2][1]) for s in (path, open(path, 'rb').read(), Image.open(path))))\n"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=trained)
    assert run.returncode == 0, run.stderr
    predictor = load(trained / "model")
    raw = predictor.logits_arrays(load_image(picture, 32)[None])[0]
    expected = 1 / (1 + np.exp(raw[0] - raw[1]))
    for value in run.stdout.split():
        assert float(value) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("head", ["concat", "mil"])
def test_the_export_alone_answers_as_the_bundle_does_before_its_temperature(
    head: str, toy: Path, tmp_path: Path
) -> None:
    train_learner(toy, **TOY | {"epochs": 1, "method": "pad"}, head=head, out=tmp_path / "model")
    bundle, export = load(tmp_path / "model"), load(tmp_path / "model" / "export.pkl")
    assert (export.size, export.method) == (32, "pad")
    for picture in sorted((toy / "images").iterdir())[:4]:
        pixels = load_image(picture, 32, "pad")[None]
        assert export.logits_arrays(pixels) == pytest.approx(bundle.logits_arrays(pixels), abs=1e-4)


def test_the_same_seed_gives_the_same_weights(toy: Path, tmp_path: Path) -> None:
    first = train_learner(toy, **TOY, out=tmp_path / "a").model.state_dict()
    second = train_learner(toy, **TOY, out=tmp_path / "b", workers=2).model.state_dict()
    other = train_learner(toy, **TOY | {"seed": 1}, out=tmp_path / "c").model.state_dict()
    assert all(first[key].equal(second[key]) for key in first)
    assert not all(first[key].equal(other[key]) for key in first)


@pytest.mark.parametrize(
    "recipe",
    [
        {"mixup": 0.4, "label_smoothing": 0.1, "ema": 0.9, "balance": "sampling", "augment": "strong"},
        {
            "balance": "weights",
            "size": 48,
            "progressive": (32,),
            "augment": "classic",
            "optimizer": "adam",
            "head": "mil",
        },
        {"folds": 2, "epochs": 1, "views": ("plain", "flip"), "augment": "scenes", "recall": 0.9},
        {"cache": False, "precision": "fp32", "early_stop": 1, "epochs": 3, "augment": "none"},
    ],
)
def test_recipes_run(recipe: dict[str, object], toy: Path, tmp_path: Path) -> None:
    train_learner(toy, **TOY | recipe, out=tmp_path / "model")
    predictor = load(tmp_path / "model")
    assert predictor.manifest.members == max(1, recipe.get("folds", 0))
    assert 0 < predictor.predict(toy / "images" / "0.png").probability < 1
    if "folds" in recipe:
        answers = pd.read_csv(tmp_path / "model" / "report" / "oof.csv")
        assert len(answers) == 32
        assert set(answers["fold"]) == {0, 1}


@pytest.mark.parametrize("able", [True, False])
def test_bf16_is_done_as_told_with_a_warning_where_it_is_slow(
    able: bool, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(train, "has_bf16", lambda _device: able)
    learn = train_learner(toy, **TOY | {"epochs": 1}, precision="bf16", out=tmp_path / "model")
    assert ("no instructions for bf16" in caplog.text) != able
    assert next(learn.model.parameters()).dtype == torch.float32


def test_one_class_only_is_refused(toy: Path, tmp_path: Path) -> None:
    labels = pd.read_csv(toy / "train_labels.csv").assign(target=1)
    labels.to_csv(toy / "train_labels.csv", index=False)
    with pytest.raises(DataError, match="both classes"):
        train_learner(toy, **TOY, out=tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ({"arch": "resnet33"}, "resnet34"),
        ({"weights": "/nowhere.pth"}, "nowhere"),
        ({"epoch": 3}, "epochs"),
        ({"epochs": "many"}, "many"),
        ({"size": 3}, "32"),
        ({"folds": 1}, "folds"),
    ],
)
def test_wrong_options_are_named(option: dict[str, object], word: str, toy: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=word):
        train_learner(toy, **TOY | option, out=tmp_path / "model")


def test_a_place_that_can_not_be_written_is_refused(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path / "file", tmp_path / "file" / "model", toy):
        with pytest.raises(ConfigError, match=re.escape(f"--out {out}: ")):
            train_learner(toy, **TOY, out=out)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_loss_that_is_no_number_is_told(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lower --lr"):
        train_learner(toy, **TOY | {"lr": 1e30, "epochs": 1}, out=tmp_path / "model")


def test_pictures_that_can_not_be_read_are_left_out(toy: Path, tmp_path: Path) -> None:
    (toy / "images" / "4.png").write_bytes(b"")
    (toy / "images" / "6.png").unlink()
    learn = train_learner(toy, **TOY, out=tmp_path / "model")
    used = {*learn.dls.train.items["image"], *learn.dls.valid.items["image"]}
    assert used == {f"{number}.png" for number in range(32)} - {"4.png", "6.png"}
