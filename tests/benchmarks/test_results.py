"""The results table holds what the bundles' own answers give, and nothing else."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

from maskfast.bundle.store import write_bundle
from maskfast.core.errors import DataError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "results.py"


@pytest.fixture(scope="module")
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw_validation(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 50)
    probs = np.clip(rng.normal(0.3 + 0.4 * labels, 0.2), 0.01, 0.99)
    return pd.DataFrame({"image": [f"{n}.jpg" for n in range(50)], "label": labels, "probability": probs})


@pytest.fixture
def record(results: ModuleType, toy_draft, tmp_path: Path):
    """Write a bundle of a run with that seed and record it."""

    def write(seed: int, *options: str) -> Path:
        history = pd.DataFrame({"seconds": [60.0, 30.0]}).to_csv(index=False).encode()
        config = {"data": ["/home/me/spot-the-mask"], "seed": seed, "folds": 0, "epochs": 4}
        changes = {"validation": draw_validation(seed), "report": {"history.csv": history}, "config": config}
        folder = tmp_path / f"model{seed}"
        write_bundle(folder, replace(toy_draft, onnx=False, **changes))
        results.main(["--results", str(tmp_path / "runs"), "record", str(folder), "--recipe", "challenge", *options])
        return tmp_path / "runs"

    return write


def test_the_table_is_the_mean_of_the_recorded_seeds(results: ModuleType, record) -> None:
    for seed in (0, 1, 2):
        runs = record(seed)
    assert len(list(runs.glob("*.json"))) == 3
    losses = [
        oracle.log_loss(frame["label"], frame["probability"]) for frame in (draw_validation(seed) for seed in range(3))
    ]
    table = results.write_table(results.read_runs(runs))
    assert f"| {np.mean(losses):.4f} ({min(losses):.4f} to {max(losses):.4f}) |" in table
    assert "| challenge | simple_cnn | spot-the-mask | 3 |" in table
    machine = results.describe_machine()
    assert f"| 1.5 | {machine['processor']}" in table.splitlines()[-1]
    assert table.splitlines()[-1].endswith(f", {machine['cores']} cores |")
    assert "/home/me" not in next(runs.glob("*.json")).read_text()


def test_processors_of_one_name_are_told_apart_by_what_they_do_fast(results: ModuleType, record) -> None:
    record(0)
    runs = results.read_runs(record(1))
    machine = {"system": "Linux", "processor": "Chip", "cores": 2}
    runs[0]["machine"] = machine | {"instructions": ["avx2"]}
    runs[1]["machine"] = machine | {"instructions": ["avx2", "avx512_bf16", "avx512_vnni"]}
    runs[1]["seconds"] = 180
    assert "| 3.0 | Chip with bf16 and int8, 2 cores |" in results.write_table(runs[1:])
    assert "| 1.5 to 3.0 | Chip with bf16 and int8, 2 cores; Chip, 2 cores |" in results.write_table(runs)


def test_a_run_recorded_again_takes_its_own_place(record) -> None:
    record(0)
    assert len(list(record(0).glob("*.json"))) == 1


def test_figures_on_other_pictures_stand_beside(results: ModuleType, record, tmp_path: Path) -> None:
    summary = tmp_path / "scenes" / "metrics.json"
    summary.parent.mkdir()
    metrics = {"count": 853, "log_loss": 0.25, "accuracy": 0.93, "auc": 0.98}
    summary.write_text(json.dumps({"metrics": metrics}))
    runs = record(0, "--evaluation", str(summary))
    assert "scenes: log loss 0.2500, accuracy 0.9300, AUC 0.9800" in results.write_table(results.read_runs(runs))


def test_the_readme_keeps_all_but_the_table(results: ModuleType, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Head\n\n{results.BEGIN}\nold\n{results.END}\n\ntail\n")
    results.main(["--results", str(tmp_path / "none"), "readme", str(readme)])
    assert readme.read_text() == (f"# Head\n\n{results.BEGIN}\nNo run has been recorded yet.\n{results.END}\n\ntail\n")
    readme.write_text("# no markers\n")
    with pytest.raises(DataError, match=r"README\.md: needs the lines"):
        results.main(["--results", str(tmp_path), "readme", str(readme)])


@pytest.mark.parametrize(("page", "runs"), [("README.md", "results"), ("docs/scenes.md", "results/sources")])
def test_published_tables_are_those_of_the_recorded_runs(results: ModuleType, page: str, runs: str) -> None:
    path, table = SCRIPT.parents[1] / page, results.write_table(results.read_runs(SCRIPT.parent / runs))
    assert table.count("\n") > 2
    assert path.read_text(encoding="utf-8") == results.write_readme(path, table)


def test_it_runs_as_a_script() -> None:
    command = [sys.executable, str(SCRIPT), "--results", "/nowhere", "table"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "No run has been recorded yet."
