"""An evaluation and a training history in, the report's figures out, each with its caption and alternative text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskfast.score import plots
from maskfast.score.evaluation import Evaluation
from maskfast.score.metrics import compute_bins, compute_precision_recall, compute_roc

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class ReportFigure:
    """A drawn figure: `alt` tells what it shows to who cannot see it, `caption` how to read it."""

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: bytes


def draw_figures(evaluation: Evaluation, history: "pd.DataFrame | None" = None) -> list[ReportFigure]:
    """Draw every figure that the evaluation and the history have numbers for."""
    parts = [_draw_confusion(evaluation), _draw_probabilities(evaluation), *_draw_curves(evaluation)]
    if len(evaluation.by_source) > 1:
        parts.append(_draw_sources(evaluation))
    if history is not None:
        parts += _draw_history(history)
    return parts


def _draw_confusion(evaluation: Evaluation) -> ReportFigure:
    (right_none, alarms), (missed, right_mask) = evaluation.confusion.tolist()
    alt = (
        f"Of {right_mask + missed} pictures labelled mask, {right_mask} were called mask and {missed} missed; of "
        f"{right_none + alarms} labelled no mask, {alarms} were false alarms."
    )
    caption = f"Answers at the threshold {evaluation.threshold:.4g}. Orange cells are errors."
    return _finish("confusion", "Confusion matrix", caption, alt, plots.plot_confusion(evaluation.confusion))


def _draw_probabilities(evaluation: Evaluation) -> ReportFigure:
    labels, probs = _get_pairs(evaluation)
    unsure = int(((probs > 0.1) & (probs < 0.9)).sum())
    alt = f"{unsure} of {len(probs)} pictures got a probability between 0.1 and 0.9."
    caption = "How many pictures got which probability. The scale is logarithmic, so that single errors can be seen."
    figure = plots.plot_probabilities(labels, probs, threshold=evaluation.threshold)
    return _finish("probabilities", "Stated probabilities", caption, alt, figure)


def _draw_curves(evaluation: Evaluation) -> Iterator[ReportFigure]:
    labels, probs = _get_pairs(evaluation)
    metrics = evaluation.metrics
    if 0 < labels.sum() < len(labels):
        yield _draw_roc(evaluation)
        share = float(labels.mean())
        yield _finish(
            "precision_recall",
            "Precision and recall",
            "How often it is right when it says mask, for each share of masks found. Dashed: always saying mask.",
            f"Average precision {metrics['average_precision']:.4f}, where guessing reaches {share:.4f}.",
            plots.plot_precision_recall(
                compute_precision_recall(labels, probs), average_precision=metrics["average_precision"], share=share
            ),
        )
    yield _finish(
        "reliability",
        "Reliability",
        "Of pictures given a probability, how many did show a mask. On the dashed line the probability means what it "
        "says; bars are 95 % intervals, so long ones stand for few pictures.",
        f"Expected calibration error {metrics['ece']:.4f}.",
        plots.plot_reliability(compute_bins(labels, probs), ece=metrics["ece"]),
    )


def _draw_roc(evaluation: Evaluation) -> ReportFigure:
    labels, probs = _get_pairs(evaluation)
    (right_none, alarms), (missed, right_mask) = evaluation.confusion.tolist()
    alarm_rate, recall = alarms / max(1, right_none + alarms), right_mask / max(1, missed + right_mask)
    return _finish(
        "roc",
        "ROC curve",
        "Masks found against false alarms, over all thresholds. The upper left is perfect, the dashed line a guess.",
        f"AUC {evaluation.metrics['auc']:.4f}; at the threshold {recall:.1%} of the masks are found with "
        f"{alarm_rate:.1%} false alarms.",
        plots.plot_roc(compute_roc(labels, probs), auc=evaluation.metrics["auc"], operating=(alarm_rate, recall)),
    )


def _draw_sources(evaluation: Evaluation) -> ReportFigure:
    losses = {source: metrics["log_loss"] for source, metrics in evaluation.by_source.items()}
    alt = "Log loss by source: " + ", ".join(f"{source} {loss:.4f}" for source, loss in losses.items()) + "."
    caption = "Log loss of each source with its 95 % interval; lower is better."
    return _finish("sources", "By source", caption, alt, plots.plot_sources(evaluation.by_source))


def _draw_history(history: "pd.DataFrame") -> Iterator[ReportFigure]:
    for panel in plots.HISTORY_PANELS:
        columns = plots.find_history_columns(history, panel)
        if columns:
            last = ", ".join(f"{name.replace('_', ' ')} {history[name].iloc[-1]:.4g}" for name in columns)
            figure = plots.plot_history(history, panels=[panel])
            name = f"history_{panel.replace(' ', '_')}"
            alt = f"Over {len(history)} epochs; at the last one {last}."
            yield _finish(name, f"Training: {panel}", "Recorded while the model was trained.", alt, figure)


def _get_pairs(evaluation: Evaluation) -> Any:
    scored = evaluation.scored
    return scored["label"].to_numpy(dtype=np.int64), scored["probability"].to_numpy(dtype=float)


def _finish(name: str, title: str, caption: str, alt: str, figure: Any) -> ReportFigure:
    png, svg = plots.render_png(figure), plots.render_svg(figure)
    return ReportFigure(name=name, title=title, caption=caption, alt=alt, png=png, svg=svg)
