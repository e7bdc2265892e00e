"""Ensembles: weights against scipy's optimum, answers against the mean of the members' own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

from maskfast.bundle.store import Draft, write_bundle
from maskfast.core.errors import BundleError, ConfigError
from maskfast.learn.ensemble import ensemble_bundles, fit_weights, measure_loss
from maskfast.score.loading import load


def answers(seed: int, noise: float) -> pd.DataFrame:
    labels = np.arange(80) % 2
    logits = np.random.default_rng(seed).normal(3 * labels - 1.5, noise)
    names = [f"{number}.png" for number in range(80)]
    return pd.DataFrame({"image": names, "label": labels, "probability": 1 / (1 + np.exp(-logits))})


@pytest.fixture
def bundles(tmp_path: Path, toy_draft: Draft) -> list[Path]:
    own = toy_draft.state_dicts[0]
    turned = {name: value.flip(0) if value.ndim == 2 else value for name, value in own.items()}
    for seed, states in ((0, [own]), (5, [turned, own])):
        draft = replace(toy_draft, state_dicts=states, onnx=False, temperature=1.0 + seed)
        write_bundle(tmp_path / f"b{seed}", replace(draft, validation=answers(seed, 2.0)))
    return [tmp_path / "b0", tmp_path / "b5"]


def test_weights_are_the_optimum() -> None:
    labels = answers(0, 1.0)["label"].to_numpy()
    probs = np.stack([answers(seed, 2.0)["probability"] for seed in (0, 1)], axis=1)
    best = minimize_scalar(lambda w: measure_loss(labels, probs @ [w, 1 - w]), bounds=(0, 1), method="bounded")
    assert fit_weights(labels, probs)[0] == pytest.approx(best.x, abs=0.01)


def test_it_is_never_worse_than_its_best_member() -> None:
    labels = np.arange(40) % 2
    good = np.where(labels == 1, 0.99, 0.01)
    probs = np.stack([good, np.full(40, 0.5), 1 - good], axis=1)
    weights = fit_weights(labels, probs)
    assert measure_loss(labels, probs @ weights) <= measure_loss(labels, good) + 1e-12


def test_the_bundle_answers_with_the_weighted_mean(bundles: list[Path], tmp_path: Path) -> None:
    made = ensemble_bundles(bundles, tmp_path / "together")
    assert made.together <= min(made.alone)
    images = np.random.default_rng(3).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    alone = [load(folder, backend="torch-fp32").predict_arrays(images) for folder in bundles]
    expected = made.weights[0] * alone[0] + made.weights[1] * alone[1]
    for backend in ("torch-fp32", "onnx"):
        found = load(tmp_path / "together", backend=backend).predict_arrays(images)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_can_not_be_joined_is_refused(bundles: list[Path], tmp_path: Path, toy_draft: Draft) -> None:
    with pytest.raises(ConfigError, match="two or more"):
        ensemble_bundles(bundles[:1], tmp_path / "x")
    others = answers(1, 1.0).assign(image=lambda frame: "other-" + frame["image"])
    write_bundle(tmp_path / "c", replace(toy_draft, onnx=False, validation=others))
    with pytest.raises(ConfigError, match="common"):
        ensemble_bundles([bundles[0], tmp_path / "c"], tmp_path / "x")
    write_bundle(tmp_path / "d", replace(toy_draft, onnx=False))
    with pytest.raises(BundleError, match=r"validation\.csv"):
        ensemble_bundles([bundles[0], tmp_path / "d"], tmp_path / "x")
