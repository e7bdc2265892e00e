"""docs/evaluation.md says what the code does: its options exist and its numbers are the code's."""

import re
from pathlib import Path

import pytest

from maskfast.apps.cli.main import run
from maskfast.score import metrics

PAGE = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()


def test_every_option_named_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "--help"]) == 0
    helped = capsys.readouterr().out
    named = {option for line in re.findall(r"maskfast evaluate .*", PAGE) for option in re.findall(r"--[a-z-]+", line)}
    assert len(named) >= 5
    assert named <= set(re.findall(r"--[a-z-]+", helped))


def test_its_numbers_are_the_codes() -> None:
    assert f"within {metrics.PROB_FLOOR:.0e}".replace("e-07", "e-7") in PAGE
    assert f"costs {metrics.compute_log_losses([1], [0.0])[0]:.1f} and not infinity" in PAGE
    assert f"over {metrics.ECE_BINS} equal bins" in PAGE
