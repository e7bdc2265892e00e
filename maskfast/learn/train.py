"""The whole way of training: labelled pictures flow in, a fastai Learner comes out after its bundle is written."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from fastai.learner import Learner

from maskfast.bundle.backbones import describe_backbone
from maskfast.bundle.manifest import Manifest, read_manifest
from maskfast.bundle.store import write_bundle
from maskfast.core.config import TrainConfig, make_config
from maskfast.core.errors import ConfigError
from maskfast.core.files import write_whole
from maskfast.learn.bundling import draft_bundle
from maskfast.learn.fit import FoldResult, Setting, fit_fold
from maskfast.learn.prepare import (
    check_model,
    check_out,
    check_tracker,
    choose_split,
    group_training_items,
    list_training_items,
    list_unusable,
)
from maskfast.learn.progress import format_time, log
from maskfast.learn.ranks import agree, count_ranks, first_alone, get_rank, join_ranks, wait_for_all, write_alone
from maskfast.learn.runs import (
    CHECKPOINT,
    begin_run,
    hash_items,
    hold_run_folder,
    read_run,
    read_state,
    watch_interrupts,
)
from maskfast.learn.speed import choose_machine, keep_memory
from maskfast.score.backends import has_bf16, hold_threads

Data = str | os.PathLike[str]
Ahead = Callable[[pd.DataFrame, Setting], None]
"""Puts the finished states of folds into the run's folder, trained wherever that is quicker."""


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


def run_training(config: TrainConfig, *, ahead: Ahead | None = None) -> TrainedRun:
    """Do what a configuration says; see `train_learner`. `ahead` may train the folds, before they are gone through."""
    config = _make_absolute(config)
    with join_ranks(config.device):
        items = _list_items(config)
        check_tracker(config)
        check_model(config)
        check_out(config.out)
        with write_alone(lambda: hold_run_folder(config.out)) as folder:
            begin_run(folder, config)
            return _train_in(folder, config, items, ahead)


def resume_training(told: TrainConfig, *, ahead: Ahead | None = None) -> TrainedRun:
    """Go on with the interrupted run into `told.out`; the weights end as if it had never been interrupted.

    Raises ConfigError where there is none, where `told` says anything else than that run was told, and where the data
    changed since.
    """
    config = read_run(told.out)
    for name, value in _make_absolute(told).model_dump(exclude_unset=True).items():
        if name != "out" and value != getattr(config, name):
            raise ConfigError(f"--resume: {name} was {getattr(config, name)} in the interrupted run; leave it out")
    with join_ranks(config.device):
        items = _list_items(config)
        check_tracker(config)
        check_out(config.out)
        with write_alone(lambda: hold_run_folder(config.out)) as folder:
            return _train_in(folder, config, items, ahead)


def _list_items(config: TrainConfig) -> pd.DataFrame:
    """What is cheap to find wrong is found before weights are fetched."""
    with first_alone():
        return list_training_items(config)


def _train_in(folder: Path, config: TrainConfig, items: pd.DataFrame, ahead: Ahead | None) -> TrainedRun:
    began = time.monotonic()
    with first_alone():
        items = group_training_items(items, config)
    _check_fingerprint(folder / "items.sha256", hash_items(items))
    try:
        with watch_interrupts() as interrupted:
            setting = _make_setting(config, folder, interrupted)
            if ahead:
                ahead(items, setting)
            results, setting = _fit_all(items, setting)
    except KeyboardInterrupt:
        log.warning("interrupted; go on with: maskfast train --resume --out %s", config.out)
        raise
    if not get_rank():
        write_bundle(config.out, draft_bundle(results, items, setting))
        shutil.rmtree(folder, ignore_errors=True)
        log.info("%s written in %s", config.out, format_time(time.monotonic() - began))
    wait_for_all()
    manifest = read_manifest(config.out)
    return TrainedRun(results[0].learn, manifest, list_unusable(items))


def _fit_all(items: pd.DataFrame, setting: Setting) -> tuple[list[FoldResult], Setting]:
    results = []
    for fold in range(setting.folds):
        split = choose_split(items, fold if setting.config.folds else None)
        result, setting = _fit_despite_faults(split, setting, fold)
        results.append(result)
    return results, setting


def _fit_despite_faults(items: pd.DataFrame, setting: Setting, fold: int) -> tuple[FoldResult, Setting]:
    """Fit a fold; out of memory halves the batch and starts it again, a dead worker is forgiven once."""
    forgiven = False
    while True:
        try:
            with keep_memory(setting.machine.device), hold_threads(setting.machine.threads):
                return fit_fold(items, setting, fold=fold, state=agree(read_state(setting.folder, fold))), setting
        except (RuntimeError, MemoryError) as error:
            if count_ranks() > 1:
                raise  # the others wait in the middle of a step
            if is_out_of_memory(error) and setting.config.batch_size > 2:
                setting = _halve_batch(setting)
            elif "DataLoader worker" in str(error) and not forgiven:
                forgiven = True
                log.warning("%s; the epoch is tried once more", str(error).splitlines()[0])
            else:
                raise


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error of torch means that memory ran out, on a GPU or on the processor."""
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs)


def _halve_batch(setting: Setting) -> Setting:
    size = setting.config.batch_size // 2
    log.warning("out of memory with %d pictures a step; the fold begins again with %d", setting.config.batch_size, size)
    (setting.folder / CHECKPOINT).unlink(missing_ok=True)
    torch.cuda.empty_cache()
    return replace(setting, config=setting.config.model_copy(update={"batch_size": size}))


def _check_fingerprint(path: Path, fingerprint: str) -> None:
    if path.is_file() and path.read_text() != fingerprint:
        raise ConfigError("--resume: the data changed since the interrupted run; leave the flag out to train anew")
    write_whole(path, fingerprint)


def _make_absolute(config: TrainConfig) -> TrainConfig:
    """The same with absolute paths, so that it means the same from any folder and later."""
    changed: dict[str, Any] = {"data": tuple(os.path.abspath(each) for each in config.data)} if config.data else {}
    if config.weights not in ("imagenet", "none"):
        changed["weights"] = os.path.abspath(config.weights)
    return config.model_copy(update=changed)


def _make_setting(config: TrainConfig, folder: Path, interrupted: Callable[[], bool]) -> Setting:
    backbone = describe_backbone(config.arch)
    machine = choose_machine(config.precision, device=config.device)
    if machine.precision == "bf16" and not has_bf16(machine.device):
        log.warning("precision: this %s has no instructions for bf16; fp32 is many times faster", machine.device.type)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return Setting(config, backbone, machine, config.size or backbone.size, folder, interrupted)
