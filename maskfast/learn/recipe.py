"""The recipe of a configuration: what is told flows in, phases, a loss and the callbacks of a fit flow out."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat

from maskfast.bundle.network import NetworkSpec
from maskfast.core.config import TrainConfig
from maskfast.core.extras import import_extra
from maskfast.learn.blocks import Shrink
from maskfast.learn.progress import Phase, Progress, copy_state
from maskfast.learn.ranks import get_rank
from maskfast.learn.scenes.callbacks import PlaceLoss


def make_spec(config: TrainConfig) -> NetworkSpec:
    """The network of a configuration."""
    return NetworkSpec(
        arch=config.arch,
        head=config.head,
        hidden=config.hidden,
        dropout=config.dropout,
        sharpness=config.sharpness,
        learn_sharpness=config.learn_sharpness,
    )


def choose_optimizer(config: TrainConfig) -> str:
    """The name of the optimiser: as told, else plain SGD for `simple_cnn` and Adam for everything else."""
    if config.optimizer != "auto":
        return config.optimizer
    return "sgd" if config.arch == "simple_cnn" else "adam"


def plan_phases(config: TrainConfig, lr: float, size: int) -> list[Phase]:
    """The phases of one fold, as fastai's `fine_tune`: the head alone, then all with discriminative rates.

    A network without pretrained weights is trained as a whole from the start, at one rate. `size` is the full one of
    the pictures, in pixels.
    """
    if config.weights == "none":
        phases = [Phase("whole", config.epochs or config.frozen_epochs, lr, lr_mult=1.0)]
    else:
        frozen = Phase("frozen", config.frozen_epochs, lr, frozen=True, pct_start=0.99)
        whole = Phase("whole", config.epochs, lr / 2, lr_mult=config.lr_mult, pct_start=0.3, div=5.0)
        phases = [phase for phase in (frozen, whole) if phase.epochs]
    sizes = _plan_sizes([*config.progressive, size], sum(phase.epochs for phase in phases))
    return [replace(phase, sizes=tuple(next(sizes) for _ in range(phase.epochs))) for phase in phases]


def _plan_sizes(sizes: Sequence[int], epochs: int) -> Iterator[int]:
    """The size of each epoch of a fold: each of `sizes` has an equal part, and too few epochs have the last ones."""
    sizes = sizes[-epochs:]
    return (sizes[epoch * len(sizes) // epochs] for epoch in range(epochs))


def make_loss(config: TrainConfig, labels: pd.Series, device: torch.device) -> torch.nn.Module | CrossEntropyLossFlat:
    """The loss of a configuration, for training pictures with these `labels`."""
    weight = None
    if config.balance == "weights":
        counts = np.bincount(labels.astype(int), minlength=2)
        weight = torch.tensor(counts.sum() / (2 * counts), dtype=torch.float32, device=device)
    if config.label_smoothing:
        return LabelSmoothingCrossEntropyFlat(eps=config.label_smoothing, weight=weight)
    return CrossEntropyLossFlat(weight=weight)


def weigh_rows(labels: pd.Series) -> torch.Tensor:
    """How often each training picture is drawn so that both classes are drawn equally often."""
    classes = labels.astype(int).to_numpy()
    return torch.from_numpy(1.0 / np.bincount(classes, minlength=2)[classes])


def make_recipe_callbacks(config: TrainConfig, progress: Progress, plan: Sequence[Phase]) -> list[Callback]:
    """The callbacks of a fit that the recipe asks for."""
    callbacks: list[Callback] = []
    if config.mixup:
        callbacks.append(MixUp(config.mixup))
    if config.ema:
        averaged = AveragedWeights(progress, config.ema)
        callbacks += [averaged, OwnWeightsBack(averaged)]
    if config.scenes:
        callbacks.append(PlaceLoss(config.places))
    if config.progressive:
        callbacks.append(GrowingSize(plan[progress.phase].sizes))
    return callbacks + _make_trackers(config)


class AveragedWeights(Callback):  # type: ignore[misc]
    """Keep an exponential average of the weights, which is validated and kept in place of the last ones.

    The decay grows from 0.1 to `decay` in the first steps, so that the random start is soon forgotten.
    """

    order = 55  # before History, which copies what is validated

    def __init__(self, progress: Progress, decay: float) -> None:
        self.progress, self.decay = progress, decay
        self.own: dict[str, torch.Tensor] = {}

    def before_fit(self) -> None:
        """Begin with the weights as they are, or with the average so far."""
        if self.progress.averaged is None:
            self.progress.averaged = copy_state(self.learn.model)
        device = self.learn.dls.device
        self.progress.averaged = {key: value.to(device) for key, value in self.progress.averaged.items()}

    def after_batch(self) -> None:
        """Move the average towards the weights."""
        if not self.learn.training:
            return
        assert self.progress.averaged is not None, "made before the fit"
        self.progress.averaged_steps += 1
        decay = min(self.decay, self.progress.averaged_steps / (self.progress.averaged_steps + 9))
        with torch.no_grad():
            for name, value in self.learn.model.state_dict().items():
                average = self.progress.averaged[name]
                if average.dtype.is_floating_point:
                    average.lerp_(value, 1 - decay)
                else:
                    average.copy_(value)

    def before_validate(self) -> None:
        """Put the average in place."""
        assert self.progress.averaged is not None, "made before the fit"
        self.own = copy_state(self.learn.model)
        self.learn.model.load_state_dict(self.progress.averaged)


class OwnWeightsBack(Callback):  # type: ignore[misc]
    """Give the model its own weights back after the averaged ones were validated and copied."""

    order = 65  # after History, before Checkpointer

    def __init__(self, averaged: AveragedWeights) -> None:
        self.averaged = averaged

    def after_validate(self) -> None:
        """Swap back."""
        self.learn.model.load_state_dict(self.averaged.own)


class GrowingSize(Callback):  # type: ignore[misc]
    """Progressive resizing: each epoch of a phase has pictures of its own size."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes

    def before_epoch(self) -> None:
        """Set the size of the epoch."""
        set_size(self.learn, self.sizes[self.learn.epoch])

    def after_fit(self) -> None:
        """Go back to full size."""
        set_size(self.learn, None)


def set_size(learn: Learner, size: int | None) -> None:
    """Scale the pictures of both loaders down to `size`; None leaves them."""
    for loader in learn.dls.loaders:
        for transform in loader.after_batch.fs:
            if isinstance(transform, Shrink):
                transform.size = size


def _make_trackers(config: TrainConfig) -> list[Callback]:
    """fastai's own callback of the tracker that is asked for; of several processes the first alone tracks."""
    if config.track == "none" or get_rank():
        return []
    import_extra(config.track, "track")
    if config.track == "wandb":
        return [_start_wandb(config)]
    from fastai.callback.tensorboard import TensorBoardCallback

    folder = config.out.parent / f"{config.out.name}.tensorboard"
    return [TensorBoardCallback(log_dir=folder, trace_model=False, log_preds=False)]


def _start_wandb(config: TrainConfig) -> Callback:
    """Begin a run of Weights & Biases, after that of another fold, and return the callback that records it."""
    import wandb
    from fastai.callback.wandb import WandbCallback

    class OwnSettings(WandbCallback):  # type: ignore[misc]
        """fastai's callback without its gathering of settings, which fails on arguments that have no `__dict__`."""

        def before_fit(self) -> None:
            self.learn.gather_args = dict
            try:
                super().before_fit()
            finally:
                del self.learn.gather_args

    if wandb.run is not None:
        wandb.finish()
    told = config.model_dump(mode="json")
    wandb.init(project="maskfast", name=config.out.name, dir=str(config.out.parent), config=told)
    return OwnSettings(log_preds=False, log_model=False)
