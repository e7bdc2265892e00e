"""A run that can go on: a Learner and its Progress flow into one file, and out of it again, bit for bit.

The file is written to a temporary name, flushed to the disk and renamed, so that a kill at any moment leaves the last
whole one; it is opened with weights_only, which runs no code.
"""

import pickle
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelEpochException
from fastai.learner import Learner

from maskfast.core.errors import ConfigError
from maskfast.core.files import open_whole
from maskfast.learn.loader import PictureLoader
from maskfast.learn.progress import Progress

FORMAT = 1
TRAINING_PER_SAVING = 20
"""How many times as long as the last save the training between two epochs' ends that are saved takes at least."""


class InterruptedTraining(KeyboardInterrupt):
    """Training was interrupted after its state was saved."""


def capture_state(learn: Learner, progress: Progress) -> dict[str, Any]:
    """All that is needed to go on: weights, optimiser, place, best so far, and the random states."""
    return {
        "format": FORMAT,
        "progress": progress.to_dict(),
        "model": learn.model.state_dict(),
        "optimizer": _plain(learn.opt.state_dict()),
        "random": _capture_random(),
    }


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path`, whole or not at all."""
    with open_whole(path) as stream:
        torch.save(state, stream)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state that `save_checkpoint` wrote; ConfigError for a file that is none."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ConfigError(f"{path}: is no checkpoint ({type(error).__name__}); delete it and train anew") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ConfigError(f"{path}: was written by another version of maskfast; delete it and train anew")
    return state


def restore_state(learn: Learner, state: dict[str, Any]) -> None:
    """Put weights, optimiser and random states back into a learner whose optimiser is made and frozen as it was."""
    learn.model.load_state_dict(state["model"])
    learn.opt.load_state_dict(state["optimizer"])
    _restore_random(state["random"])


def read_progress(state: dict[str, Any]) -> Progress:
    """The place that `state` was saved at."""
    return Progress(**state["progress"])


class Checkpointer(Callback):  # type: ignore[misc]
    """Save the state at epochs' ends and every so many minutes; begin at the place a saved state has.

    Not every end is saved where epochs are short, so that saving takes a small part of the time. `interrupted` is asked
    after each batch: where it says yes, the state is saved and InterruptedTraining raised.
    """

    order = 70  # as fastai's SkipToEpoch: after History, whose row of the epoch is part of the state

    def __init__(self, path: Path | None, progress: Progress, *, minutes: float = 5.0, interrupted: Any = None) -> None:
        self.path, self.progress, self.minutes = path, progress, minutes
        self.interrupted = interrupted or (lambda: False)
        self._start_epoch, self._start_step = progress.epoch, progress.step
        self._saved_at, self._save_seconds = time.monotonic(), 0.0

    def before_epoch(self) -> None:
        """Leave out the epochs, and the batches, that were done."""
        if self.learn.epoch < self._start_epoch:
            raise CancelEpochException
        loader = self.learn.dls.train
        if isinstance(loader, PictureLoader):
            loader.skip_batches = self._start_step if self.learn.epoch == self._start_epoch else 0

    def before_train(self) -> None:
        """Take up the schedule where it stood, by the same sums that led there."""
        for _ in range(self.progress.step):
            self.learn.pct_train += 1.0 / (len(self.learn.dls.train) * self.learn.n_epoch)

    def after_batch(self) -> None:
        """Count the batch, and save where it is time."""
        if not self.learn.training:
            return
        self.progress.step += 1
        if self.progress.step >= len(self.learn.dls.train):
            return  # the state after the last batch is saved with the epoch's validation
        if self.interrupted():
            self._save()
            raise InterruptedTraining
        if self._count_seconds() > 60 * self.minutes:
            self._save()

    def after_epoch(self) -> None:
        """Save at the end of an epoch that was not left out, where it is time."""
        if self.learn.epoch < self._start_epoch:
            return
        if self.interrupted():
            self._save()
            raise InterruptedTraining
        if self._count_seconds() >= min(60 * self.minutes, TRAINING_PER_SAVING * self._save_seconds):
            self._save()

    def after_fit(self) -> None:
        """Let later fits begin at the beginning."""
        if isinstance(self.learn.dls.train, PictureLoader):
            self.learn.dls.train.skip_batches = 0

    def _count_seconds(self) -> float:
        return time.monotonic() - self._saved_at

    def _save(self) -> None:
        began = time.monotonic()
        if self.path is not None:
            save_checkpoint(self.path, capture_state(self.learn, self.progress))
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began


def _plain(value: Any) -> Any:
    """The same with NumPy's numbers and fastai's lists as Python's own, which weights_only opens."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor | str | bytes | int | float | bool | None):
        return value.as_subclass(torch.Tensor) if isinstance(value, torch.Tensor) else value
    return [_plain(inner) for inner in value]


def _capture_random() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    name, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), place, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore_random(states: dict[str, Any]) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, place, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), place, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
