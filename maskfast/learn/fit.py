"""One fold of a run: split items and a configuration flow in, a trained Learner and its validation logits flow out."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.data.core import DataLoaders
from fastai.imports import IN_NOTEBOOK
from fastai.learner import Learner
from numpy.typing import NDArray

from maskfast.bundle.backbones import Backbone
from maskfast.core.config import TrainConfig
from maskfast.core.errors import ConfigError
from maskfast.core.image import load_image
from maskfast.data.tables import select_usable
from maskfast.learn.augment import make_augment
from maskfast.learn.blocks import make_dls
from maskfast.learn.checkpoint import FORMAT, Checkpointer, read_progress, restore_state, save_checkpoint
from maskfast.learn.learner import find_chain, find_lr, make_learner
from maskfast.learn.pixels import PixelCache
from maskfast.learn.progress import History, Phase, Progress, log
from maskfast.learn.ranks import agree, count_ranks, first_alone
from maskfast.learn.recipe import (
    choose_optimizer,
    make_loss,
    make_recipe_callbacks,
    make_spec,
    plan_phases,
    weigh_rows,
)
from maskfast.learn.runs import CHECKPOINT, name_finished
from maskfast.learn.scenes.callbacks import FrozenLayers, PlaceLoss
from maskfast.learn.scenes.loader import learn_from_plain, learn_from_scenes
from maskfast.learn.seeding import Seeding, mix_seed, seed_all
from maskfast.learn.speed import Machine, make_speed_callbacks, measure_workers, run_in_bf16
from maskfast.learn.validate import predict_logits, read_arrays


@dataclass(frozen=True)
class Setting:
    """What all folds of a run share."""

    config: TrainConfig
    backbone: Backbone
    machine: Machine
    size: int
    folder: Path
    interrupted: Callable[[], bool]

    @property
    def folds(self) -> int:
        """How many networks are trained."""
        return max(1, self.config.folds)


@dataclass(frozen=True)
class FoldResult:
    """A trained fold: its learner with the best weights, its history and its answers for the validation pictures."""

    learn: Learner
    progress: Progress
    validation: pd.DataFrame
    images: NDArray[np.uint8]


def fit_fold(
    items: pd.DataFrame, setting: Setting, *, fold: int = 0, state: dict[str, Any] | None = None
) -> FoldResult:
    """Train one fold on items whose column `split` says train or valid, from the start or from a saved state.

    Raises ConfigError where the loss is no number before anything was learned, and InterruptedTraining after the state
    was saved.
    """
    config = setting.config
    seed_all(mix_seed(config.seed, fold, "start"))
    with first_alone():
        dls = _make_loaders(items, setting)
    learn = _make_learner(dls, setting)
    if config.scenes:
        learn_from_scenes(dls, side=setting.size, sizes=config.scene_sizes, pictures=config.scenes)
    progress = read_progress(state) if state else Progress(fold=fold, lr=agree(_choose_lr(learn, setting, fold)))
    _share_loaders(dls)
    plan = plan_phases(config, progress.lr, setting.size)
    while progress.phase < len(plan) and not progress.stopped:
        fit_phase(learn, plan, progress, setting, state=state)
        state = None
        if not progress.stopped:
            progress.phase, progress.epoch = progress.phase + 1, 0
    learn_from_plain(dls)
    _take_best(learn, progress)
    save_checkpoint(name_finished(setting.folder, fold), {"format": FORMAT, "progress": progress.to_dict()})
    return FoldResult(learn, progress, *_validate(learn, setting, progress))


def fit_phase(
    learn: Learner, plan: list[Phase], progress: Progress, setting: Setting, *, state: dict[str, Any] | None = None
) -> None:
    """Fit the phase that `progress` stands in."""
    phase, config = plan[progress.phase], setting.config
    learn.opt = None
    learn.freeze() if phase.frozen else learn.unfreeze()
    if state:
        restore_state(learn, state)
    history = History(progress, plan, folds=setting.folds, early_stop=config.early_stop)
    saver = Checkpointer(
        setting.folder / CHECKPOINT, progress, minutes=config.checkpoint_minutes, interrupted=setting.interrupted
    )
    callbacks = [history, saver, *_make_callbacks(learn, plan, progress, setting)]
    rate = slice(phase.lr / phase.lr_mult, phase.lr) if phase.lr_mult > 1 and not phase.frozen else slice(phase.lr)
    if phase.lr_mult == 1:
        rate = phase.lr  # type: ignore[assignment]
    with _quiet(learn), run_in_bf16(learn.model, setting.machine):
        learn.fit_one_cycle(
            phase.epochs, rate, pct_start=phase.pct_start, div=phase.div, wd=config.weight_decay, cbs=callbacks
        )


def _make_callbacks(learn: Learner, plan: list[Phase], progress: Progress, setting: Setting) -> list[Any]:
    stream = (setting.config.seed, progress.fold, progress.phase)
    recipe = make_recipe_callbacks(setting.config, progress, plan)
    return [
        Seeding(*stream),
        *make_speed_callbacks(setting.machine),
        *_share_training(setting),
        *recipe,
        *_make_stem(learn, setting),
    ]


def _make_stem(learn: Learner, setting: Setting) -> list[FrozenLayers]:
    if not setting.config.stem or setting.config.weights == "none":
        return []  # layers that were never trained must learn
    return [FrozenLayers(find_chain(learn.model[0])[: setting.config.stem])]


def _share_loaders(dls: DataLoaders) -> None:
    """Let several processes take their parts of each batch; accelerate is needed by these alone."""
    if count_ranks() > 1:
        from maskfast.learn.devices import share_loaders

        share_loaders(dls)


def _share_training(setting: Setting) -> list[Any]:
    """The callbacks of several processes."""
    if count_ranks() == 1:
        return []
    from maskfast.learn.devices import make_device_callbacks

    return make_device_callbacks(setting.machine.device)


def _make_loaders(items: pd.DataFrame, setting: Setting) -> DataLoaders:
    config = setting.config
    dls = make_dls(
        items,
        size=setting.size,
        method=config.method,
        batch_size=config.batch_size,
        batch_tfms=make_augment(config.augment),
        mean=setting.backbone.mean,
        std=setting.backbone.std,
        cache=config.cache,
        workers=_count_workers(items, setting) if config.workers is None else config.workers,
        device=setting.machine.device,
    )
    if config.balance == "sampling":
        dls.train.weights = weigh_rows(dls.train.items["label"])
    return dls


def _count_workers(items: pd.DataFrame, setting: Setting) -> int:
    """None read from the cache: they would cost more than they save. Else what was measured."""
    if setting.config.cache:
        return 0
    load = partial(load_image, size=setting.size, method=setting.config.method)
    return measure_workers(select_usable(items)["path"].tolist(), load)


def _make_learner(dls: DataLoaders, setting: Setting) -> Learner:
    config = setting.config
    learn = make_learner(
        dls,
        weights=config.weights,
        spec=make_spec(config),
        optimizer=choose_optimizer(config),
        loss_func=make_loss(config, dls.train.items["label"], setting.machine.device),
        path=setting.folder,
        wd=config.weight_decay,
    )
    learn.arch = config.arch
    return learn


def _choose_lr(learn: Learner, setting: Setting, fold: int) -> float:
    config = setting.config
    if config.lr != "auto":
        return float(config.lr)
    plot = setting.folder / ("lr_find.png" if fold == 0 else f"lr_find-{fold}.png")
    extra = [PlaceLoss(config.places)] if config.scenes else []
    callbacks = [Seeding(config.seed, fold, "find"), *make_speed_callbacks(setting.machine), *extra]
    with learn.added_cbs(callbacks), run_in_bf16(learn.model, setting.machine):
        lr = find_lr(learn, plot=plot, optimizer=choose_optimizer(config))
    log.info("learning rate %.2g", lr)
    return lr


def _take_best(learn: Learner, progress: Progress) -> None:
    if progress.best_state is None:
        raise ConfigError(
            f"lr: {progress.stopped or 'the log loss became nan'} before anything was learned, at learning rate "
            f"{progress.lr:.2g}; say a lower --lr, or --precision fp32"
        )
    learn.model.load_state_dict(progress.best_state)
    learn.opt = None
    if progress.stopped:
        log.warning("stopped early: %s; the best weights so far are kept", progress.stopped)


def _validate(learn: Learner, setting: Setting, progress: Progress) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    items = learn.dls.valid.items.reset_index(drop=True)
    pixels: PixelCache | None = learn.dls.valid.tfms[0][-1].pixels if setting.config.cache else None
    paths = [str(path) for path in items["path"]]
    places, images = read_arrays(paths, setting.size, setting.config.method, pixels)
    learn.model.to(memory_format=torch.contiguous_format)
    logits = predict_logits(
        learn.model, images, mean=setting.backbone.mean, std=setting.backbone.std, views=setting.config.views
    )
    rows = items.iloc[places].reset_index(drop=True)
    answers = pd.DataFrame({"logit_no_mask": logits[:, 0], "logit_mask": logits[:, 1], "fold": progress.fold})
    return pd.concat([rows[["image", "label", "source", "group"]], answers], axis=1), images


def _quiet(learn: Learner) -> ExitStack:
    """No bar and no table of fastai's, except in a notebook, where they are what people expect."""
    stack = ExitStack()
    if not IN_NOTEBOOK:
        stack.enter_context(learn.no_bar())
        stack.enter_context(learn.no_logging())
    return stack
