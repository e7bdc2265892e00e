"""Validation logits and labels in; a temperature or a decision threshold out."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskfast.core.errors import ConfigError
from maskfast.score.metrics import Floats, compute_metrics, count_at_thresholds

TEMPERATURES = (0.05, 20.0)
"""The temperatures searched."""

PRIOR_WIDTH = 0.5
"""Standard deviation of log temperature around 0 before any picture is seen: most networks lie within 0.4 to 2.7."""


def apply_temperature(logits: ArrayLike, temperature: float) -> Floats:
    """Turn (N, 2) logits [no_mask, mask] into N probabilities of a mask: softmax(logits / temperature)[:, 1]."""
    margin = _find_margins(logits) / temperature
    return np.exp(-np.logaddexp(0, -margin))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Find the temperature that minimises the log loss of (N, 2) logits against N labels (1 mask, 0 none).

    Temperature scaling as in Guo et al. 2017 (arXiv:1706.04599): it never changes the order of the probabilities. A
    log-normal prior around 1 of width PRIOR_WIDTH weighs as much as one picture: it hardly matters among hundreds, and
    keeps logits without an error, which have no finite best temperature, from claiming certainty. The log loss at the
    found temperature is never above the one at 1. Returns 1.0 for no pictures.
    """
    margins = _find_margins(logits)
    signs = 2 * np.asarray(labels, dtype=float) - 1
    if len(margins) != len(signs):
        raise ValueError(f"{len(margins)} rows of logits but {len(signs)} labels; give one row a label")
    return _search_temperature(margins * signs) if len(margins) else 1.0


def report_temperature(logits: ArrayLike, labels: ArrayLike, temperature: float) -> dict[str, float | None]:
    """Return `temperature` and the log loss and ECE of the logits before and after it."""
    before, after = (compute_metrics(labels, apply_temperature(logits, t)) for t in (1.0, temperature))
    return {
        "temperature": temperature,
        "log_loss_before": before["log_loss"],
        "log_loss_after": after["log_loss"],
        "ece_before": before["ece"],
        "ece_after": after["ece"],
    }


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """A decision threshold, what was asked for, and what it does on the pictures it was chosen on."""

    threshold: float
    reason: str
    recall: float
    false_alarm_rate: float
    cost: float | None = None


def choose_threshold(
    labels: ArrayLike,
    probs: ArrayLike,
    *,
    recall: float | None = None,
    cost_miss: float | None = None,
    cost_false_alarm: float | None = None,
) -> ThresholdChoice:
    """Choose the threshold at or above which a picture is called mask, for one stated wish.

    `recall` (0..1): the highest threshold that still finds that share of the pictures with a mask.
    `cost_miss` and `cost_false_alarm` (only their ratio counts; a missing one is 1): the threshold of least mean cost.
    Both classes must be there. Thresholds are put half-way between the two probabilities they part.
    """
    y, p = np.asarray(labels, dtype=float), np.asarray(probs, dtype=float)
    if not 0 < y.sum() < len(y):
        raise ConfigError(f"a threshold needs pictures of both classes; saw {int(y.sum())} masks in {len(y)} pictures")
    if recall is not None:
        if cost_miss is not None or cost_false_alarm is not None:
            raise ConfigError("give either a recall or costs, not both")
        return _choose_for_recall(y, p, recall)
    if cost_miss is None and cost_false_alarm is None:
        raise ConfigError("a threshold is chosen for a recall or for costs; give --recall or --cost-miss")
    return _choose_for_cost(y, p, _read_cost("miss", cost_miss), _read_cost("false-alarm", cost_false_alarm))


def _read_cost(name: str, cost: float | None) -> float:
    if cost is not None and not 0 < cost < math.inf:
        raise ConfigError(f"--cost-{name}: {cost:g} is no cost; give a number above 0")
    return 1.0 if cost is None else cost


def _choose_for_recall(y: Floats, p: Floats, recall: float) -> ThresholdChoice:
    if not 0 < recall <= 1:
        raise ConfigError(f"--recall: {recall:g} is no share; give a number above 0, at most 1")
    _, hits, _ = count_at_thresholds(y, p)
    enough = hits >= recall * y.sum() - 1e-9
    return _describe_choice(y, p, int(np.argmax(enough)), f"recall of at least {recall:g}")


def _choose_for_cost(y: Floats, p: Floats, miss: float, false_alarm: float) -> ThresholdChoice:
    _, hits, alarms = count_at_thresholds(y, p)
    costs = miss * (y.sum() - np.r_[0, hits]) + false_alarm * np.r_[0, alarms]
    if p.max() == 1:
        costs[0] = math.inf  # no threshold within 0..1 calls none of them mask
    cheapest = int(np.argmin(costs))
    reason = f"least cost where a miss costs {miss:g} and a false alarm {false_alarm:g}"
    return _describe_choice(y, p, cheapest - 1, reason, cost=float(costs[cheapest]) / len(y))


def _describe_choice(y: Floats, p: Floats, last: int, reason: str, *, cost: float | None = None) -> ThresholdChoice:
    """Describe the choice that calls mask all down to the `last` distinct probability (-1: none)."""
    threshold = _place_threshold(np.unique(p)[::-1], last)
    called = p >= threshold
    return ThresholdChoice(
        threshold=threshold,
        reason=reason,
        recall=float(called[y == 1].mean()),
        false_alarm_rate=float(called[y == 0].mean()),
        cost=cost,
    )


def _place_threshold(falling: Floats, last: int) -> float:
    above = float(falling[last]) if last >= 0 else 1.0
    below = float(falling[last + 1]) if last + 1 < len(falling) else 0.0
    middle = (above + below) / 2
    return middle if middle > below else above


def _find_margins(logits: ArrayLike) -> Floats:
    values = np.asarray(logits, dtype=float)
    if values.ndim != 2 or values.shape[1] != 2:
        raise ValueError(f"logits have the shape {values.shape}; give (N, 2): no_mask, mask")
    margins: NDArray[np.float64] = values[:, 1] - values[:, 0]
    return margins


def _search_temperature(agreement: Floats) -> float:
    """Minimise over log T the sum of log(1 + exp(-agreement / T)) and the prior's (log T)^2 / (2 PRIOR_WIDTH^2)."""
    from scipy.optimize import minimize_scalar

    def lose(log_temperature: float) -> float:
        prior = (log_temperature / PRIOR_WIDTH) ** 2 / 2
        return float(np.logaddexp(0, -agreement * math.exp(-log_temperature)).sum()) + prior

    lowest, highest = (math.log(temperature) for temperature in TEMPERATURES)
    found = minimize_scalar(lose, bounds=(lowest, highest), method="bounded")
    return math.exp(float(found.x)) if lose(float(found.x)) < lose(0.0) else 1.0
