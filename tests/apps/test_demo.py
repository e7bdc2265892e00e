"""The demo: what it refuses, and how it measures; its whole run is a step of the README."""

from pathlib import Path

import pytest

from maskfast.apps.demo import _measure, run_demo
from maskfast.core.errors import ConfigError


def test_a_folder_with_other_things_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other things"):
        run_demo(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_answers_are_matched_with_the_truth_by_name(tmp_path: Path) -> None:
    (tmp_path / "submission.csv").write_text("image,target\na.jpg,0.9\nb.jpg,0.2\nc.jpg,0.6\n")
    (tmp_path / "truth.csv").write_text("image,target\nc.jpg,0\nb.jpg,0\na.jpg,1\n")
    assert _measure(tmp_path / "submission.csv", tmp_path / "truth.csv")["accuracy"] == pytest.approx(2 / 3)
