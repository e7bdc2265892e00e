"""Labels and probabilities in, figures out: one weighted definition gives them and their bootstrap intervals."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Metrics: TypeAlias = dict[str, float | None]

PROB_FLOOR = 1e-7
"""Probabilities are held within [PROB_FLOOR, 1 - PROB_FLOOR] before a logarithm: about what float32 can tell from 1."""

ECE_BINS = 15
"""Equal-width bins of the expected calibration error (Guo et al. 2017, arXiv:1706.04599, section 4)."""

CHUNK = 2**21
"""Weights of bootstrap resamples held at a time (16 MiB, and a few times that while they are used)."""

METRIC_NAMES = (
    "accuracy",
    "log_loss",
    "auc",
    "average_precision",
    "f1",
    "sensitivity",
    "specificity",
    "brier",
    "ece",
)


def compute_metrics(
    labels: ArrayLike,
    probs: ArrayLike,
    *,
    threshold: float = 0.5,
    bootstrap: int = 0,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> Metrics:
    """Compute METRIC_NAMES, `count` and `positives` of N labels (1 mask, 0 none) and N probabilities of a mask.

    A picture is called mask where its probability is at least `threshold`. With `bootstrap` resamples every figure
    also has its 95 % percentile interval, as NAME_low and NAME_high; an accuracy, sensitivity or specificity of exactly
    0 or 1, of which every resample is the same, gets its Wilson interval instead. With `groups` (N ids) whole groups
    are resampled, so that near-duplicates do not make the interval too narrow. A figure these labels leave undefined
    (AUC of one class) is None; `explain_undefined` says why. Raises ValueError on unequal lengths, other labels, or
    probabilities outside 0..1.
    """
    y, p = _check_pairs(labels, probs)
    metrics: Metrics = {"count": len(y), "positives": int(y.sum())}
    point = _weigh_metrics(y, p, np.ones((1, len(y))), threshold)
    metrics |= {name: _to_number(values[0]) for name, values in point.items()}
    if bootstrap and len(y):
        metrics |= _bootstrap_intervals(y, p, threshold, draw_weights(len(y), bootstrap, groups=groups, seed=seed))
        metrics = _widen_certain(metrics, np.arange(len(y)) if groups is None else np.asarray(groups), y)
    return metrics


def compute_by_source(
    labels: ArrayLike,
    probs: ArrayLike,
    sources: Sequence[str],
    *,
    threshold: float = 0.5,
    bootstrap: int = 0,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> dict[str, Metrics]:
    """Compute the metrics of each source apart, in the order of the sources' names."""
    y, p, names = np.asarray(labels), np.asarray(probs), np.asarray(sources, dtype=str)
    grouped = None if groups is None else np.asarray(groups)

    def compute(chosen: NDArray[np.bool_]) -> Metrics:
        part = None if grouped is None else grouped[chosen]
        return compute_metrics(y[chosen], p[chosen], threshold=threshold, bootstrap=bootstrap, groups=part, seed=seed)

    return {str(name): compute(names == name) for name in np.unique(names)}


def explain_undefined(metrics: Metrics) -> dict[str, str]:
    """Return why each figure of `metrics` that is None could not be computed."""
    count, positives = metrics["count"] or 0, metrics["positives"] or 0
    if not count:
        reason = "there are no labelled pictures"
    elif not positives:
        reason = "no picture is labelled mask"
    elif positives == count:
        reason = "every picture is labelled mask"
    else:
        reason = "too few resamples hold both classes"
    return {name: reason for name, value in metrics.items() if value is None}


def draw_weights(
    count: int, draws: int, *, groups: ArrayLike | None = None, seed: int = 0, chunk: int = CHUNK
) -> Iterator[Floats]:
    """Draw `draws` bootstrap resamples of `count` pictures: yields (some, count) weights, how often each was drawn.

    A chunk holds about `chunk` weights, and at least one resample; the resamples do not depend on it.
    """
    members = np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    total = int(members.max(initial=-1)) + 1
    rng = np.random.default_rng(seed)
    step = max(1, chunk // max(1, count))
    for start in range(0, draws, step):
        drawn = rng.multinomial(total, np.full(total, 1 / total), size=min(step, draws - start))
        yield drawn[:, members].astype(float)


def compute_log_losses(labels: ArrayLike, probs: ArrayLike) -> Floats:
    """Return each picture's own log loss, in nats, after clipping to PROB_FLOOR."""
    y, p = _check_pairs(labels, probs)
    return _log_losses(y, p)


def compute_bins(labels: ArrayLike, probs: ArrayLike, *, bins: int = ECE_BINS) -> dict[str, Floats]:
    """Return the reliability table: `count`, mean `predicted` and `observed` share of masks of each of `bins` bins.

    Empty bins hold NaN. Bins are equally wide over 0..1, each closed at its right end.
    """
    y, p = _check_pairs(labels, probs)
    member = _bin_members(p, bins)
    count = member.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return {"count": count, "predicted": (p @ member) / count, "observed": (y @ member) / count}


def compute_roc(labels: ArrayLike, probs: ArrayLike) -> dict[str, Floats]:
    """Return `threshold`, `false_positive_rate` and `true_positive_rate`, from the strictest threshold on."""
    y, p = _check_pairs(labels, probs)
    thresholds, hits, alarms = count_at_thresholds(y, p)
    return {
        "threshold": np.r_[np.inf, thresholds],
        "false_positive_rate": np.r_[0, alarms] / max(1, (1 - y).sum()),
        "true_positive_rate": np.r_[0, hits] / max(1, y.sum()),
    }


def compute_precision_recall(labels: ArrayLike, probs: ArrayLike) -> dict[str, Floats]:
    """Return `threshold`, `precision` and `recall`, from the strictest threshold on."""
    y, p = _check_pairs(labels, probs)
    thresholds, hits, alarms = count_at_thresholds(y, p)
    return {"threshold": thresholds, "precision": hits / (hits + alarms), "recall": hits / max(1, y.sum())}


def count_at_thresholds(y: Floats, p: Floats) -> tuple[Floats, Floats, Floats]:
    """Return each probability seen, from high to low, with the hits and false alarms of a threshold there."""
    thresholds, inverse = np.unique(-p, return_inverse=True)
    hits: Floats = np.bincount(inverse, weights=y, minlength=len(thresholds)).cumsum().astype(float)
    alarms: Floats = np.bincount(inverse, weights=1 - y, minlength=len(thresholds)).cumsum().astype(float)
    return -thresholds, hits, alarms


def compute_confusion(labels: ArrayLike, probs: ArrayLike, *, threshold: float = 0.5) -> NDArray[np.int64]:
    """Return [[true none, false alarm], [missed mask, true mask]]: rows are the truth, columns what was said."""
    y, p = _check_pairs(labels, probs)
    return np.bincount(2 * y.astype(int) + (p >= threshold), minlength=4).reshape(2, 2)


def _check_pairs(labels: ArrayLike, probs: ArrayLike) -> tuple[Floats, Floats]:
    y, p = np.asarray(labels, dtype=float).reshape(-1), np.asarray(probs, dtype=float).reshape(-1)
    if len(y) != len(p):
        raise ValueError(f"{len(y)} labels but {len(p)} probabilities; give one probability a label")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels must be 1 (mask) or 0 (none); saw {y[~np.isin(y, (0, 1))][0]}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"probabilities must lie in 0..1; saw {p[~((p >= 0) & (p <= 1))][0]}")
    return y, p


def _weigh_metrics(y: Floats, p: Floats, weights: Floats, threshold: float) -> dict[str, Floats]:
    """Return each metric of every row of `weights` (B, N), as (B,) values that are NaN where undefined."""
    called = (p >= threshold).astype(float)
    positives, negatives = weights @ y, weights @ (1 - y)
    hits, alarms = weights @ (y * called), weights @ ((1 - y) * called)
    total = positives + negatives
    auc, average_precision = _weigh_ranking(y, p, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "accuracy": (hits + negatives - alarms) / total,
            "log_loss": weights @ _log_losses(y, p) / total,
            "auc": auc,
            "average_precision": average_precision,
            "f1": 2 * hits / (hits + alarms + positives),
            "sensitivity": hits / positives,
            "specificity": (negatives - alarms) / negatives,
            "brier": weights @ (p - y) ** 2 / total,
            "ece": _weigh_ece(y, p, weights) / total,
        }


def _weigh_ranking(y: Floats, p: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return AUC (Mann-Whitney, ties count half) and average precision (the step sum over recall), each (B,)."""
    if not len(y):
        return np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    order = np.argsort(-p, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(p[order]) != 0])
    positive = np.add.reduceat((weights * y)[:, order], starts, axis=1)
    negative = np.add.reduceat((weights * (1 - y))[:, order], starts, axis=1)
    hits, alarms = positive.cumsum(axis=1), negative.cumsum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        below = alarms[:, -1:] - alarms + negative / 2
        auc = (positive * below).sum(axis=1) / (hits[:, -1] * alarms[:, -1])
        precision = np.where(hits + alarms > 0, hits / (hits + alarms), 0)
        return auc, (positive * precision).sum(axis=1) / hits[:, -1]


def _weigh_ece(y: Floats, p: Floats, weights: Floats) -> Floats:
    gaps: Floats = np.abs(weights @ (_bin_members(p, ECE_BINS) * (y - p)[:, None]))
    total: Floats = gaps.sum(axis=1)
    return total


def _bin_members(p: Floats, bins: int) -> Floats:
    index = np.clip(np.ceil(p * bins) - 1, 0, bins - 1)
    member: Floats = (index[:, None] == np.arange(bins)).astype(float)
    return member


def _log_losses(y: Floats, p: Floats) -> Floats:
    truth = np.where(y == 1, p, 1 - p)
    losses: Floats = -np.log(np.clip(truth, PROB_FLOOR, 1 - PROB_FLOOR))
    return losses


def find_wilson(share: ArrayLike, count: ArrayLike) -> tuple[Floats, Floats]:
    """Return the 95 % Wilson score interval of each observed `share` of `count` pictures."""
    share, count, z = np.asarray(share, dtype=float), np.asarray(count, dtype=float), 1.959964
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.maximum(0, middle - half), np.minimum(1, middle + half)


def _widen_certain(metrics: Metrics, members: NDArray[np.int64], y: Floats) -> Metrics:
    """Replace the empty interval of a share of 0 or 1 by Wilson's, over as many groups as hold its pictures."""
    chosen = {"accuracy": y >= 0, "sensitivity": y == 1, "specificity": y == 0}
    widened = dict(metrics)
    for name, part in chosen.items():
        if metrics[name] in (0.0, 1.0):
            low, high = find_wilson(metrics[name] or 0.0, len(np.unique(members[part])))
            widened |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return widened


def _bootstrap_intervals(y: Floats, p: Floats, threshold: float, weights: Iterable[Floats]) -> Metrics:
    chunks = [_weigh_metrics(y, p, part, threshold) for part in weights]
    interval: Metrics = {}
    for name in METRIC_NAMES:
        low, high = _find_interval(np.concatenate([chunk[name] for chunk in chunks]))
        interval |= {f"{name}_low": low, f"{name}_high": high}
    return interval


def _find_interval(values: Floats) -> tuple[float | None, float | None]:
    defined = values[np.isfinite(values)]
    if len(defined) < len(values) / 2:
        return None, None
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def _to_number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
