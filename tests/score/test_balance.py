"""The temperature and the offset that suit every class of every source alike."""

import numpy as np
import pytest

from maskfast.score.balance import LOWEST_TEMPERATURE, fit_balanced, weigh_cells


def draw_logits(count, *, temperature, offset, positives=0.5, seed=0):
    """Logits whose calibrated margin is (margin + offset) / temperature, labels drawn from it, classes as asked for."""
    rng = np.random.default_rng(seed)
    calibrated = rng.normal(0, 2, 20 * count)
    labels = rng.random(20 * count) < 1 / (1 + np.exp(-calibrated))
    masks = int(count * positives)
    chosen = np.r_[np.flatnonzero(labels)[:masks], np.flatnonzero(~labels)[: count - masks]]
    margins = calibrated[chosen] * temperature - offset
    return np.stack([-margins / 2, margins / 2], axis=1), labels[chosen].astype(int)


def test_it_finds_what_the_logits_were_drawn_with():
    logits, labels = draw_logits(20000, temperature=2.0, offset=-0.7)
    temperature, offset = fit_balanced(logits, labels, np.repeat("a", len(labels)))
    assert temperature == pytest.approx(2.0, abs=0.1)
    assert offset == pytest.approx(-0.7, abs=0.1)


def test_a_rare_class_weighs_as_much_as_the_other():
    logits, labels = draw_logits(20000, temperature=1.5, offset=0.5, positives=0.95)
    temperature, offset = fit_balanced(logits, labels, np.repeat("a", len(labels)))
    assert temperature == pytest.approx(1.5, abs=0.15)
    assert offset == pytest.approx(0.5, abs=0.15)


def test_it_never_makes_the_model_much_surer():
    logits, labels = draw_logits(5000, temperature=0.2, offset=0.0)
    temperature, _ = fit_balanced(logits, labels, np.repeat("a", len(labels)))
    assert temperature == pytest.approx(LOWEST_TEMPERATURE)


def test_few_pictures_hardly_move_it():
    temperature, offset = fit_balanced([[2.0, -2.0], [-2.0, 2.0]], [0, 1], ["a", "a"])
    assert temperature < 1.3
    assert abs(offset) < 0.01
    assert fit_balanced(np.zeros((0, 2)), [], []) == (1.0, 0.0)


def test_each_class_of_each_source_has_the_same_part():
    weights = weigh_cells(np.array([1, 1, 1, 0, 0, 1.0]), ["a", "a", "a", "a", "b", "b"])
    np.testing.assert_allclose(weights, [1 / 12, 1 / 12, 1 / 12, 1 / 4, 1 / 4, 1 / 4])
    assert weights.sum() == pytest.approx(1)
