"""The figures against scikit-learn, weighted and not, and their behaviour where a class is missing."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as oracle

from maskfast.score.metrics import (
    METRIC_NAMES,
    compute_bins,
    compute_by_source,
    compute_confusion,
    compute_log_losses,
    compute_metrics,
    compute_precision_recall,
    compute_roc,
    draw_weights,
    explain_undefined,
    find_wilson,
)


def draw_scores(count: int = 400, *, seed: int = 0, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    probs = np.clip(rng.normal(0.25 + 0.5 * labels, 0.3), 0, 1).round(digits)  # rounded: many ties, some 0 and 1
    return labels, probs


def ask_oracle(labels: np.ndarray, probs: np.ndarray, weights: np.ndarray, threshold: float) -> dict[str, float]:
    called, options = probs >= threshold, {"sample_weight": weights}
    clipped = np.clip(probs, 1e-7, 1 - 1e-7)
    return {
        "accuracy": oracle.accuracy_score(labels, called, **options),
        "log_loss": oracle.log_loss(labels, clipped, **options),
        "auc": oracle.roc_auc_score(labels, probs, **options),
        "average_precision": oracle.average_precision_score(labels, probs, **options),
        "f1": oracle.f1_score(labels, called, **options),
        "sensitivity": oracle.recall_score(labels, called, **options),
        "specificity": oracle.recall_score(labels, called, pos_label=0, **options),
        "brier": oracle.brier_score_loss(labels, probs, **options),
    }


@pytest.mark.parametrize("threshold", [0.5, 0.23])
@pytest.mark.parametrize("digits", [2, 16])
def test_every_figure_is_scikit_learns(threshold: float, digits: int) -> None:
    labels, probs = draw_scores(digits=digits)
    metrics = compute_metrics(labels, probs, threshold=threshold)
    expected = ask_oracle(labels, probs, np.ones(len(labels)), threshold)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert (metrics["count"], metrics["positives"]) == (400, labels.sum())
    assert set(metrics) == {*METRIC_NAMES, "count", "positives"}


def test_intervals_are_quantiles_of_scikit_learn_on_the_resamples() -> None:
    labels, probs = draw_scores(120)
    metrics = compute_metrics(labels, probs, bootstrap=60, seed=3)
    resamples = np.concatenate(list(draw_weights(120, 60, seed=3)))
    drawn = [ask_oracle(labels, probs, weights, 0.5) for weights in resamples]
    for name in drawn[0]:
        low, high = np.quantile([one[name] for one in drawn], (0.025, 0.975))
        assert (metrics[f"{name}_low"], metrics[f"{name}_high"]) == pytest.approx((low, high), abs=1e-9)


def test_expected_calibration_error_by_its_definition() -> None:
    labels, probs = draw_scores(digits=16)
    edges, error = np.linspace(0, 1, 16), 0.0
    for low, high in pairwise(edges):
        inside = (probs > low) & (probs <= high) if low else probs <= high
        if inside.any():
            error += inside.mean() * abs(labels[inside].mean() - probs[inside].mean())
    assert compute_metrics(labels, probs)["ece"] == pytest.approx(error)


def test_resamples_draw_whole_groups_and_widen_the_interval() -> None:
    labels, probs = draw_scores(60)
    groups = np.repeat(np.arange(60), 10)
    (weights,) = draw_weights(600, 5, groups=groups)
    assert (weights.reshape(5, 60, 10) == weights.reshape(5, 60, 10)[:, :, :1]).all()
    repeated = np.repeat(labels, 10), np.repeat(probs, 10)
    alone = compute_metrics(*repeated, bootstrap=300)
    grouped = compute_metrics(*repeated, bootstrap=300, groups=groups)
    assert grouped["accuracy_high"] - grouped["accuracy_low"] > 2 * (alone["accuracy_high"] - alone["accuracy_low"])


@pytest.mark.parametrize(
    ("labels", "undefined", "reason"),
    [
        ([0, 0, 0], {"auc", "average_precision", "sensitivity"}, "no picture is labelled mask"),
        ([1, 1, 1], {"auc", "specificity"}, "every picture is labelled mask"),
        ([], set(METRIC_NAMES), "there are no labelled pictures"),
    ],
)
def test_a_missing_class_leaves_none_with_a_reason(labels: list[int], undefined: set[str], reason: str) -> None:
    metrics = compute_metrics(labels, [0.2, 0.7, 0.4][: len(labels)], bootstrap=20)
    reasons = explain_undefined(metrics)
    assert {name for name in METRIC_NAMES if metrics[name] is None} == undefined
    assert set(reasons.values()) == {reason}


def test_f1_without_any_call_and_any_mask_is_undefined() -> None:
    assert compute_metrics([0, 0], [0.1, 0.2])["f1"] is None


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        ([0, 1], [0.5], "2 labels but 1 probabilities"),
        ([0, 2], [0.5, 0.5], "saw 2"),
        ([0, 1], [0.5, 1.5], "saw 1.5"),
        ([0, 1], [0.5, np.nan], "saw nan"),
    ],
)
def test_what_is_no_pair_is_refused(labels: list[int], probs: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute_metrics(labels, probs)


def test_certain_errors_cost_a_finite_log_loss() -> None:
    assert compute_log_losses([1, 0], [0.0, 0.0]) == pytest.approx([-np.log(1e-7), 1e-7])


def test_curves_are_scikit_learns() -> None:
    labels, probs = draw_scores()
    roc = compute_roc(labels, probs)
    expected = oracle.roc_curve(labels, probs, drop_intermediate=False)
    for mine, theirs in zip(("false_positive_rate", "true_positive_rate", "threshold"), expected, strict=True):
        assert roc[mine] == pytest.approx(theirs)
    curve = compute_precision_recall(labels, probs)
    precision, recall, thresholds = oracle.precision_recall_curve(labels, probs)
    assert curve["precision"][::-1] == pytest.approx(precision[:-1])
    assert curve["recall"][::-1] == pytest.approx(recall[:-1])
    assert curve["threshold"][::-1] == pytest.approx(thresholds)


def test_confusion_is_scikit_learns() -> None:
    labels, probs = draw_scores()
    assert compute_confusion(labels, probs, threshold=0.4).tolist() == (
        oracle.confusion_matrix(labels, probs >= 0.4).tolist()
    )


def test_reliability_bins_hold_every_picture_once() -> None:
    labels, probs = draw_scores(digits=16)
    table = compute_bins(labels, probs, bins=10)
    assert table["count"].sum() == 400
    share = np.nansum(table["observed"] * table["count"]) / 400
    assert share == pytest.approx(labels.mean())


def test_sources_are_counted_apart() -> None:
    labels, probs = draw_scores()
    sources = np.where(np.arange(400) % 3 == 0, "street", "faces")
    by_source = compute_by_source(labels, probs, list(sources), bootstrap=10, groups=np.arange(400) // 2)
    assert list(by_source) == ["faces", "street"]
    street = sources == "street"
    assert by_source["street"]["auc"] == pytest.approx(oracle.roc_auc_score(labels[street], probs[street]))
    assert by_source["street"]["auc_low"] <= by_source["street"]["auc"] <= by_source["street"]["auc_high"]


def test_wilson_interval_is_scipys() -> None:
    low, high = find_wilson(np.array([0.0, 0.3, 1.0]), np.array([5.0, 10.0, 7.0]))
    for index, (hits, count) in enumerate([(0, 5), (3, 10), (7, 7)]):
        expected = binomtest(hits, count).proportion_ci(method="wilson")
        assert (low[index], high[index]) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_a_perfect_share_is_not_certain() -> None:
    labels = np.repeat([0, 1], 20)
    metrics = compute_metrics(labels, labels * 0.8 + 0.1, bootstrap=50, groups=np.arange(40) // 2)
    expected = binomtest(10, 10).proportion_ci(method="wilson")
    assert (metrics["sensitivity_low"], metrics["sensitivity_high"]) == pytest.approx((expected.low, 1), abs=1e-6)
    assert metrics["accuracy_low"] == pytest.approx(binomtest(20, 20).proportion_ci(method="wilson").low, abs=1e-6)


def test_resamples_do_not_depend_on_how_many_are_held_at_a_time() -> None:
    whole = np.concatenate(list(draw_weights(50, 30, seed=1)))
    pieces = list(draw_weights(50, 30, seed=1, chunk=200))
    assert max(len(piece) for piece in pieces) == 4
    assert np.array_equal(np.concatenate(pieces), whole)
    assert (whole.sum(axis=1) == 50).all()


PAIRS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])), min_size=2, max_size=30
)


@settings(deadline=None, max_examples=150)
@given(PAIRS.filter(lambda pairs: len({label for label, _ in pairs}) == 2), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_any_few_pictures_with_ties_are_measured_as_scikit_learn_does(
    pairs: list[tuple[int, float]], threshold: float
) -> None:
    labels, probs = (np.array(column) for column in zip(*pairs, strict=True))
    metrics = compute_metrics(labels, probs, threshold=threshold)
    expected = ask_oracle(labels, probs, np.ones(len(labels)), threshold)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)
