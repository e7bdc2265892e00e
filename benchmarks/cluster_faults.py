"""Kills a worker, a node and the driver of a Ray run at random times, round after round, and compares what is left.

Two nodes are simulated on this machine (ray.cluster_utils.Cluster, loopback only). The pictures are repeated under new
names by hard links. A round is a fresh output folder, one `maskfast predict --engine ray` that loses a worker process,
then a node (another one joins later), then its own life (SIGKILL), and the same command again. It must end with each
name exactly once and, sorted, with the bytes of an undisturbed run.

    python benchmarks/cluster_faults.py ../shared/data/spot-the-mask/images.zip --count 20000 --rounds 10
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes

from maskfast.core.errors import DataError

FOLDER_FILES = 1000
NODE_STORE = 200 * 2**20
"""Bytes of a node's object store."""
REJOIN_SECONDS = (1.0, 8.0)
"""When a new node takes the place of a lost one."""


def repeat_pictures(source: Path, target: Path, count: int) -> list[Path]:
    """Lay `count` pictures below `target`: those of the folder or zip `source`, under new names, as hard links."""
    if source.is_file():
        zipfile.ZipFile(source).extractall(target / "once")
        source = target / "once"
    originals = sorted(path for path in source.rglob("*") if path.is_file())
    if not originals:
        raise DataError(f"{source}: no pictures there")
    links = []
    for index in range(count):
        original = originals[index % len(originals)]
        folder = target / "many" / f"{index // FOLDER_FILES:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        links.append(folder / f"{index:06d}{original.suffix}")
        try:
            os.link(original, links[-1])
        except OSError:  # the source lies on another disk
            shutil.copyfile(original, links[-1])
    return links


class TwoNodes:
    """A Ray cluster of a head and one more node on this machine, each with one core."""

    def __init__(self) -> None:
        os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        from ray.cluster_utils import Cluster

        self._options = {"num_cpus": 1, "object_store_memory": NODE_STORE, "node_ip_address": "127.0.0.1"}
        self._cluster = Cluster(initialize_head=True, head_node_args={**self._options, "include_dashboard": False})
        self._node = self._cluster.add_node(**self._options)
        self.address: str = self._cluster.address

    def kill_node(self) -> None:
        self._cluster.remove_node(self._node, allow_graceful=False)

    def add_node(self) -> None:
        self._node = self._cluster.add_node(**self._options)

    def kill_worker(self) -> str:
        """Kill one process that decodes or scores; say which."""
        pid, name = random.choice(list_workers())
        os.kill(pid, signal.SIGKILL)
        return name

    def stop(self) -> None:
        self._cluster.shutdown()


def list_workers() -> list[tuple[int, str]]:
    """Return (pid, name) of the Ray workers below this process that hold work."""
    found = []
    for pid in list_below(os.getpid()):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
        except OSError:
            continue
        if name.startswith(("ray::Scorer", "ray::decode_and")):
            found.append((pid, name))
    return found


def list_below(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]


class Run:
    """One `maskfast predict --engine ray` process."""

    def __init__(self, pictures: Path, out: Path, address: str, model: Path | None) -> None:
        options = ["--engine", "ray", "--address", address, "--out", str(out), "--json", "--quiet"]
        chosen = ["--model", str(model)] if model else []
        command = [sys.executable, "-m", "maskfast", "predict", str(pictures), *options, *chosen]
        self.out = out
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def wait_for_partition(self, count: int = 1) -> None:
        while self.process.poll() is None and len(list(self.out.glob("part-*"))) < count:
            time.sleep(0.05)

    def finish(self) -> dict[str, Any]:
        printed, _ = self.process.communicate()
        assert self.process.returncode in (0, 1), f"the run ended with {self.process.returncode}"
        counts: dict[str, Any] = json.loads(printed)
        return counts

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def read_result(out: Path) -> tuple[list[str], str, dict[str, bytes]]:
    """Return the names, the sha256 of the sorted rows and the bytes of every file of an output."""
    import pyarrow.parquet as pq

    rows = [row for path in out.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    lines = "\n".join(sorted(json.dumps(row) for row in rows))
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    return sorted(row["image"] for row in rows), hashlib.sha256(lines.encode()).hexdigest(), files


def disturb(cluster: TwoNodes, start: Callable[[], Run], seconds: float) -> dict[str, Any] | None:
    """Do one round of a run that takes `seconds` after its first partition; None where it ended before all kills."""
    run = start()
    run.wait_for_partition()
    begun = time.monotonic()
    times = [random.uniform(low, high) * seconds for low, high in ((0.0, 0.25), (0.3, 0.5), (0.55, 0.8))]
    sleep_until(begun + times[0])
    if run.process.poll() is not None or not list_workers():
        run.finish()
        return None
    killed = cluster.kill_worker()
    sleep_until(begun + times[1])
    cluster.kill_node()
    sleep_until(begun + times[2])
    ended = run.process.poll() is not None
    run.kill()
    time.sleep(random.uniform(*REJOIN_SECONDS))
    cluster.add_node()
    written = len(list(run.out.glob("part-*")))
    counts = start().finish()
    facts = {"worker": killed, "seconds_to_kills": [round(each, 2) for each in times], "partitions_at_kill": written}
    return None if ended else {**facts, "resumed": counts["resumed"], "images": counts["images"]}


def sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="a folder or zip of pictures")
    parser.add_argument("--model", type=Path, help="a bundle folder")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory(prefix="maskfast-faults-") as folder:
        report = measure(args, Path(folder))
    print(json.dumps(report, indent=1))
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    links = repeat_pictures(args.pictures, folder, args.count)
    names = sorted(str(path) for path in links)
    cluster = TwoNodes()
    try:
        calm = Run(folder / "many", folder / "calm", cluster.address, args.model)
        calm.wait_for_partition()
        begun = time.monotonic()
        calm.finish()
        seconds = time.monotonic() - begun
        expected = read_result(folder / "calm")
        assert expected[0] == names
        print(f"undisturbed: {seconds:.1f} s after its first partition", file=sys.stderr)
        rounds = [disturb_and_compare(cluster, args, folder, seconds, expected) for _ in range(args.rounds)]
    finally:
        cluster.stop()
    return {"count": args.count, "seconds": round(seconds, 1), "sha256_of_sorted_rows": expected[1], "rounds": rounds}


def disturb_and_compare(
    cluster: TwoNodes, args: argparse.Namespace, folder: Path, seconds: float, expected: tuple[Any, ...]
) -> dict[str, Any]:
    out = folder / "disturbed"
    facts = None
    while facts is None:
        shutil.rmtree(out, ignore_errors=True)
        facts = disturb(cluster, lambda: Run(folder / "many", out, cluster.address, args.model), seconds)
    names, digest, files = read_result(out)
    assert names == expected[0], "some input is missing or there twice"
    assert digest == expected[1], "rows differ from the undisturbed run"
    assert files == expected[2], "files differ from the undisturbed run"
    print(f"exactly once, the same bytes: {facts}", file=sys.stderr)
    return facts


if __name__ == "__main__":
    processes.run_main(main)
