"""An evaluation and its predictor in, a folder out: a page that opens offline, figures, tables and JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maskfast.bundle.card import METRIC_TITLES
from maskfast.core.files import write_whole
from maskfast.data.delimited import write_csv
from maskfast.score.evaluation import Evaluation, read_history
from maskfast.score.explain import make_explainer
from maskfast.score.figures import ReportFigure, draw_figures
from maskfast.score.gallery import ShownPicture, show_worst
from maskfast.score.label_errors import find_label_errors, write_label_errors
from maskfast.score.metrics import METRIC_NAMES, Metrics, explain_undefined
from maskfast.score.page import read_template
from maskfast.score.plots import shorten

if TYPE_CHECKING:
    from maskfast.score.predictor import Predictor

PAGE_FILE, JSON_FILE, ROWS_FILE = "index.html", "metrics.json", "predictions.csv"

METRIC_MEANINGS = {
    "accuracy": "share of pictures answered rightly at the threshold",
    "log_loss": "mean cost of the probabilities in nats: 0 is perfect, 0.693 is always saying one half",
    "auc": "chance that a picture with a mask gets a higher probability than one without",
    "average_precision": "precision averaged over all recalls",
    "f1": "harmonic mean of precision and sensitivity at the threshold",
    "sensitivity": "share of the pictures with a mask that are found",
    "specificity": "share of the pictures without a mask that raise no alarm",
    "brier": "mean squared distance between probability and truth",
    "ece": "how far the stated probabilities lie from what then happens, averaged over 15 bins",
}


def write_report(
    evaluation: Evaluation,
    predictor: "Predictor",
    out: str | Path,
    *,
    title: str = "Evaluation",
    worst: int = 12,
    heat: Literal["auto", "gradients", "occlusion"] = "auto",
) -> Path:
    """Write the report of an evaluation to the folder `out` and return the path of its page.

    index.html needs no other file and no network. Beside it: every figure as a PNG, the `worst` pictures with their
    heat maps in worst/, predictions.csv with a row a picture, metrics.json, and the labels to check (label_errors.csv
    and .html). Other files in `out` are left alone.
    """
    out = Path(out)
    figures = draw_figures(evaluation, read_history(predictor))
    shown = list(_show_worst(evaluation, predictor, worst, heat)) if worst else []
    for figure in figures:
        write_whole(out / f"{figure.name}.png", figure.png)
    for index, picture in enumerate(shown, start=1):
        if picture.heat:
            write_whole(out / "worst" / f"{index:02}.jpg", picture.heat)
    suspects = find_label_errors(evaluation.scored)
    write_label_errors(suspects, out)
    write_csv(out / ROWS_FILE, evaluation.rows.drop(columns="path"))
    write_whole(out / JSON_FILE, json.dumps(summarise(evaluation, predictor), indent=2, allow_nan=False) + "\n")
    write_whole(
        out / PAGE_FILE,
        render_page(evaluation, predictor, title=title, figures=figures, shown=shown, suspects=len(suspects)),
    )
    return out / PAGE_FILE


def summarise(evaluation: Evaluation, predictor: "Predictor") -> dict[str, Any]:
    """Return the evaluation as plain values for JSON: metrics, intervals, by source, threshold, unusable rows."""
    choice = evaluation.choice
    unusable = evaluation.unusable[["image", "status", "reason"]]
    return {
        "model": describe_model(predictor),
        "metrics": evaluation.metrics,
        "undefined": explain_undefined(evaluation.metrics),
        "by_source": evaluation.by_source,
        "confusion": {"rows": "labelled no_mask, mask", "columns": "answered", "counts": evaluation.confusion.tolist()},
        "threshold": evaluation.threshold,
        "chosen": None
        if choice is None
        else {
            "reason": choice.reason,
            "recall": choice.recall,
            "false_alarm_rate": choice.false_alarm_rate,
            "cost": choice.cost,
        },
        "bootstrap": evaluation.bootstrap,
        "grouped": evaluation.grouped,
        "unlabelled": evaluation.unlabelled,
        "unusable": unusable.astype(str).to_dict("records"),
        "notes": list(evaluation.notes),
    }


def write_table(evaluation: Evaluation, predictor: "Predictor") -> str:
    """Return the metrics with their intervals, the model, the sources and the threshold as text for a terminal."""
    metrics, model = evaluation.metrics, describe_model(predictor)
    lines = [f"{metrics['count']} pictures, {metrics['positives']} of them labelled mask"]
    lines += [f"model {model['folder']} ({model['arch']}, {model['size']} px, {model['backend']})", ""]
    lines += [f"{row['title']:<30}{row['value']:>8}  {row['interval']}".rstrip() for row in list_metrics(metrics)]
    (_, alarms), (missed, right_mask) = evaluation.confusion.tolist()
    lines += [
        "",
        f"threshold {evaluation.threshold:.6g}: {right_mask} masks found, {missed} missed, {alarms} false alarms",
    ]
    if evaluation.choice:
        lines.append(f"chosen here for a {evaluation.choice.reason}; on new pictures it will do somewhat worse")
    if len(evaluation.by_source) > 1:
        lines += ["", f"{'source':<30}{'pictures':>8}{'log loss':>10}{'accuracy':>10}{'AUC':>10}"]
        lines += [_write_source(source, part) for source, part in evaluation.by_source.items()]
    return "\n".join(lines)


def _write_source(source: str, metrics: Metrics) -> str:
    values = "".join(f"{format_value(metrics[name]):>10}" for name in ("log_loss", "accuracy", "auc"))
    return f"{shorten(source, most=28):<30}{metrics['count']:>8}{values}"


def describe_model(predictor: "Predictor") -> dict[str, Any]:
    """Return what the report says of the model: backbone, size, method, temperature, members and backend."""
    manifest = predictor.manifest
    return {
        "folder": str(predictor.folder),
        "arch": manifest.network.arch,
        "size": manifest.size,
        "method": manifest.method,
        "temperature": manifest.temperature,
        "members": max(1, len(manifest.weights)),
        "created": manifest.created,
        "backend": predictor.backend.name,
    }


def list_metrics(metrics: Metrics) -> list[dict[str, str]]:
    """Return title, value, interval and meaning of each metric as text; one that is undefined says why."""
    reasons = explain_undefined(metrics)
    return [
        {
            "name": name,
            "title": METRIC_TITLES[name],
            "value": format_value(metrics[name]),
            "interval": reasons.get(name) or format_interval(metrics, name),
            "meaning": METRIC_MEANINGS[name],
        }
        for name in METRIC_NAMES
    ]


def format_value(value: float | None) -> str:
    """Write a metric with four decimals, or a dash."""
    return "–" if value is None else f"{value:.4f}"


def format_interval(metrics: Mapping[str, float | None], name: str) -> str:
    """Write the interval of a metric, or nothing where none was computed."""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def render_page(
    evaluation: Evaluation,
    predictor: "Predictor",
    *,
    title: str,
    figures: Sequence[ReportFigure],
    shown: Sequence[ShownPicture],
    suspects: int = 0,
) -> str:
    """Return the page with everything it shows inside it."""
    by_source = {
        source: {"metrics": metrics, "rows": {row["name"]: row for row in list_metrics(metrics)}}
        for source, metrics in evaluation.by_source.items()
    }
    page: str = read_template("report.html.j2").render(
        title=title,
        evaluation=evaluation,
        metrics=list_metrics(evaluation.metrics),
        by_source=by_source,
        model=describe_model(predictor),
        figures=figures,
        shown=shown,
        suspects=suspects,
        unusable=evaluation.unusable.to_dict("records"),
    )
    return page


def _show_worst(
    evaluation: Evaluation, predictor: "Predictor", count: int, heat: Literal["auto", "gradients", "occlusion"]
) -> Any:
    explainer = make_explainer(predictor, method=heat)
    return show_worst(evaluation.scored, explainer, count=count, method=predictor.method)
