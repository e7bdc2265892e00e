"""Labelled items and a predictor in, everything an evaluation says out: tables only, nothing drawn or printed."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from maskfast.core.errors import DataError
from maskfast.score.calibration import ThresholdChoice, choose_threshold
from maskfast.score.metrics import Metrics, compute_by_source, compute_confusion, compute_log_losses, compute_metrics

if TYPE_CHECKING:
    import pandas as pd

VALIDATION_FILE = "report/validation.csv"
HISTORY_FILE = "report/history.csv"

Watch = Callable[[Iterable[Any]], Iterable[Any]]


class Scorer(Protocol):
    """What an evaluation needs of a Predictor."""

    @property
    def threshold(self) -> float: ...  # noqa: D102
    def predict_many(self, images: Any, *, tta: bool = False) -> Iterator[Any]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured.

    `rows` has a row a picture: image, path, source, group, label, probability, answer ("mask", "no_mask" or ""), loss,
    status and reason; those that could not be used keep their status and have no probability. `choice` is the threshold
    that was asked for, where one was; `threshold` is the one the figures use. `grouped` says whether near-duplicates
    were resampled together. `notes` are sentences a reader must know.
    """

    rows: "pd.DataFrame"
    metrics: Metrics
    by_source: dict[str, Metrics]
    confusion: "np.ndarray[Any, np.dtype[np.int64]]"
    threshold: float
    choice: ThresholdChoice | None = None
    bootstrap: int = 0
    grouped: bool = False
    unlabelled: int = 0
    notes: tuple[str, ...] = ()

    @property
    def scored(self) -> "pd.DataFrame":
        """The rows with a probability."""
        return self.rows[self.rows["status"] == "ok"]

    @property
    def unusable(self) -> "pd.DataFrame":
        """The rows without one."""
        return self.rows[self.rows["status"] != "ok"]


def evaluate_data(
    predictor: Any,
    *data: str | Path,
    positive: str | None = None,
    classes: Mapping[str, str] | None = None,
    held_out: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
    tta: bool = False,
    watch: Watch = iter,
    **wishes: float | None,
) -> Evaluation:
    """Read any DATA that read_items takes and measure the predictor on it; see evaluate_items and evaluate_held_out.

    `positive` is the class or folder that means mask, and `classes` what classes of boxes mean (mask, no_mask,
    ignored), where the names do not say it. Near-duplicates are found first (every picture is read once for it, and
    remembered), unless `bootstrap` is 0.
    """
    from maskfast.data.tables import read_items

    items = read_items(*data, positive=positive, classes=classes)
    items = _group_labelled(items) if bootstrap else items
    if held_out:
        return evaluate_held_out(predictor, items, bootstrap=bootstrap, seed=seed, **wishes)
    return evaluate_items(predictor, items, bootstrap=bootstrap, seed=seed, tta=tta, watch=watch, **wishes)


def evaluate_items(
    predictor: Scorer,
    items: "pd.DataFrame",
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    tta: bool = False,
    watch: Watch = iter,
    **wishes: float | None,
) -> Evaluation:
    """Score every labelled picture of an items table and measure the answers.

    Intervals come from `bootstrap` resamples of the groups of near-duplicates where `items` has them. With `wishes`
    (recall, cost_miss, cost_false_alarm: see choose_threshold) the threshold is chosen for them, else the predictor's
    own is used. `watch` wraps the stream of predictions, to show progress. Raises DataError where nothing could be
    scored.
    """
    labelled = items[items["label"].notna() | (items["status"] != "ok")]
    rows = _score_rows(predictor, labelled, tta=tta, watch=watch)
    evaluation = measure_rows(rows, predictor.threshold, bootstrap=bootstrap, seed=seed, **wishes)
    overlap = find_overlap(predictor, items)
    return replace(evaluation, unlabelled=len(items) - len(labelled), notes=(overlap,) if overlap else ())


def evaluate_held_out(
    predictor: Any,
    items: "pd.DataFrame",
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    **wishes: float | None,
) -> Evaluation:
    """Measure the answers that training itself gave to the pictures it held out, without scoring anything again.

    With folds these are the out-of-fold answers: scoring again would ask networks that were trained on the picture.
    Pictures are found by their names; where two share one, neither is measured.
    Raises DataError where the bundle kept none, or none of their pictures is among `items`.
    """
    kept = read_validation(predictor)
    if kept is None:
        raise DataError(f"{predictor.folder}: has no {VALIDATION_FILE}, so it is not known what was held out")
    columns = [name for name in ("image", "source") if name in kept]
    clear = ~items.duplicated(columns, keep=False) & items["label"].notna()
    answers = kept.drop_duplicates(columns, keep=False)[[*columns, "probability"]]
    rows = items[clear].merge(answers, on=columns, how="inner")
    if rows.empty:
        raise DataError(f"none of these pictures is among the {len(kept)} held out when the model was trained")
    rows = rows.assign(status="ok", reason="")
    evaluation = measure_rows(rows, predictor.threshold, bootstrap=bootstrap, seed=seed, **wishes)
    return replace(evaluation, notes=(f"only the {len(rows)} pictures held out in training are measured",))


def measure_rows(
    rows: "pd.DataFrame",
    threshold: float,
    *,
    bootstrap: int,
    seed: int = 0,
    **wishes: float | None,
) -> Evaluation:
    """Measure rows that have a probability where their status is ok; see evaluate_items for the options."""
    scored = rows[rows["status"] == "ok"]
    if scored.empty:
        reasons = rows["reason"].value_counts()
        seen = f"{len(rows)} could not be used, most often: {reasons.index[0]}" if len(rows) else "no row has a label"
        raise DataError(f"no labelled picture could be scored: {seen}")
    labels, probs = scored["label"].to_numpy(dtype=int), scored["probability"].to_numpy(dtype=float)
    wished = any(wish is not None for wish in wishes.values())
    choice = choose_threshold(labels, probs, **wishes) if wished else None
    threshold = choice.threshold if choice else threshold
    groups = scored["group"].to_numpy() if "group" in scored and scored["group"].notna().all() else None
    options: dict[str, Any] = {"threshold": threshold, "bootstrap": bootstrap, "groups": groups, "seed": seed}
    return Evaluation(
        rows=_describe_rows(rows, threshold),
        metrics=compute_metrics(labels, probs, **options),
        by_source=compute_by_source(labels, probs, _name_sources(scored["source"].astype(str).tolist()), **options),
        confusion=compute_confusion(labels, probs, threshold=threshold),
        threshold=threshold,
        choice=choice,
        bootstrap=bootstrap,
        grouped=groups is not None,
    )


def find_overlap(predictor: Any, items: "pd.DataFrame") -> str | None:
    """Return a warning where the pictures seem to be those the model was trained with, else None.

    Told by the names of the held-out pictures that the bundle lists: where most are here, so are their neighbours.
    """
    kept = read_validation(predictor)
    if kept is None or kept.empty:
        return None
    held_out = kept["image"].astype(str).isin(set(items["image"].astype(str)))
    if held_out.mean() < 0.5:
        return None
    return (
        f"{int(held_out.sum())} of the {len(kept)} pictures held out in training are among these, so the model was "
        "probably trained on the others: the figures flatter it; --held-out measures those it was not trained on"
    )


def read_validation(predictor: Any) -> "pd.DataFrame | None":
    """Read the answers to held-out pictures (image, label, probability, ...) that the bundle kept, if it did."""
    return _read_table(predictor, VALIDATION_FILE)


def read_history(predictor: Any) -> "pd.DataFrame | None":
    """Read the bundle's training history, a row an epoch, if it has one."""
    return _read_table(predictor, HISTORY_FILE)


def _read_table(predictor: Any, name: str) -> "pd.DataFrame | None":
    import pandas as pd

    path = Path(predictor.folder) / name if getattr(predictor, "folder", None) else None
    return pd.read_csv(path) if path and path.is_file() else None


def _name_sources(sources: list[str]) -> list[str]:
    """Shorten paths to their last part where that still tells the sources apart."""
    short = {source: Path(source).name or source for source in set(sources)}
    return [short[source] for source in sources] if len(set(short.values())) == len(short) else sources


def _group_labelled(items: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    from maskfast.data.splits import add_groups

    labelled = items["label"].notna()
    return pd.concat([add_groups(items[labelled]), items[~labelled]]).sort_index()


def _score_rows(predictor: Scorer, items: "pd.DataFrame", *, tta: bool, watch: Watch) -> "pd.DataFrame":
    rows = items.reset_index(drop=True).copy()
    rows["probability"] = np.nan
    usable = rows.index[rows["status"] == "ok"]
    pairs = list(zip(rows.loc[usable, "image"].astype(str), rows.loc[usable, "path"].astype(str), strict=True))
    for index, answer in zip(usable, watch(predictor.predict_many(pairs, tta=tta)), strict=True):
        if answer.status == "ok":
            rows.loc[index, "probability"] = answer.probability
        else:
            rows.loc[index, ["status", "reason"]] = answer.status, answer.reason
    return rows


def _describe_rows(rows: "pd.DataFrame", threshold: float) -> "pd.DataFrame":
    """Add each picture's answer at the threshold and its own log loss."""
    rows = rows.copy()
    known = rows["probability"].notna()
    rows["answer"] = np.where(rows["probability"] >= threshold, "mask", "no_mask")
    rows.loc[~known, "answer"] = ""
    rows["loss"] = np.nan
    rows.loc[known, "loss"] = compute_log_losses(rows.loc[known, "label"].astype(int), rows.loc[known, "probability"])
    columns = ["image", "path", "source", "group", "label", "probability", "answer", "loss", "status", "reason"]
    return rows[[column for column in columns if column in rows]]
