"""Temperature against torch's optimiser, thresholds against trying every one."""

import numpy as np
import pytest
import torch

from maskfast.core.errors import ConfigError
from maskfast.score.calibration import (
    apply_temperature,
    choose_threshold,
    fit_temperature,
    report_temperature,
)


def draw_logits(count: int = 3000, *, sharpness: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    margins = rng.normal(0, 2, count)
    labels = (rng.random(count) < 1 / (1 + np.exp(-margins))).astype(int)
    shift = rng.normal(0, 5, count)
    return np.stack([shift, shift + sharpness * margins], axis=1), labels


def ask_torch(logits: np.ndarray, labels: np.ndarray) -> float:
    log_t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_t], max_iter=200, line_search_fn="strong_wolfe")

    def close() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(torch.tensor(logits) / log_t.exp(), torch.tensor(labels))
        loss.backward()
        return loss

    optimiser.step(close)
    return float(log_t.detach().exp())


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_temperature_is_the_minimum_torch_finds(sharpness: float) -> None:
    logits, labels = draw_logits(sharpness=sharpness)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(ask_torch(logits, labels), rel=0.01)
    assert found == pytest.approx(sharpness, rel=0.1)


def test_applied_temperature_is_torchs_softmax() -> None:
    logits, _ = draw_logits(50)
    expected = torch.softmax(torch.tensor(logits) / 1.7, dim=1)[:, 1].numpy()
    assert apply_temperature(logits, 1.7) == pytest.approx(expected, abs=1e-12)
    assert apply_temperature([[4000.0, -4000.0], [-4000.0, 4000.0]], 0.1).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("seed", range(5))
def test_log_loss_never_gets_worse(seed: int) -> None:
    for count in (1, 2, 7, 300):
        logits, labels = draw_logits(count, sharpness=0.3 + seed, seed=seed)
        report = report_temperature(logits, labels, fit_temperature(logits, labels))
        assert report["log_loss_after"] <= report["log_loss_before"]


def test_perfect_answers_do_not_become_certainty() -> None:
    labels = np.arange(20) % 2
    logits = np.stack([-2.0 * labels, 2.0 * labels], axis=1)
    assert 0.4 < fit_temperature(logits, labels) <= 1
    assert fit_temperature(np.zeros((0, 2)), []) == 1.0


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\).*\(N, 2\)"):
        fit_temperature(np.zeros(3), [0, 1, 1])
    with pytest.raises(ValueError, match="3 rows of logits but 2 labels"):
        fit_temperature(np.zeros((3, 2)), [0, 1])


def draw_scores(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 200)
    return labels, np.clip(rng.normal(0.3 + 0.4 * labels, 0.25), 0, 1).round(2)


@pytest.mark.parametrize("recall", [0.5, 0.9, 0.99, 1.0])
def test_recall_is_reached_by_the_highest_threshold(recall: float) -> None:
    labels, probs = draw_scores()
    choice = choose_threshold(labels, probs, recall=recall)
    assert choice.recall == np.mean(probs[labels == 1] >= choice.threshold) >= recall
    lowest_called = probs[probs >= choice.threshold].min()
    assert np.mean(probs[labels == 1] > lowest_called) < recall


@pytest.mark.parametrize(("miss", "alarm"), [(1, 1), (20, 1), (1, 50), (1e6, 1), (1, 1e6)])
def test_no_other_threshold_is_cheaper(miss: float, alarm: float) -> None:
    labels, probs = draw_scores()

    def price(threshold: float) -> float:
        called = probs >= threshold
        return float(np.mean(miss * (labels == 1) * ~called + alarm * (labels == 0) * called))

    choice = choose_threshold(labels, probs, cost_miss=miss, cost_false_alarm=alarm)
    assert choice.cost == pytest.approx(price(choice.threshold))
    assert choice.cost <= min(price(t) for t in np.linspace(0, 1, 1001)) + 1e-12
    assert 0 <= choice.threshold <= 1


def test_one_cost_alone_is_a_ratio_to_one() -> None:
    labels, probs = draw_scores()
    assert choose_threshold(labels, probs, cost_miss=5) == choose_threshold(
        labels, probs, cost_miss=5, cost_false_alarm=1
    )


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({}, "give --recall or --cost-miss"),
        ({"recall": 0.9, "cost_miss": 2}, "not both"),
        ({"recall": 1.2}, "--recall: 1.2"),
        ({"cost_miss": -1}, "--cost-miss: -1"),
        ({"cost_false_alarm": float("nan")}, "--cost-false-alarm: nan"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(wish: dict[str, float], message: str) -> None:
    labels, probs = draw_scores()
    with pytest.raises(ConfigError, match=message):
        choose_threshold(labels, probs, **wish)


def test_a_threshold_of_one_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="saw 2 masks in 2 pictures"):
        choose_threshold([1, 1], [0.3, 0.4], recall=0.9)
