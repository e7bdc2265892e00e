"""Evaluation with a predictor whose answers are known."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

from maskfast.core.errors import DataError
from maskfast.score.evaluation import evaluate_held_out, evaluate_items, find_overlap


class Answers:
    """A predictor that knows each picture's probability; a picture it does not know fails."""

    threshold = 0.5

    def __init__(self, probabilities: dict[str, float], folder: Path | None = None) -> None:
        self.probabilities, self.folder = probabilities, folder

    def predict_many(self, images: Any, *, tta: bool = False) -> Iterator[Any]:
        assert not tta
        for name, _ in images:
            probability = self.probabilities.get(name)
            known = probability is not None
            yield SimpleNamespace(
                probability=probability, status="ok" if known else "failed", reason="" if known else "truncated"
            )


def make_items(count: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "image": [f"{index}.jpg" for index in range(count)],
            "path": [f"/pictures/{index}.jpg" for index in range(count)],
            "label": pd.array(rng.integers(0, 2, count), dtype="Int64"),
            "source": np.where(np.arange(count) % 3, "faces", "street"),
            "group": np.arange(count) // 2,
            "status": "ok",
            "reason": "",
        }
    )


def draw_answers(items: pd.DataFrame) -> dict[str, float]:
    rng = np.random.default_rng(1)
    probs = np.clip(rng.normal(0.3 + 0.4 * items["label"].astype(float), 0.25), 0.01, 0.99)
    return dict(zip(items["image"], probs, strict=True))


def test_every_labelled_picture_is_measured() -> None:
    items = make_items()
    answers = draw_answers(items)
    evaluation = evaluate_items(Answers(answers), items, bootstrap=50)
    probs = [answers[name] for name in items["image"]]
    assert evaluation.metrics["auc"] == pytest.approx(oracle.roc_auc_score(items["label"].astype(int), probs))
    assert evaluation.metrics["auc_low"] < evaluation.metrics["auc"] < evaluation.metrics["auc_high"]
    assert evaluation.confusion.sum() == len(evaluation.scored) == 60
    assert list(evaluation.by_source) == ["faces", "street"]
    assert evaluation.rows["loss"].mean() == pytest.approx(evaluation.metrics["log_loss"])
    assert evaluation.unusable.empty


def test_bad_rows_stay_with_their_reason_and_stop_nothing() -> None:
    items = make_items()
    answers = draw_answers(items)
    del answers["7.jpg"]
    items.loc[3, ["status", "reason"]] = "missing", "no such file"
    items.loc[[10, 11], "label"] = pd.NA
    evaluation = evaluate_items(Answers(answers), items, bootstrap=0)
    assert evaluation.metrics["count"] == 56
    assert evaluation.unlabelled == 2
    bad = evaluation.unusable.set_index("image")
    assert bad["reason"].to_dict() == {"3.jpg": "no such file", "7.jpg": "truncated"}
    assert bad["probability"].isna().all()
    assert (bad["answer"] == "").all()


def test_a_wished_recall_sets_the_threshold_of_every_figure() -> None:
    items = make_items()
    evaluation = evaluate_items(Answers(draw_answers(items)), items, bootstrap=0, recall=1.0)
    assert evaluation.metrics["sensitivity"] == 1.0
    assert evaluation.choice.threshold == evaluation.threshold < 0.5
    assert evaluation.confusion[1, 0] == 0
    assert (evaluation.rows.loc[evaluation.rows["label"] == 1, "answer"] == "mask").all()


@pytest.mark.parametrize("label", [pd.NA, 1])
def test_nothing_to_score_is_an_error_that_says_why(label: Any) -> None:
    items = make_items(4)
    items["label"] = pd.array([label] * 4, dtype="Int64")
    with pytest.raises(DataError, match="no row has a label" if label is pd.NA else "4 could not be used.*truncated"):
        evaluate_items(Answers({}), items)


def keep_validation(folder: Path, images: list[str], probability: float = 0.8) -> Path:
    (folder / "report").mkdir()
    table = pd.DataFrame({"image": images, "label": 1, "probability": probability})
    table.to_csv(folder / "report" / "validation.csv", index=False)
    return folder


def test_held_out_takes_the_answers_training_kept(tmp_path: Path) -> None:
    items = make_items()
    keep_validation(tmp_path, ["0.jpg", "5.jpg", "9.jpg", "elsewhere.jpg"])
    evaluation = evaluate_held_out(Answers({}, tmp_path), items, bootstrap=0)
    assert evaluation.rows["image"].tolist() == ["0.jpg", "5.jpg", "9.jpg"]
    twice = pd.concat([items, items[items["image"] == "5.jpg"].assign(source="elsewhere")])
    unclear = evaluate_held_out(Answers({}, tmp_path), twice, bootstrap=0)
    assert unclear.rows["image"].tolist() == ["0.jpg", "9.jpg"], "which of the two was held out is not known"
    assert (evaluation.rows["probability"] == 0.8).all()
    assert evaluation.notes == ("only the 3 pictures held out in training are measured",)
    assert evaluation.rows["label"].tolist() == items.loc[[0, 5, 9], "label"].tolist()


def test_held_out_without_kept_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation\.csv"):
        evaluate_held_out(Answers({}, tmp_path), make_items())
    keep_validation(tmp_path, ["elsewhere.jpg"])
    with pytest.raises(DataError, match="none of these pictures is among the 1"):
        evaluate_held_out(Answers({}, tmp_path), make_items())


def test_pictures_of_the_training_are_noticed(tmp_path: Path) -> None:
    items = make_items()
    assert find_overlap(Answers({}, tmp_path), items) is None
    keep_validation(tmp_path, ["0.jpg", "5.jpg", "elsewhere.jpg"])
    (note,) = evaluate_items(Answers(draw_answers(items), tmp_path), items, bootstrap=0).notes
    assert note == find_overlap(Answers({}, tmp_path), items)
    assert "2 of the 3" in find_overlap(Answers({}, tmp_path), items)
    assert find_overlap(Answers({}, tmp_path), items.assign(image="new.jpg")) is None
