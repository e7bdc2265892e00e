"""Pictures a second of the Ray engine against the local engine, on the same cores, with the same pictures and bundle.

Both run as their own process, in turns. Start-up (until the first row is written) is told apart: rates are those of the
rows after it. Memory is the largest resident sum of the process and all below it, shared pages counted once (PSS).

    python benchmarks/cluster.py ../shared/data/spot-the-mask/images.zip --model export/model --counts 1817 7268
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import processes
from cluster_faults import list_below, repeat_pictures

SAMPLE_SECONDS = 0.5
LOCAL = """
import itertools, json, sys, time
start = time.monotonic()
from maskfast import load
from maskfast.score.batch import score_inputs
rows = score_inputs(load(sys.argv[2] or None), [sys.argv[1]])
done = len(list(itertools.islice(rows, 1024)))
first = time.monotonic()
rest = sum(1 for _ in rows)
print(json.dumps({"start_up": first - start, "rows": rest, "seconds": time.monotonic() - first, "images": done + rest}))
"""
RAY = """
import json, sys, time
start = time.monotonic()
from maskfast.apps.cluster.engine import score_cluster
finished = []
def track(partitions):
    for each in partitions:
        finished.append((time.monotonic(), each.rows))
        yield each
counts = score_cluster([sys.argv[1]], sys.argv[3], model=sys.argv[2] or None, track=track)
first, rest = finished[0][0], sum(rows for _, rows in finished[1:])
seconds = finished[-1][0] - first
print(json.dumps({"start_up": first - start, "rows": rest, "seconds": seconds, "images": counts.images}))
"""


class MemoryWatch(threading.Thread):
    """Samples the memory of a process and of all below it; `peak` is in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self._ended = pid, 0, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, sum(map(read_pss, [self.pid, *list_below(self.pid)])))

    def stop(self) -> int:
        self._ended.set()
        self.join()
        return self.peak


def read_pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def measure(code: str, pictures: Path, model: Path | None, out: Path) -> dict[str, Any]:
    """Run `code` on `pictures` in a process of its own and return its figures."""
    command = [sys.executable, "-c", code, str(pictures), str(model or ""), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    watch = MemoryWatch(process.pid)
    watch.start()
    printed, _ = process.communicate()
    peak = watch.stop()
    assert process.returncode == 0, f"it ended with {process.returncode}"
    figures = json.loads(printed.splitlines()[-1])
    assert figures["rows"] > 0, "use more pictures: all were done by the first partition"
    return {**figures, "rate": figures["rows"] / figures["seconds"], "peak_bytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="a folder or zip of pictures")
    parser.add_argument("--model", type=Path, help="a bundle folder")
    parser.add_argument("--counts", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    report = {"cores": len(os.sched_getaffinity(0)), "runs": []}
    for count in args.counts:
        with tempfile.TemporaryDirectory(prefix="maskfast-cluster-") as folder:
            repeat_pictures(args.pictures, Path(folder), count)
            report["runs"].append(compare(args, Path(folder), count))
            print(json.dumps(report["runs"][-1]), file=sys.stderr)
    report["lowest_ratio"] = min(run["ratio"] for run in report["runs"])
    print(json.dumps(report, indent=1))
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


def compare(args: argparse.Namespace, folder: Path, count: int) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {"local": [], "ray": []}
    for repeat in range(args.repeats):
        for name, code in (("local", LOCAL), ("ray", RAY)):
            runs[name].append(measure(code, folder / "many", args.model, folder / f"out{repeat}"))
    figures = {
        name: {key: statistics.median(run[key] for run in each) for key in ("start_up", "rate", "peak_bytes")}
        for name, each in runs.items()
    }
    return {"count": count, **figures, "ratio": figures["ray"]["rate"] / figures["local"]["rate"]}


if __name__ == "__main__":
    processes.run_main(main)
