"""Where a run stands: each epoch's losses and logits flow in, history rows, the best weights and news flow out."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from torch import Tensor

from maskfast.learn.ranks import gather

log = logging.getLogger("maskfast.train")


@dataclass(frozen=True)
class Phase:
    """A part of the recipe: so many epochs of a one-cycle schedule, with the body frozen or not."""

    name: str
    epochs: int
    lr: float
    frozen: bool = False
    lr_mult: float = 100.0
    pct_start: float = 0.25
    div: float = 25.0
    sizes: tuple[int, ...] = ()
    """Side of the pictures in each epoch, in pixels."""


@dataclass
class Progress:
    """The place in one fold, and what was reached so far; everything in it is a number, a text or a tensor."""

    fold: int = 0
    phase: int = 0
    epoch: int = 0
    step: int = 0
    lr: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float = float("inf")
    best_state: dict[str, Tensor] | None = None
    averaged: dict[str, Tensor] | None = None
    averaged_steps: int = 0
    since_best: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    stopped: str = ""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values and tensors."""
        return {name: getattr(self, name) for name in asdict(Progress())}


class History(Callback):  # type: ignore[misc]
    """Measure each epoch, keep the best weights, tell the news, stop where nothing gets better."""

    order = 60  # after fastai's Recorder

    def __init__(self, progress: Progress, plan: Sequence[Phase], *, folds: int = 1, early_stop: int = 0) -> None:
        self.progress, self.plan, self.folds, self.early_stop = progress, plan, max(1, folds), early_stop
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._began = 0.0
        self._ran = False

    def before_train(self) -> None:
        """Start the clock of an epoch that is not left out."""
        self._began, self._ran = time.monotonic(), True

    def after_loss(self) -> None:
        """Stop before a loss that is no number reaches the weights."""
        if self.learn.training and not torch.isfinite(self.learn.loss):
            self.progress.stopped = f"the loss became {float(self.learn.loss.detach())}"
            self._ran = False
            raise CancelFitException

    def after_batch(self) -> None:
        """Gather the training loss, and what is needed to measure the validation pictures."""
        if self.learn.training:
            self.progress.loss_sum += float(self.learn.loss.detach()) * len(self.learn.yb[0])
            self.progress.loss_count += len(self.learn.yb[0])
        else:
            self._logits.append(self.learn.pred.detach().float().cpu())
            self._targets.append(self.learn.yb[0].detach().cpu())

    def before_validate(self) -> None:
        """Forget the last epoch's logits."""
        self._logits, self._targets = [], []

    def after_validate(self) -> None:
        """Keep the weights where they are the best so far, or the last ones until pictures have their full size."""
        if not self._ran or not (answers := self._gather_answers()):
            return
        log_loss, accuracy = measure_logits(*(torch.cat(parts) for parts in zip(*answers, strict=True)))
        self._add_row(log_loss, accuracy)
        progress, size = self.progress, self.plan[self.progress.phase].sizes[self.learn.epoch]
        is_full = size == self.plan[-1].sizes[-1]  # what weights are worth on smaller pictures tells nothing
        if np.isnan(log_loss) or (is_full and log_loss >= progress.best_loss):
            progress.since_best += 1
            return
        progress.best_loss, progress.since_best = log_loss if is_full else float("inf"), 0
        progress.best_state = copy_state(self.learn.model)

    def after_epoch(self) -> None:
        """Move on by an epoch and tell the news."""
        if not self._ran:
            return
        self._ran = False
        progress = self.progress
        progress.epoch, progress.step, progress.loss_sum, progress.loss_count = self.learn.epoch + 1, 0, 0.0, 0
        log.info("%s", self._describe_epoch())
        if self.early_stop and progress.since_best >= self.early_stop and not self.plan[progress.phase].frozen:
            progress.stopped = f"no progress in {self.early_stop} epochs"
            raise CancelFitException

    def _gather_answers(self) -> list[tuple[Tensor, Tensor]]:
        """The logits and targets of all validation pictures, whichever process had them."""
        own = [(torch.cat(self._logits), torch.cat(self._targets))] if self._logits else []
        return [answer for answers in gather(own) for answer in answers]

    def _add_row(self, log_loss: float, accuracy: float) -> None:
        progress = self.progress
        sums = gather((progress.loss_sum, progress.loss_count))
        self.progress.rows.append(
            {
                "fold": progress.fold,
                "phase": self.plan[progress.phase].name,
                "epoch": len(progress.rows) + 1,
                "train_loss": sum(each for each, _ in sums) / max(1, sum(count for _, count in sums)),
                "valid_loss": log_loss,
                "accuracy": accuracy,
                "lr": float(self.learn.opt.hypers[-1]["lr"]),
                "seconds": round(time.monotonic() - self._began, 3),
            }
        )

    def _describe_epoch(self) -> str:
        row, total = self.progress.rows[-1], sum(phase.epochs for phase in self.plan)
        where = f"fold {self.progress.fold + 1}/{self.folds}  " if self.folds > 1 else ""
        return (
            f"{where}epoch {row['epoch']}/{total}  train loss {row['train_loss']:.4f}  "
            f"log loss {row['valid_loss']:.4f}  accuracy {row['accuracy']:.4f}  "
            f"{format_time(row['seconds'])}  left {format_time(self.estimate_left())}"
        )

    def estimate_left(self) -> float:
        """Seconds until the last fold ends, with time in proportion to the pixels of an epoch."""
        left = whole = rate = 0.0
        for phase, done in zip(self.plan, self._done(), strict=True):
            seconds = [row["seconds"] for row in self.progress.rows if row["phase"] == phase.name]
            pixels = np.square(phase.sizes)
            rate = sum(seconds) / pixels[:done].sum() if done else rate
            left += rate * pixels[done:].sum()
            whole += rate * pixels.sum()
        return left + whole * (self.folds - 1 - self.progress.fold)

    def _done(self) -> list[int]:
        at = self.progress.phase
        return [p.epochs if i < at else self.progress.epoch if i == at else 0 for i, p in enumerate(self.plan)]


def measure_logits(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Log loss and accuracy of logits (N,2) against classes (N,)."""
    loss = torch.nn.functional.cross_entropy(logits.double(), targets.long())
    return float(loss), float((logits.argmax(1) == targets).double().mean())


def copy_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of a model's state that later training does not touch."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def format_time(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
