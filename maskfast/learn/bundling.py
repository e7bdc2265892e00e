"""Trained folds flow in, the bundle's draft flows out: calibrated, measured, drawn and described."""

import io
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fastai.learner import Learner
from numpy.typing import NDArray

from maskfast.bundle.card import describe_data, write_card
from maskfast.bundle.store import Draft
from maskfast.core.config import TrainConfig
from maskfast.learn.fit import FoldResult, Setting
from maskfast.learn.progress import log
from maskfast.learn.recipe import make_spec
from maskfast.learn.runs import hash_items
from maskfast.score.balance import fit_balanced
from maskfast.score.calibration import apply_temperature, choose_threshold, fit_temperature
from maskfast.score.metrics import compute_by_source, compute_metrics
from maskfast.score.plots import plot_history, render_png

CHECK_PICTURES = (64, 256)
"""Validation pictures that the ONNX files must agree on, from and to; some of them are for the int8 calibration."""
CHECK_PASSES = 1536
"""How often a picture may go through a network for that (members by views by pictures), which bounds the time."""
BOOTSTRAP = 500
"""Resamples for the intervals of the metrics."""


def draft_bundle(results: Sequence[FoldResult], items: pd.DataFrame, setting: Setting) -> Draft:
    """Calibrate and measure on the validation answers of all folds, and gather all that the bundle holds."""
    config, first = setting.config, results[0]
    validation = pd.concat([result.validation for result in results], ignore_index=True)
    logits = validation[["logit_no_mask", "logit_mask"]].to_numpy(dtype=float)
    labels = validation["label"].astype(int).to_numpy()
    temperature, offset = _calibrate(config, validation)
    if offset:
        logits = logits + offset * np.array([-0.5, 0.5])
        validation[["logit_no_mask", "logit_mask"]] = logits
        shift_heads([result.learn for result in results], offset)
    validation["probability"] = apply_temperature(logits, temperature)
    threshold = _choose_threshold(config, labels, validation["probability"].to_numpy())
    metrics = _measure(validation, logits, labels, threshold)
    log.info("log loss %.4f before the temperature %.3f, %.4f after; accuracy %.4f",
             metrics["log_loss_uncalibrated"], temperature, metrics["log_loss"], metrics["accuracy"])  # fmt: skip
    sources = _measure_sources(validation, threshold)
    images, checked = _choose_check_images(first, passes=len(results) * len(config.views))
    draft = Draft(
        network=make_spec(config),
        state_dicts=[result.learn.model.state_dict() for result in results],
        size=setting.size,
        mean=setting.backbone.mean,
        std=setting.backbone.std,
        method=config.method,
        temperature=temperature,
        threshold=threshold,
        views=config.views,
        config=config.model_dump(mode="json"),
        metrics=metrics,
        data=describe_data(items) | {"fingerprint": hash_items(items), "command": _tell_command()},
        export_pkl=export_learner(first.learn),
        validation=validation[["image", "label", "logit_no_mask", "logit_mask", "probability", "fold"]],
        report=_draw_report(results, setting, validation) | sources,
        check_images=images,
        check_labels=checked,
    )
    return _with_card(draft)


def _tell_command() -> str:
    name = Path(sys.argv[0]).name
    return shlex.join(["maskfast" if name == "__main__.py" else name, *sys.argv[1:]])


def shift_heads(learners: Sequence[Learner], offset: float) -> None:
    """Add `offset` to the margin between mask and no mask that heads "mil" answer with."""
    for learn in learners:
        bias = learn.model[1].bias
        bias.data += offset


def export_learner(learn: Learner) -> bytes:
    """The bytes of fastai's own export.pkl of a learner."""
    folder = learn.path
    with tempfile.TemporaryDirectory() as temporary:
        learn.path = Path(temporary)
        try:
            learn.export("export.pkl")
            return (Path(temporary) / "export.pkl").read_bytes()
        finally:
            learn.path = folder


def _with_card(draft: Draft) -> Draft:
    return replace(draft, card=write_card(draft, validation=draft.validation))


def _calibrate(config: TrainConfig, validation: pd.DataFrame) -> tuple[float, float]:
    """The temperature, and the offset of the margin (0 where none is asked for)."""
    logits, labels = validation[["logit_no_mask", "logit_mask"]].to_numpy(dtype=float), validation["label"].astype(int)
    if config.calibration == "balanced":
        return fit_balanced(logits, labels, validation["source"])
    return fit_temperature(logits, labels), 0.0


def _choose_threshold(config: TrainConfig, labels: NDArray[Any], probs: NDArray[np.float64]) -> float:
    if config.recall is not None:
        return choose_threshold(labels, probs, recall=config.recall).threshold
    if config.cost_miss or config.cost_false_alarm:
        return choose_threshold(
            labels, probs, cost_miss=config.cost_miss or 1.0, cost_false_alarm=config.cost_false_alarm or 1.0
        ).threshold
    return 0.5


def _measure(
    validation: pd.DataFrame, logits: NDArray[np.float64], labels: NDArray[Any], threshold: float
) -> dict[str, float]:
    groups = validation["group"].astype(int).to_numpy()
    measured = compute_metrics(
        labels, validation["probability"], threshold=threshold, bootstrap=BOOTSTRAP, groups=groups
    )
    before = compute_metrics(labels, apply_temperature(logits, 1.0))
    figures = measured | {"log_loss_uncalibrated": before["log_loss"], "ece_uncalibrated": before["ece"]}
    return {name: float(value) for name, value in figures.items() if value is not None}


def _measure_sources(validation: pd.DataFrame, threshold: float) -> dict[str, bytes]:
    """A file with the metrics of each source apart, where there are several; a line of news about each."""
    if validation["source"].nunique() < 2:
        return {}
    probs, sources = validation["probability"].to_numpy(), validation["source"].astype(str).tolist()
    measured = compute_by_source(validation["label"].astype(int).to_numpy(), probs, sources, threshold=threshold)
    for source, found in measured.items():
        figures = [f"{name} {found[name]:.4f}" for name in ("log_loss", "accuracy", "auc") if found[name] is not None]
        log.info("%s: %d pictures, %s", source, found["count"], ", ".join(figures))
    return {
        "sources.json": (json.dumps({Path(name).name: found for name, found in measured.items()}, indent=2)).encode()
    }


def _draw_report(results: Sequence[FoldResult], setting: Setting, validation: pd.DataFrame) -> dict[str, bytes]:
    history = pd.DataFrame([row for result in results for row in result.progress.rows])
    if len(results) == 1:
        history = history.drop(columns="fold")
    report = {
        "losses.png": render_png(plot_history(history, panels=("loss",))),
        "accuracy.png": render_png(plot_history(history, panels=("score",))),
        "history.csv": _to_csv(history),
    }
    if setting.config.folds:
        report["oof.csv"] = _to_csv(_list_out_of_fold(validation))
    return report | {plot.name: plot.read_bytes() for plot in sorted(setting.folder.glob("lr_find*.png"))}


def _list_out_of_fold(validation: pd.DataFrame) -> pd.DataFrame:
    return validation[["image", "label", "logit_no_mask", "logit_mask", "probability", "fold"]]


def _to_csv(frame: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    frame.to_csv(stream, index=False)
    return stream.getvalue()


def _choose_check_images(result: FoldResult, *, passes: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    labels = result.validation["label"].astype(int).to_numpy()
    ranked = np.argsort(np.concatenate([np.arange((labels == kind).sum()) for kind in (0, 1)]), kind="stable")
    by_class = np.concatenate([np.flatnonzero(labels == kind) for kind in (0, 1)])
    chosen = by_class[ranked][: min(max(CHECK_PASSES // passes, CHECK_PICTURES[0]), CHECK_PICTURES[1])]
    return result.images[chosen], labels[chosen]
