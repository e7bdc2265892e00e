"""The whole way of training: labelled pictures flow in, a fastai Learner comes out after its bundle is written."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from fastai.learner import Learner
from filelock import FileLock, Timeout

from maskfast.bundle.backbones import describe_backbone
from maskfast.bundle.manifest import Manifest
from maskfast.bundle.store import write_bundle
from maskfast.core.config import TrainConfig, make_config
from maskfast.core.errors import ConfigError
from maskfast.learn.bundling import draft_bundle
from maskfast.learn.fit import FoldResult, Setting, fit_fold
from maskfast.learn.prepare import (
    check_model,
    check_out,
    choose_split,
    list_unusable,
    name_run_folder,
    read_training_items,
)
from maskfast.learn.progress import format_time, log
from maskfast.learn.speed import choose_machine

Data = str | os.PathLike[str]


@dataclass(frozen=True)
class TrainedRun:
    """What a run made: the learner, the bundle's manifest, and the rows that could not be used."""

    learn: Learner
    manifest: Manifest
    unusable: pd.DataFrame


def train_learner(data: Data | Sequence[Data], *, config: TrainConfig | None = None, **options: Any) -> Learner:
    """Train on labelled pictures, write the bundle to `out`, and return the fastai Learner with its best weights.

    `data`: what `read_items` reads, one or several. `options`: any field of `TrainConfig`, over those of `config`.
    Raises a MaskfastError for whatever is wrong with the data or the options, before anything takes long.
    """
    several = [data] if isinstance(data, str | os.PathLike) else list(data)
    told = (config.model_dump(exclude_unset=True) if config else {}) | options
    return run_training(make_config(told | {"data": tuple(os.fspath(each) for each in several)})).learn


def run_training(config: TrainConfig) -> TrainedRun:
    """Do what a configuration says; see `train_learner`."""
    began = time.monotonic()
    check_out(config.out)
    check_model(config)
    folder = name_run_folder(config.out)
    with _hold_alone(folder, config.out):
        setting = _make_setting(config, folder)
        items = read_training_items(config)
        results = _fit_all(items, setting)
        manifest = write_bundle(config.out, draft_bundle(results, items, setting))
    shutil.rmtree(folder, ignore_errors=True)
    log.info("%s written in %s", config.out, format_time(time.monotonic() - began))
    return TrainedRun(results[0].learn, manifest, list_unusable(items))


def resume_training(config: TrainConfig) -> TrainedRun:
    """Go on with the interrupted run into `config.out`."""
    raise ConfigError(f"--out {config.out}: nothing to resume")


def _fit_all(items: pd.DataFrame, setting: Setting) -> list[FoldResult]:
    if not setting.config.folds:
        return [fit_fold(items, setting)]
    return [fit_fold(choose_split(items, fold), setting, fold=fold) for fold in range(setting.config.folds)]


def _make_setting(config: TrainConfig, folder: Path) -> Setting:
    backbone = describe_backbone(config.arch)
    machine = choose_machine(config.precision, device=config.device)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return Setting(config, backbone, machine, config.size or backbone.size, folder, lambda: False)


@contextmanager
def _hold_alone(folder: Path, out: Path) -> Iterator[None]:
    """Hold the run's folder; ConfigError where another training holds it."""
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(f"--out {out}: another training is writing there; wait for it, or name another") from error
    try:
        yield
    finally:
        lock.release()
