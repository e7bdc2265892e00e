"""A model's manifest (or draft) and its validation table in, a model card in the Hugging Face hub's format out."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ERRORS = 5

METRIC_TITLES = {
    "accuracy": "Accuracy",
    "log_loss": "Log loss",
    "auc": "Area under the ROC curve",
    "average_precision": "Average precision",
    "f1": "F1",
    "sensitivity": "Sensitivity (masks found)",
    "specificity": "Specificity (no false alarm)",
    "brier": "Brier score",
    "ece": "Expected calibration error",
}
HUB_NAMES = {"auc": "roc_auc", "brier": "brier_score", "sensitivity": "recall"}


class Described(Protocol):
    """What a card is written from: a Manifest, or the Draft of a bundle before it has one."""

    @property
    def network(self) -> Any: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def temperature(self) -> float: ...  # noqa: D102
    @property
    def threshold(self) -> float: ...  # noqa: D102
    @property
    def views(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def config(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def metrics(self) -> Mapping[str, float]: ...  # noqa: D102
    @property
    def data(self) -> Mapping[str, Any]: ...  # noqa: D102


def write_card(model: Described, *, validation: "pd.DataFrame | None" = None, name: str | None = None) -> str:
    """Return the text of README.md for the bundle of `model`.

    Only what was measured is stated: `model.metrics` (as compute_metrics gives them, with their _low and _high, and
    log_loss_uncalibrated, the one before the temperature), `model.data` (as describe_data gives it) and the worst
    answers in `validation` (columns image, label, probability). What is not there is said to be not measured. `name` is
    the title, by default maskfast and the backbone.
    """
    title = name or f"maskfast {model.network.arch}"
    values = {
        "title": title,
        "model": model,
        "averaged": _describe_averaging(model),
        "settings": _list_settings(model.config),
        "sources": dict(model.data.get("sources", {})),
        "splits": dict(model.data.get("splits", {})),
        "unusable": dict(model.data.get("unusable", {})),
        "results": _list_results(model.metrics),
        "wrong": None if validation is None else _find_wrong(validation, model.threshold),
        "validated": None if validation is None else len(validation),
    }
    text: str = _read_template().render(values)
    return _write_front_matter(title, model) + text


def describe_data(items: "pd.DataFrame") -> dict[str, Any]:
    """Count the items table for a manifest's `data`: pictures and masks by source and split, groups, unusable rows."""
    usable = items[(items["status"] == "ok") & items["label"].notna()]
    # A source may be an absolute path: what is passed on names the folder or file alone.
    usable = usable.assign(source=[Path(str(source)).name for source in usable["source"]])
    unusable = items.loc[items["status"] != "ok", "status"].value_counts()
    counted: dict[str, Any] = {
        "sources": _count_by(usable, "source"),
        "splits": _count_by(usable, "split"),
        "unusable": {str(status): int(count) for status, count in unusable.items()},
    }
    return counted | _count_groups(usable)


def _count_groups(usable: "pd.DataFrame") -> dict[str, int]:
    if "group" not in usable or "split" not in usable:
        return {}
    splits = usable.groupby("group")["split"].nunique()
    return {"groups": len(splits), "groups_across_splits": int((splits > 1).sum())}


def _count_by(usable: "pd.DataFrame", column: str) -> dict[str, dict[str, int]]:
    if column not in usable:
        return {}
    grouped = usable.dropna(subset=[column]).groupby(column)["label"]
    return {str(key): {"pictures": len(labels), "masks": int(labels.sum())} for key, labels in grouped}


def _list_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that say something; of paths only their last part, since a card is passed on."""
    told = {key: value for key, value in sorted(config.items()) if value not in (None, [], ()) and key != "out"}
    for key in ("data", "drop", "weights"):
        if key in told:
            several = told[key] if isinstance(told[key], list | tuple) else [told[key]]
            told[key] = ", ".join(Path(str(path)).name for path in several)
    return {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in told.items()}


def _describe_averaging(model: Described) -> str:
    members = getattr(model, "state_dicts", None) or getattr(model, "weights", None) or [None]
    networks = "one network" if len(members) == 1 else f"the mean of {len(members)} networks"
    return networks if len(model.views) == 1 else f"{networks}, each asked about {len(model.views)} views of a picture"


def _list_results(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    rows = []
    for name, title in METRIC_TITLES.items():
        if metrics.get(name) is not None:
            low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
            interval = "not measured" if low is None or high is None else f"{low:.4f} to {high:.4f}"
            rows.append((title, f"{metrics[name]:.4f}", interval))
    return rows


def _find_wrong(validation: "pd.DataFrame", threshold: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for image, label, probability in zip(*(validation[k] for k in ("image", "label", "probability")), strict=True):
        if (probability >= threshold) != (label == 1):
            rows.append({"image": _escape(str(image)), "label": int(label), "probability": float(probability)})
    return sorted(rows, key=lambda row: -abs(row["label"] - row["probability"]))


def _escape(name: str) -> str:
    """Keep a file's name from being read as Markdown or as a cell's end."""
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", " ".join(name.split()))


def _write_front_matter(title: str, model: Described) -> str:
    fields: dict[str, Any] = {
        "library_name": "fastai",
        "pipeline_tag": "image-classification",
        "tags": ["fastai", "image-classification", "face-mask", "onnx", "maskfast"],
        "metrics": sorted(HUB_NAMES.get(name, name) for name in METRIC_TITLES if model.metrics.get(name) is not None),
    }
    results = _list_hub_results(model)
    if results:
        fields["model-index"] = [{"name": title, "results": results}]
    # A JSON value is a YAML value, so that no name in it needs quoting rules of its own.
    return "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in fields.items()) + "---\n"


def _list_hub_results(model: Described) -> list[dict[str, Any]]:
    metrics = [
        {"type": HUB_NAMES.get(name, name), "name": title, "value": round(float(model.metrics[name]), 6)}
        for name, title in METRIC_TITLES.items()
        if model.metrics.get(name) is not None
    ]
    sources = ", ".join(map(str, model.data.get("sources", {}))) or "the user's own pictures"
    slug = re.sub(r"[^a-z0-9]+", "-", sources.lower()).strip("-")
    dataset = {"name": sources, "type": slug, "split": "validation"}
    task = {"type": "image-classification", "name": "Image classification"}
    return [{"task": task, "dataset": dataset, "metrics": metrics}] if metrics else []


def _read_template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("maskfast.bundle", "templates")
    # Markdown, not HTML: names are escaped for Markdown where they are collected.
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.globals["shown"] = SHOWN_ERRORS
    environment.filters["cell"] = _escape
    return environment.get_template("card.md.j2")
