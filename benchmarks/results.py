"""Trained bundles in, recorded runs and the README's results table out: no figure in that table is typed by hand.

    python benchmarks/results.py record export/model --recipe challenge      # benchmarks/results/<...>.json
    python benchmarks/results.py table                                       # prints the table
    python benchmarks/results.py readme README.md                            # writes it between its two markers
    python benchmarks/results.py --results benchmarks/results/sources readme docs/scenes.md

A run is recorded from what its bundle holds: its configuration, and the answers it gave to the pictures it held out
(out of fold where it has folds). `--evaluation metrics.json`, from `maskfast evaluate DATA --out FOLDER`, adds figures
on other pictures. Runs that differ only in their seed are one row: their mean and, in brackets, the lowest and highest.
"""

import argparse
import json
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maskfast.bundle.manifest import read_manifest
from maskfast.core.cores import count_cores
from maskfast.core.errors import DataError
from maskfast.core.files import write_whole
from maskfast.score.metrics import compute_metrics

RESULTS = Path(__file__).parent / "results"
MEASURES = {"log_loss": "log loss", "accuracy": "accuracy", "auc": "AUC"}
FAST_FORMATS = {"avx512_vnni": "int8", "avx_vnni": "int8", "avx512_bf16": "bf16", "amx_bf16": "bf16"}
"""What processors call the instructions that multiply fewer bits, and what they multiply."""
BEGIN, END = "<!-- results: made by benchmarks/results.py -->", "<!-- end of results -->"


def record_run(folder: Path, *, recipe: str, evaluation: Path | None = None, note: str = "") -> dict[str, Any]:
    """Return what the bundle in `folder` tells of the run that made it."""
    manifest = read_manifest(folder)
    validation = pd.read_csv(folder / "report" / "validation.csv")
    history = folder / "report" / "history.csv"
    config = manifest.config
    measured = compute_metrics(validation["label"], validation["probability"], threshold=manifest.threshold)
    return {
        "recipe": recipe,
        "arch": manifest.network.arch,
        "data": [Path(str(name)).name for name in config.get("data", [])],
        "seed": config.get("seed", 0),
        "folds": config.get("folds", 0),
        "config": {key: value for key, value in config.items() if key not in ("data", "out", "weights", "drop")},
        "held_out": {"count": measured["count"], **{name: measured[name] for name in MEASURES}},
        "elsewhere": _read_evaluation(evaluation) if evaluation else None,
        "seconds": round(float(pd.read_csv(history)["seconds"].sum()), 1) if history.exists() else None,
        "machine": describe_machine(),
        "versions": manifest.versions,
        "created": manifest.created,
        "note": note,
    }


def describe_machine() -> dict[str, Any]:
    """Return the system, the processor's name, its fast number formats and the cores this process may use.

    Processors of one name differ several times over in what they do with 8 and 16 bits.
    """
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = re.findall(r"model name\s*:\s*(.+)", info)
    return {
        "system": platform.system(),
        "processor": names[0] if names else platform.machine(),
        "instructions": sorted({"avx2", "avx512f", *FAST_FORMATS} & set(info.split())),
        "cores": count_cores(),
    }


def name_run(run: dict[str, Any]) -> str:
    """Return a file name that a second run of the same recipe, data and seed shares."""
    parts = [run["recipe"], run["arch"], *run["data"], f"folds{run['folds']}", f"seed{run['seed']}"]
    return "-".join(re.sub(r"[^a-z0-9_]+", "_", str(part).lower()) for part in parts) + ".json"


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """Return every recorded run below `folder`, in the order of the files' names."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def write_table(runs: Iterable[dict[str, Any]]) -> str:
    """Return the runs as a Markdown table: a row a recipe, backbone and data, over its seeds."""
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        rows.setdefault((run["recipe"], run["arch"], " + ".join(run["data"]), run["folds"]), []).append(run)
    if not rows:
        return "No run has been recorded yet."
    elsewhere = any(run["elsewhere"] for same in rows.values() for run in same)
    titles = ["recipe", "backbone", "trained on", "seeds", *(f"held-out {title}" for title in MEASURES.values())]
    titles += ["on other pictures", "minutes"] if elsewhere else ["minutes"]
    ruler = ["---"] * 3 + ["---:"] * (len(titles) - 3) + ["---"]
    titles.append("on")
    lines = [titles, ruler, *(_write_row(key, same, elsewhere) for key, same in rows.items())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_readme(path: Path, table: str) -> str:
    """Return the text of `path` with `table` between its two markers."""
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise DataError(f"{path}: needs the lines {BEGIN!r} and {END!r} once each; the table goes between them")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def _read_evaluation(path: Path) -> dict[str, Any]:
    summary = json.loads(path.read_text())
    return {"name": path.parent.name, "count": summary["metrics"]["count"]} | {
        name: summary["metrics"][name] for name in MEASURES
    }


def _write_row(key: tuple[Any, ...], same: list[dict[str, Any]], elsewhere: bool) -> list[str]:
    recipe, arch, data, folds = key
    seeds = f"{len({run['seed'] for run in same})}" + (f", {folds} folds each" if folds else "")
    cells = [str(recipe), str(arch), str(data), seeds]
    cells += [_write_spread([run["held_out"][name] for run in same]) for name in MEASURES]
    if elsewhere:
        cells.append(_write_elsewhere([run["elsewhere"] for run in same if run["elsewhere"]]))
    seconds = [run["seconds"] for run in same if run["seconds"] is not None]
    machines = sorted({_write_machine(run["machine"]) for run in same})
    return [*cells, _write_minutes(seconds, alike=len(machines) == 1), "; ".join(machines)]


def _write_minutes(seconds: list[float], *, alike: bool) -> str:
    if not seconds:
        return "not recorded"
    if alike:
        return f"{np.mean(seconds) / 60:.1f}"
    return f"{min(seconds) / 60:.1f} to {max(seconds) / 60:.1f}"


def _write_machine(machine: dict[str, Any]) -> str:
    fast = sorted({FAST_FORMATS[name] for name in machine["instructions"] if name in FAST_FORMATS})
    processor = " with ".join([machine["processor"], *([" and ".join(fast)] if fast else [])])
    return f"{processor}, {machine['cores']} cores"


def _write_spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "not defined"
    spread = f" ({min(known):.4f} to {max(known):.4f})" if len(known) > 1 else ""
    return f"{np.mean(known):.4f}{spread}"


def _write_elsewhere(evaluations: list[dict[str, Any]]) -> str:
    if not evaluations:
        return "not measured"
    means = (f"{title} {_write_spread([one[name] for one in evaluations])}" for name, title in MEASURES.items())
    return f"{evaluations[0]['name']}: " + ", ".join(means)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of recorded runs")
    verbs = parser.add_subparsers(dest="verb", required=True)
    record = verbs.add_parser("record", help="record the run that made a bundle")
    record.add_argument("model", type=Path)
    record.add_argument("--recipe", required=True, help="what the table calls it")
    record.add_argument("--evaluation", type=Path, help="metrics.json of an evaluation on other pictures")
    record.add_argument("--note", default="")
    verbs.add_parser("table", help="print the table")
    readme = verbs.add_parser("readme", help="write the table into a file between its markers")
    readme.add_argument("file", type=Path)
    told = parser.parse_args(arguments)
    if told.verb == "record":
        run = record_run(told.model, recipe=told.recipe, evaluation=told.evaluation, note=told.note)
        write_whole(told.results / name_run(run), json.dumps(run, indent=2) + "\n")
        print(told.results / name_run(run))
    elif told.verb == "table":
        print(write_table(read_runs(told.results)))
    else:
        write_whole(told.file, write_readme(told.file, write_table(read_runs(told.results))))


if __name__ == "__main__":
    from processes import run_main

    run_main(lambda: main(sys.argv[1:]))
