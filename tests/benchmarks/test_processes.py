"""A benchmark that is given a wrong path says so in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("script", ["scoring.py", "cluster_faults.py", "serving.py --pictures", "training.py --data"])
def test_a_wrong_path_costs_one_line_and_no_traceback(script: str, tmp_path: Path) -> None:
    name, *options = script.split()
    missing = tmp_path / "missing"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / name, *options, missing],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert str(missing) in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
