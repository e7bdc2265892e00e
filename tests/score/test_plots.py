"""The figures hold the tables they were given, and their files are what they say."""

import io
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from maskfast.score import metrics, plots


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    return labels, np.clip(rng.normal(0.3 + 0.4 * labels, 0.25), 0, 1)


@pytest.fixture
def history() -> pd.DataFrame:
    return pd.DataFrame(
        {"train_loss": [0.6, 0.3], "valid_loss": [0.5, 0.2], "accuracy": [0.8, 0.9], "lr": [1e-3, 1e-5]}
    )


def test_history_draws_each_column_once_in_its_panel(history: pd.DataFrame) -> None:
    loss, score, rate = plots.plot_history(history).axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[0.6, 0.3], [0.5, 0.2]]
    assert [line.get_label() for line in loss.lines] == ["train loss", "valid loss"]
    assert score.lines[0].get_ydata().tolist() == [0.8, 0.9]
    assert rate.get_yscale() == "log"


def test_history_leaves_out_what_was_not_recorded_and_draws_each_fold(history: pd.DataFrame) -> None:
    folds = pd.concat([history.assign(fold=0), history.assign(fold=1)])[["fold", "valid_loss"]]
    (axes,) = plots.plot_history(folds).axes
    assert len(axes.lines) == 2
    assert plots.plot_history(pd.DataFrame({"epoch": [0, 1]})).axes == []


def test_phases_are_parted(history: pd.DataFrame) -> None:
    (axes,) = plots.plot_history(history.assign(phase=["head", "whole"]), panels=["loss"]).axes
    assert axes.lines[-1].get_xdata() == [1.5, 1.5]
    (axes,) = plots.plot_history(history.assign(phase="whole"), panels=["loss"]).axes
    assert len(axes.lines) == 2


def test_curves_are_drawn_as_computed(scores: tuple[np.ndarray, np.ndarray]) -> None:
    roc = metrics.compute_roc(*scores)
    axes = plots.plot_roc(roc, auc=0.9, operating=(0.1, 0.8)).axes[0]
    assert axes.lines[1].get_ydata().tolist() == roc["true_positive_rate"].tolist()
    assert axes.lines[2].get_xydata().tolist() == [[0.1, 0.8]]
    bins = metrics.compute_bins(*scores)
    top, bottom = plots.plot_reliability(bins, ece=None).axes
    assert top.lines[1].get_ydata().tolist() == bins["observed"][bins["count"] > 0].tolist()
    assert [bar.get_height() for bar in bottom.patches] == bins["count"].tolist()


def test_confusion_shows_counts_and_shares() -> None:
    axes = plots.plot_confusion(np.array([[90, 10], [0, 0]])).axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["90", "90.0% of the row", "10", "10.0% of the row", "0", "0.0% of the row", "0", "0.0% of the row"]


def test_every_picture_is_in_a_bar(scores: tuple[np.ndarray, np.ndarray]) -> None:
    figure = plots.plot_probabilities(*scores, threshold=0.5)
    assert sum(bar.get_height() for axes in figure.axes for bar in axes.patches) == 300


def test_sources_are_sorted_and_those_without_the_figure_left_out() -> None:
    by_source = {"b": {"log_loss": 0.4}, "a" * 50: {"log_loss": 0.1, "log_loss_low": 0, "log_loss_high": 0.2}}
    axes = plots.plot_sources({**by_source, "none": {"log_loss": None}}).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{'a' * 15}…{'a' * 16}", "b"]


def test_files_are_whole_and_follow_the_readers_theme(scores: tuple[np.ndarray, np.ndarray]) -> None:
    figure, same = (plots.plot_roc(metrics.compute_roc(*scores), auc=0.9) for _ in range(2))
    with Image.open(io.BytesIO(plots.render_png(figure))) as image:
        assert image.format == "PNG"
        assert image.width > 500
    plots.render_png(same)
    svg = plots.render_svg(figure)
    ElementTree.fromstring(svg)
    assert b"prefers-color-scheme:dark" in svg
    assert b"AUC 0.9000" in svg
    body = svg[svg.index(b"</style>") :].lower()
    for light, _ in plots.THEME.values():
        assert light.encode() not in body
    assert svg == plots.render_svg(same), "the same table gives the same bytes"
