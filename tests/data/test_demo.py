import csv
from pathlib import Path

import numpy as np
import pytest

from maskfast.data.demo import draw_demo, draw_face
from maskfast.data.tables import read_items


def read_rows(path: Path) -> list[tuple[str, int]]:
    with path.open(newline="") as stream:
        return [(row["image"], int(row["target"])) for row in csv.DictReader(stream)]


def test_the_demo_is_a_challenge_folder_with_its_truth(tmp_path: Path) -> None:
    folder = draw_demo(tmp_path / "demo", count=40)
    items = read_items(folder)
    assert (items["status"] == "ok").all()
    assert items["split"].eq("test").sum() == 10
    truth, sample = read_rows(folder / "truth.csv"), read_rows(folder / "sample_submission.csv")
    assert [name for name, _ in truth] == [name for name, _ in sample]
    labels = [label for _, label in truth + read_rows(folder / "train_labels.csv")]
    assert (len(labels), sum(labels)) == (40, 20)
    assert len(list((folder / "images").iterdir())) == 40


def test_a_seed_draws_the_same_bytes(tmp_path: Path) -> None:
    first, again, other = (
        draw_demo(tmp_path / name, count=4, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    contents = [[path.read_bytes() for path in sorted(folder.rglob("*.*"))] for folder in (first, again, other)]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_changes_the_lower_half_of_the_face(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskfast.data.demo._light", lambda img, chance: img)  # noqa: ARG005  it would differ by chance
    changed = np.asarray(draw_face(seed, masked=True)) != np.asarray(draw_face(seed, masked=False))
    rows = np.flatnonzero(changed.any(axis=(1, 2)))
    assert 0.05 < changed.any(axis=2).mean() < 0.6
    assert rows.mean() > changed.shape[0] * 0.4
