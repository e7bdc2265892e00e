"""The trackers record a real training: TensorBoard beside the bundle, Weights & Biases without a network."""

import time
from pathlib import Path

import pytest

from maskfast.learn.train import train_learner

TINY = {"arch": "simple_cnn", "weights": "none", "size": 32, "epochs": 2, "lr": 1e-3, "batch_size": 8}


def test_tensorboard_gets_the_losses_of_every_step(toy: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train_learner(toy, **TINY, out=tmp_path / "model", track="tensorboard")
    found = accumulator.EventAccumulator(str(tmp_path / "model.tensorboard")).Reload()
    assert {"train_loss", "accuracy", "lr_0"} <= set(found.Tags()["scalars"])
    assert len(found.Scalars("train_loss")) >= 2
    assert {entry.name for entry in tmp_path.iterdir()} == {"cache", "toy", "model", "model.tensorboard"}


def test_weights_and_biases_get_a_run_for_each_fold(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    begun = []
    begin = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **told: begun.append(begin(**told)))
    train_learner(toy, **TINY, out=tmp_path / "model", folds=2, track="wandb")
    wandb.finish()
    assert [run.name for run in begun] == ["model", "model"]
    assert all(run.config["arch"] == "simple_cnn" for run in begun)
    deadline = time.monotonic() + 60  # a process of its own writes the files
    while count_recorded(tmp_path) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert count_recorded(tmp_path) == len(list_runs(tmp_path)) == 2


def list_runs(folder: Path) -> list[Path]:
    return list(folder.glob("wandb/offline-run-*/*.wandb"))


def count_recorded(folder: Path) -> int:
    return sum(b"train_loss" in path.read_bytes() for path in list_runs(folder))
