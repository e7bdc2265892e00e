"""Validation logits, labels and sources in; a temperature and an offset that suit all of them alike out."""

import numpy as np
from numpy.typing import ArrayLike

from maskfast.score.calibration import TEMPERATURES
from maskfast.score.metrics import Floats

LOWEST_TEMPERATURE = 0.8
"""Held-out pictures of the same sources are easier than those of a new one: they never make the model much surer."""
OFFSET_WIDTH = 1.0
TEMPERATURE_WIDTH = 0.5
"""Standard deviations of the offset around 0 and of log temperature around 0 before any picture is seen."""


def fit_balanced(logits: ArrayLike, labels: ArrayLike, sources: ArrayLike) -> tuple[float, float]:
    """Find the temperature T and the offset b that minimise the log loss of sigmoid((margin + b) / T).

    `logits` (N, 2), `labels` (N,) 1 mask or 0 none, `sources` (N,) names. Every class of every source weighs the same:
    a source with few pictures of a class would else make the model lean to the other. Normal priors, which weigh as
    much as one picture of the smallest class of a source, hold both where few pictures speak. Returns (T, b), T at
    least 0.8; (1.0, 0.0) for no pictures.
    """
    from scipy.optimize import minimize

    values, y = np.asarray(logits, dtype=float), np.asarray(labels, dtype=float)
    if not len(y):
        return 1.0, 0.0
    margins, signs, weights = values[:, 1] - values[:, 0], 2 * y - 1, weigh_cells(y, np.asarray(sources))

    def lose(found: Floats) -> float:
        log_temperature, offset = found
        loss = np.logaddexp(0, -signs * (margins + offset) * np.exp(-log_temperature))
        prior = (offset / OFFSET_WIDTH) ** 2 / 2 + (log_temperature / TEMPERATURE_WIDTH) ** 2 / 2
        return float(weights @ loss + weights.max() * prior)

    bounds = [(np.log(LOWEST_TEMPERATURE), np.log(TEMPERATURES[1])), (-5.0, 5.0)]
    found = minimize(lose, np.zeros(2), bounds=bounds)
    return float(np.exp(found.x[0])), float(found.x[1])


def weigh_cells(labels: Floats, sources: ArrayLike) -> Floats:
    """Weights (N,) that sum to 1 and give each class of each source the same part."""
    keys = [f"{label:g} {source}" for label, source in zip(labels, np.asarray(sources), strict=True)]
    _, cells, counts = np.unique(keys, return_inverse=True, return_counts=True)
    weights: Floats = 1.0 / (len(counts) * counts[cells])
    return weights
