"""Tests of what a run says about itself while it goes on."""

from types import SimpleNamespace

import pytest
import torch
from fastai.callback.core import CancelFitException

from maskfast.core.config import make_config
from maskfast.learn.progress import History, Progress
from maskfast.learn.recipe import plan_phases


@pytest.mark.parametrize(
    ("options", "seconds", "left"),
    [
        # Six epochs at 32, 32, 64, 64, 128, 128 pixels; an epoch at 32 took one second, so one at 64 takes four.
        ({"weights": "none", "epochs": 6, "progressive": (32, 64)}, [1], 1 + 4 * 2 + 16 * 2),
        ({"weights": "none", "epochs": 6, "progressive": (32, 64)}, [1, 1, 4, 4, 16], 16),
        ({"weights": "none", "epochs": 3}, [2, 4], 3),
        # The head alone tells little about all, but it is all that is known.
        ({"epochs": 2}, [5], 10),
        ({"epochs": 2}, [5, 9], 9),
        ({"epochs": 2, "folds": 3}, [5, 9], 9 + 2 * (5 + 9 + 9)),
    ],
)
def test_the_time_left_follows_the_pixels(options: dict[str, object], seconds: list[float], left: float) -> None:
    config = make_config(options)
    plan = plan_phases(config, 1e-3, 128)
    rows = [{"phase": phase.name} for phase in plan for _ in range(phase.epochs)][: len(seconds)]
    rows = [row | {"seconds": each} for row, each in zip(rows, seconds, strict=True)]
    at = len(plan) - 1 if len(rows) > plan[0].epochs else 0
    progress = Progress(rows=rows, phase=at, epoch=len(rows) - sum(phase.epochs for phase in plan[:at]))
    assert History(progress, plan, folds=config.folds).estimate_left() == pytest.approx(left)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"epochs": 5, "weights": "none", "progressive": (32, 48)}, [[32, 32, 48, 48, 64]]),
        ({"epochs": 3, "progressive": (32,)}, [[32], [32, 64, 64]]),
        ({"epochs": 2, "weights": "none", "progressive": (32, 40, 48)}, [[48, 64]]),
        ({"epochs": 1, "weights": "none", "progressive": (32, 48)}, [[64]]),
        ({"epochs": 2, "weights": "none"}, [[64, 64]]),
    ],
)
def test_the_last_epoch_always_has_pictures_of_full_size(options: dict[str, object], sizes: list[list[int]]) -> None:
    plan = plan_phases(make_config(options), 1e-3, 64)
    assert [list(phase.sizes) for phase in plan] == sizes


@pytest.mark.parametrize(
    ("progressive", "losses", "kept", "stopped_after"),
    [
        ((), [0.5, 0.2, 0.3, 0.4], 1, 3),
        # The first half is easier, being smaller: its losses tell nothing about the second.
        ((32,), [0.2, 0.1, 0.5, 0.4], 3, None),
        ((32,), [0.1, 0.2, 0.4, 0.5], 2, None),
        ((32,), [0.1, 0.2], 1, None),
        ((), [0.5, float("nan"), 0.6], 0, 2),
        ((32,), [0.1, 0.2, 0.3, 0.3, 0.4, 0.5, 0.6, 0.7], 4, 6),
    ],
)
def test_the_best_weights_are_those_for_pictures_of_full_size(
    progressive: tuple[int, ...], losses: list[float], kept: int, stopped_after: int | None
) -> None:
    """The weights stand for the epoch; early stopping waits for two epochs without progress at full size."""
    epochs = 8 if len(losses) == 8 else 4
    plan = plan_phases(make_config({"weights": "none", "epochs": epochs, "progressive": progressive}), 1e-3, 64)
    progress, network = Progress(), torch.nn.Linear(1, 1, bias=False)
    history = History(progress, plan, early_stop=2)
    for epoch, loss in enumerate(losses):
        torch.nn.init.constant_(network.weight, epoch)
        chances = torch.tensor([-loss]).exp() * torch.tensor([1, -1]) + torch.tensor([0, 1])
        history.learn = SimpleNamespace(
            epoch=epoch, model=network, training=False, opt=SimpleNamespace(hypers=[{"lr": 0.1}]),
            pred=chances.log()[None], yb=(torch.tensor([0]),),
        )  # fmt: skip
        history.before_train()
        history.before_validate()
        history.after_batch()
        history.after_validate()
        assert progress.rows[-1]["valid_loss"] == pytest.approx(loss, nan_ok=True)
        try:
            history.after_epoch()
        except CancelFitException:
            assert epoch == stopped_after
            break
    else:
        assert stopped_after is None
    assert progress.best_state is not None
    assert progress.best_state["weight"].item() == kept
