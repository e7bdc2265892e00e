"""How fast a bundle scores, beside plain fastai with the same network, in one run and alternating.

    python benchmarks/scoring.py [PICTURES] [--pictures 1817] [--rounds 3] [--memory 1000 20000] [--out FILE.json]

PICTURES is a folder or zip; by default spot-the-mask's images.zip below $MASKFAST_SHARED, or drawn faces where that is
unset. The network is resnet34 at 224 pixels with random weights: its speed is that of trained ones. Every figure is a
median over the rounds, in each of which all contenders run once, each in a fresh process; the ratios are what counts on
a shared machine.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from statistics import median
from typing import Any

import processes
from results import describe_machine

COLD_STARTS = 3
"""Cold processes of each kind in a round, alternating: each is short, so a neighbour's moment would decide."""
TASKS = Path(__file__).with_name("scoring_tasks.py")
BACKENDS = ("int8", "onnx", "torch")
GOALS = {
    "folder, int8 / fastai": (">=", 4.5),
    "folder, torch bf16 / fastai": (">=", 2.4),
    "folder, onnx fp32 / fastai": (">=", 1.5),
    "folder / in memory, int8": (">=", 0.85),
    "folder / in memory, torch bf16": (">=", 0.85),
    "folder / in memory, onnx fp32": (">=", 0.85),
    "one warm picture, int8 / learn.predict": ("<=", 0.3),
    "cold process / fastai script": ("<=", 0.1),
    "cold process, megabytes": ("<=", 200),
    "peak memory, most / fewest pictures": ("<=", 1.1),
}
TITLES = {"int8": "int8", "onnx": "onnx fp32", "torch": "torch bf16", "torch-fp32": "torch fp32"}
"""What ran, by the name that the predictor gives it: torch computes in bf16 only where the processor does."""


def run_task(name: str, **task: Any) -> dict[str, Any]:
    """Run one task of scoring_tasks.py in a fresh process."""
    task_text = json.dumps({"task": name, **task})
    found: dict[str, Any] = processes.run_apart(name, [sys.executable, TASKS], given=task_text)
    return found


def run_cold(command: list[str], text: str = "") -> dict[str, float]:
    """Return seconds from start to end and peak megabytes of a process."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as given, open(os.devnull, "wb") as nowhere:
        given.write(text.encode())
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=nowhere, stderr=nowhere)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return {"seconds": time.perf_counter() - start, "megabytes": usage.ru_maxrss / 1024}


def measure_round(folder: str, pictures: list[str], warm: int) -> dict[str, Any]:
    """Run every contender once."""
    few = pictures[: warm + 1]
    found: dict[str, Any] = {"fastai": run_task("score_with_fastai", folder=folder, pictures=pictures)}
    for backend in BACKENDS:
        out = f"{folder}/rows-{backend}.csv"
        found[backend] = run_task("score_with_maskfast", folder=folder, pictures=pictures, backend=backend, out=out)
    found["warm fastai"] = run_task("predict_warm_with_fastai", folder=folder, pictures=few)
    found["warm int8"] = run_task("predict_warm_with_maskfast", folder=folder, pictures=few, backend="int8")
    task = json.dumps({"task": "predict_cold_with_fastai", "folder": folder, "pictures": few[:1]})
    options = ["--model", f"{folder}/model", "--backend", "int8"]
    found["cold"] = [
        {
            "fastai": run_cold([sys.executable, str(TASKS)], task),
            "int8": run_cold([sys.executable, "-m", "maskfast", "predict", few[0], *options]),
        }
        for _ in range(COLD_STARTS)
    ]
    found["matrix"] = run_task("multiply_matrices")
    return found


def measure_memory(folder: str, pictures: list[str], counts: list[int]) -> list[dict[str, Any]]:
    """Score that many pictures (the same ones over again) and return the peak memory of each run."""
    found = []
    for count in counts:
        many = [pictures[index % len(pictures)] for index in range(count)]
        out = f"{folder}/memory.csv"
        found.append(run_task("measure_memory", folder=folder, pictures=many, out=out, backend="int8"))
    return found


def compute_ratios(rounds: list[dict[str, Any]], memory: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median over the rounds of each ratio (numerator and denominator of the same round)."""
    ratios = {}
    for backend in BACKENDS:
        title = name_backend(rounds, backend)
        ratios[f"folder, {title} / fastai"] = median(each[backend]["rate"] / each["fastai"]["rate"] for each in rounds)
        kept = median(each[backend]["rate"] / each[backend]["in_memory"] for each in rounds)
        ratios[f"folder / in memory, {title}"] = kept
    ratios["one warm picture, int8 / learn.predict"] = median(
        each["warm int8"]["seconds"] / each["warm fastai"]["seconds"] for each in rounds
    )
    starts = [start for each in rounds for start in each["cold"]]
    ratios["cold process / fastai script"] = median(
        start["int8"]["seconds"] / start["fastai"]["seconds"] for start in starts
    )
    ratios["cold process, megabytes"] = median(start["int8"]["megabytes"] for start in starts)
    if len(memory) > 1:
        ratios["peak memory, most / fewest pictures"] = memory[-1]["peak"] / memory[0]["peak"]
    return ratios


def name_backend(rounds: list[dict[str, Any]], backend: str) -> str:
    """Return what the backend that was asked for computed in, which is the same in each round."""
    return TITLES[rounds[0][backend]["backend"]]


def write_table(result: dict[str, Any]) -> str:
    """Return what was measured as text: the machine, the rates, the ratios with their goals."""
    rounds, machine = result["rounds"], result["machine"]
    lines = [
        "{processor} ({known}), {cores} cores, {system}".format(**machine, known=" ".join(machine["instructions"])),
        f"{result['pictures']} pictures, resnet34 at 224, medians of {len(rounds)} rounds",
        "",
    ]
    lines.append(f"{'':14}{'pictures/s':>12}{'in memory':>12}{'G multiply-adds/s of a matrix product':>40}")
    lines.append(f"{'fastai':14}{median(each['fastai']['rate'] for each in rounds):12.1f}")
    for backend in BACKENDS:
        title = name_backend(rounds, backend)
        rate, memory = (median(each[backend][key] for each in rounds) for key in ("rate", "in_memory"))
        product = median(each["matrix"][title.split()[-1]] for each in rounds)
        lines.append(f"{title:14}{rate:12.1f}{memory:12.1f}{product:40.0f}")
    lines.append("")
    for name, value in result["ratios"].items():
        lines.append(f"{name:44}{value:10.3f}{_compare_with_goal(name, value)}")
    for each in result["memory"]:
        lines.append(f"{each['images']:7} pictures: peak {each['peak'] / 2**20:.0f} MB, "
                     f"{each['seconds_a_picture'] * 1000:.1f} ms each")  # fmt: skip
    return "\n".join(lines)


def _compare_with_goal(name: str, value: float) -> str:
    if name not in GOALS:
        return ""
    sign, goal = GOALS[name]
    met = value >= goal if sign == ">=" else value <= goal
    return f"   goal {sign} {goal}{'' if met else '   MISSED'}"


def find_pictures(given: Path | None, folder: Path, count: int) -> list[str]:
    """Return the paths of `count` pictures of a folder or zip, unpacked to `folder`."""
    from maskfast.core.errors import DataError
    from maskfast.data.demo import draw_demo
    from maskfast.data.listing import list_images

    if given is None and (shared := os.environ.get("MASKFAST_SHARED")):
        given = Path(shared) / "data" / "spot-the-mask" / "images.zip"
    elif given is None:
        given = draw_demo(folder / "drawn", count=count) / "images"
        print("the pictures are drawn ones; name a folder or zip to use others", file=sys.stderr)
    if not given.exists():
        raise DataError(f"{given}: no such file or folder")
    if given.is_file():
        with zipfile.ZipFile(given) as archive:
            archive.extractall(folder / "pictures")
        given = folder / "pictures"
    return [str(path) for _, path in list_images([given])][:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("given", nargs="?", type=Path, metavar="PICTURES")
    parser.add_argument("--pictures", type=int, default=1817)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", type=int, default=20, help="pictures of the warm measurement")
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 20000])
    parser.add_argument("--out", type=Path, default=Path("build/scoring.json"))
    told = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="maskfast-bench-"))
    try:
        pictures = find_pictures(told.given, folder, told.pictures)
        built = run_task("build_models", folder=str(folder), pictures=pictures)
        print(f"built the models {built}", file=sys.stderr, flush=True)
        rounds = []
        for _ in range(told.rounds):
            rounds.append(measure_round(str(folder), pictures, told.warm))
            print(f"round {len(rounds)}: {json.dumps(rounds[-1])}", file=sys.stderr, flush=True)
        memory = measure_memory(str(folder), pictures, told.memory)
    finally:
        shutil.rmtree(folder)
    ratios = compute_ratios(rounds, memory)
    result = {
        "machine": describe_machine(),
        "pictures": len(pictures),
        "ratios": ratios,
        "rounds": rounds,
        "memory": memory,
    }
    told.out.parent.mkdir(parents=True, exist_ok=True)
    told.out.write_text(json.dumps(result, indent=2) + "\n")
    print(write_table(result))
    print(f"\n{told.out}")


if __name__ == "__main__":
    processes.run_main(main)
