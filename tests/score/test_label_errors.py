"""Planted wrong labels must be found, and right ones left alone."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from maskfast.data.tables import drop_items, read_items
from maskfast.score.label_errors import find_label_errors, write_label_errors


def draw_rows(count: int = 2000, *, flipped: int = 60, seed: int = 0) -> tuple[pd.DataFrame, set[str]]:
    """Rows whose probabilities follow the truth, and the names of those whose label was turned round."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, count)
    probs = 1 / (1 + np.exp(-rng.normal(5 * (2 * truth - 1), 2.5)))
    wrong = rng.choice(count, flipped, replace=False)
    labels = truth.copy()
    labels[wrong] = 1 - labels[wrong]
    images = [f"{index}.jpg" for index in range(count)]
    rows = pd.DataFrame({"image": images, "label": pd.array(labels, dtype="Int64"), "probability": probs})
    return rows, {images[index] for index in wrong}


def test_planted_errors_are_found_and_right_labels_left_alone() -> None:
    rows, wrong = draw_rows()
    suspects = find_label_errors(rows)
    hits = len(wrong & set(suspects["image"]))
    assert hits / len(wrong) > 0.75
    assert hits / len(suspects) > 0.8
    assert len(wrong & set(suspects["image"].head(20))) >= 19
    assert suspects["doubt"].is_monotonic_decreasing


def test_rows_without_label_or_probability_are_never_doubted() -> None:
    rows, _ = draw_rows(200, flipped=10)
    before = len(find_label_errors(rows))
    extra = pd.DataFrame({"image": ["a", "b"], "label": pd.array([None, 1], dtype="Int64"), "probability": [0.9, None]})
    suspects = find_label_errors(pd.concat([rows, extra], ignore_index=True))
    assert len(suspects) == before
    assert not {"a", "b"} & set(suspects["image"])


def test_one_class_alone_gives_no_suspects() -> None:
    rows, _ = draw_rows(50, flipped=0)
    assert find_label_errors(rows[rows["label"] == 1]).empty


def test_the_table_is_one_that_training_drops(tmp_path: Path) -> None:
    for index in range(4):
        path = tmp_path / "data" / ("mask", "no_mask")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 40, 3), 60 * index, np.uint8)).save(path)
    items = read_items(tmp_path / "data")
    items["probability"] = [0.01 if name.endswith("0.png") else 0.1 + 0.8 * label for name, label in
                            zip(items["image"], items["label"], strict=True)]  # fmt: skip
    suspects = find_label_errors(items)
    page = write_label_errors(suspects, tmp_path / "out")
    dropped = drop_items(items, tmp_path / "out" / "label_errors.csv")
    assert dropped.loc[dropped["status"] == "dropped", "image"].tolist() == ["mask/0.png"]
    assert page.read_text().count("data:image/jpeg") == 1


def test_a_picture_that_is_gone_keeps_its_place(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"image": ["<b>.jpg"], "path": [str(tmp_path / "x.jpg")], "label": [1], "probability": [0.1], "doubt": [0.9]}
    )
    page = write_label_errors(rows, tmp_path).read_text()
    assert "cannot be read any more" in page
    assert "&lt;b&gt;.jpg" in page
