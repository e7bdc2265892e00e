"""What a billion pictures take on clusters nobody here has: measured rates go in, simulated clusters come out.

The engine's blocks are simulated one by one as they queue for the driver, the store, a node's network, its cores (which
decoding and scoring share, as processes share them) and its GPU, under the engine's own bounds on what is under way.

    python benchmarks/scale_simulation.py measure PICTURES --model export/model     # writes scale_rates.json
    python benchmarks/scale_simulation.py simulate                                  # prints the table of docs/scale.md

What is not measured is an argument with a stated default: the store's and the network's speed, prices, a GPU's rate.
"""

import argparse
import dataclasses
import heapq
import itertools
import json
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import processes

from maskfast.apps.cluster.flow import BLOCKS_A_CORE
from maskfast.apps.cluster.partitions import BLOCK
from maskfast.apps.cluster.stages import FETCH_AHEAD

RATES = Path(__file__).parent / "scale_rates.json"
BILLION = 1_000_000_000
SHARES = ("cores", "gpu", "network", "store", "driver")
"""What may be the busiest, each as the part of the time it is used."""
BUSY = 0.8
"""Where nothing is used so much of the time, everything waits for answers of the store: the limit is its latency."""
LEAST_BLOCKS = 1000


@dataclass(frozen=True)
class Rates:
    """Seconds and bytes: of one picture where no other unit is said."""

    decode: float
    """Core seconds to decode one, and `decode_spread` how far means of blocks differ, as a part of their mean."""
    decode_spread: float
    score: float
    """Core seconds to score one on the CPU."""
    driver_block: float
    """Seconds of the driver for one block."""
    picture_bytes: float
    pixel_bytes: float
    source: str = ""


@dataclass(frozen=True)
class Cluster:
    """`gpu` is a GPU's seconds a picture (0: none, the cores score); network and store are in bytes a second."""

    nodes: int
    cores: int
    gpu: float
    network: float
    store: float
    latency: float
    """Seconds until the store begins to answer."""


@dataclass(eq=False)
class Job:
    work: float
    weight: float
    then: Callable[[float], None]


class Node:
    """A machine whose jobs share its cores: each goes as fast as its weight (in cores) allows, or its fair share."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.jobs: list[Job] = []
        self.decoding = self.calls = self.version = 0
        self.network_free = self.now = self.busy = self.gpu_busy = 0.0
        self.decoded: deque[int] = deque()
        self.scoring = False

    def speed(self) -> float:
        weight = sum(job.weight for job in self.jobs)
        return min(1.0, self.cluster.cores / weight) if weight else 0.0

    def advance(self, now: float) -> None:
        speed = self.speed()
        for job in self.jobs:
            job.work -= (now - self.now) * job.weight * speed
            self.busy += (now - self.now) * job.weight * speed
        self.now = now

    def next_end(self) -> float:
        speed = self.speed()
        return min((self.now + job.work / (job.weight * speed) for job in self.jobs), default=float("inf"))


class Simulation:
    """Runs `blocks` blocks through `cluster` and says how fast, and what was busiest."""

    def __init__(self, cluster: Cluster, rates: Rates, *, seed: int = 0) -> None:
        self.cluster, self.rates = cluster, rates
        self.nodes = [Node(cluster) for _ in range(cluster.nodes)]
        self.random = np.random.default_rng(seed)
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = itertools.count()
        self.driver_free = self.driver_busy = self.store_free = self.store_busy = self.network_busy = 0.0
        self.done: list[float] = []
        self.left = 0

    def run(self, blocks: int) -> dict[str, float]:
        self.left = blocks
        for node in self.nodes:
            self._feed(node, 0.0)
        while self.events:
            now, _, act = heapq.heappop(self.events)
            act(now)
        return self._summarise()

    def _summarise(self) -> dict[str, float]:
        """The middle half of the blocks tells the rate: no start, no end."""
        first, last = len(self.done) // 4, 3 * len(self.done) // 4
        rate = (last - first) * BLOCK / (self.done[last] - self.done[first])
        whole, nodes = self.done[-1], self.cluster.nodes
        return {
            "rate": rate,
            "driver": self.driver_busy / whole,
            "store": self.store_busy / whole,
            "network": self.network_busy / whole / nodes,
            "cores": sum(node.busy for node in self.nodes) / whole / nodes / self.cluster.cores,
            "gpu": sum(node.gpu_busy for node in self.nodes) / whole / nodes,
        }

    def _at(self, when: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self.events, (when, next(self.order), act))

    def _feed(self, node: Node, now: float) -> None:
        """Start decoding as far as the engine's bound and the node's slots (one a core) allow."""
        held = node.decoding + len(node.decoded)
        while self.left and node.decoding < self.cluster.cores and held < BLOCKS_A_CORE * self.cluster.cores:
            self.left -= 1
            node.decoding += 1
            held += 1
            self.driver_free = max(now, self.driver_free) + self.rates.driver_block
            self.driver_busy += self.rates.driver_block
            self._at(self.driver_free, lambda at, node=node: self._fetch(node, at))

    def _fetch(self, node: Node, now: float) -> None:
        size = BLOCK * self.rates.picture_bytes
        self.store_free = max(now, self.store_free) + size / self.cluster.store
        node.network_free = max(now, node.network_free) + size / self.cluster.network
        self.store_busy += size / self.cluster.store
        self.network_busy += size / self.cluster.network
        asked = now + self.cluster.latency * -(-BLOCK // FETCH_AHEAD)
        there = max(self.store_free, node.network_free, asked)
        work = BLOCK * self.rates.decode * max(0.1, self.random.normal(1, self.rates.decode_spread))
        # Decoding goes on while pictures come in: the block ends with the later of the two.
        self._start(node, now, work, 1.0, lambda at: self._at(max(at, there), lambda at: self._decoded(node, at)))

    def _decoded(self, node: Node, now: float) -> None:
        node.decoding -= 1
        node.decoded.append(1)
        self._score(node, now)
        self._feed(node, now)

    def _score(self, node: Node, now: float) -> None:
        if node.scoring or not node.decoded:
            return
        node.decoded.popleft()
        node.scoring = True
        if self.cluster.gpu:
            node.gpu_busy += BLOCK * self.cluster.gpu
            self._at(now + BLOCK * self.cluster.gpu, lambda at: self._scored(node, at))
        else:
            self._start(
                node, now, BLOCK * self.rates.score, float(self.cluster.cores), lambda at: self._scored(node, at)
            )
        self._feed(node, now)

    def _scored(self, node: Node, now: float) -> None:
        node.scoring = False
        self.done.append(now)
        self._score(node, now)

    def _start(self, node: Node, now: float, work: float, weight: float, then: Callable[[float], None]) -> None:
        node.advance(now)
        node.jobs.append(Job(work, weight, then))
        self._watch(node)

    def _watch(self, node: Node) -> None:
        """Look again when the next job ends, unless another came or went before."""
        node.version += 1
        version = node.version

        def look(now: float) -> None:
            if node.version != version:
                return
            node.advance(now)
            ended = [job for job in node.jobs if job.work <= 1e-9]
            node.jobs = [job for job in node.jobs if job.work > 1e-9]
            self._watch(node)
            for job in ended:
                job.then(now)

        end = node.next_end()
        if end < float("inf"):
            self._at(end, look)


def describe(cluster: Cluster, rates: Rates, *, blocks: int, price: float, gpu_price: float) -> dict[str, Any]:
    """Simulate and extrapolate to a billion pictures; `price` is of a core and an hour."""
    found = Simulation(cluster, rates).run(blocks)
    parts = {name: found[name] for name in SHARES}
    busiest = max(parts, key=lambda name: parts[name])
    limit = busiest if parts[busiest] >= BUSY else "latency"
    hours = BILLION / found["rate"] / 3600
    cost = hours * cluster.nodes * (cluster.cores * price + (gpu_price if cluster.gpu else 0))
    return {"cluster": cluster, "hours": hours, "cost": cost, "limit": limit, **found}


def format_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    columns = ("nodes", "cores a node", "GPU", "pictures/s", "a billion: hours", "$", *SHARES, "limit")
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        cluster = row["cluster"]
        shares = " | ".join(f"{row[name]:.0%}" for name in SHARES)
        start = f"| {cluster.nodes} | {cluster.cores} | {'yes' if cluster.gpu else 'no'} | {row['rate']:,.0f} "
        yield f"{start}| {row['hours']:,.1f} | {row['cost']:,.0f} | {shares} | {row['limit']} |"


def measure(pictures: Path, model: Path | None, *, count: int, blocks: int) -> Rates:
    """Measure this machine with one core at a time, so that the figures are core seconds."""
    from cluster_faults import repeat_pictures

    from maskfast.core.image import load_image
    from maskfast.score.loading import load

    predictor = load(model)
    with tempfile.TemporaryDirectory() as folder:
        paths = repeat_pictures(pictures, Path(folder), count)
        times, arrays = [], []
        for path in paths:
            start = time.process_time()
            arrays.append(load_image(path, predictor.size, predictor.method))
            times.append(time.process_time() - start)
        size = statistics.fmean(path.stat().st_size for path in paths)
    batch = np.stack(arrays[:32])
    predictor.predict_arrays(batch)
    start = time.process_time()
    for _ in range(8):
        predictor.predict_arrays(batch)
    score = (time.process_time() - start) / (8 * len(batch))
    means = [statistics.fmean(times[at : at + BLOCK]) for at in range(0, len(times) - BLOCK + 1, BLOCK)]
    spread = statistics.pstdev(means) / statistics.fmean(means)
    driver = measure_driver(blocks)
    pixels = float(predictor.size**2 * 3)
    source = f"{predictor.manifest.network.arch} at {predictor.size} px, {predictor.backend.name}, {count} pictures"
    return Rates(statistics.fmean(times), spread, score, driver, size, pixels, source)


def measure_driver(blocks: int) -> float:
    """Seconds of the driver's processor for one block: the engine's own loop, with stages that do nothing."""
    from maskfast.apps.cluster import flow
    from maskfast.apps.cluster.partitions import Block
    from maskfast.apps.cluster.session import open_ray
    from maskfast.score.predictor import Prediction

    class Idle:
        def locate(self) -> str:
            return ""

        def score(self, decoded: list[str]) -> list[Prediction]:
            return [Prediction(name, 0.5, "mask") for name in decoded]

    def names_only(pictures: list[Any], _size: int, _method: str) -> tuple[list[str], str]:
        return [name for name, _ in pictures], ""

    pictures = [(f"s3://bucket/folder/{index:09d}.jpg", Path("x")) for index in range(BLOCK)]
    with open_ray() as ray:
        loop = flow.Flow(ray, lambda: ray.remote(num_cpus=0)(Idle).remote(), 224, "squish", decode=names_only)
        work = (Block(0, index, pictures) for index in range(blocks))
        ended = loop.run(work, scorers=1)
        next(ended)
        start = time.process_time()
        count = sum(1 for _ in ended)
        return (time.process_time() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    first = verbs.add_parser("measure")
    first.add_argument("pictures", type=Path)
    first.add_argument("--model", type=Path)
    first.add_argument("--count", type=int, default=1817)
    first.add_argument("--blocks", type=int, default=2000)
    second = verbs.add_parser("simulate")
    second.add_argument("--cores", type=int, default=32)
    second.add_argument("--nodes", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    second.add_argument("--gpu-rate", type=float, default=5000.0, help="pictures a second of one GPU")
    second.add_argument("--network-gbit", type=float, default=10.0, help="of one node")
    second.add_argument("--store-gbit", type=float, default=100.0, help="of the store, all nodes together")
    second.add_argument("--latency-ms", type=float, default=50.0, help="of the store's first byte")
    second.add_argument("--price", type=float, default=0.04, help="$ of a core and an hour")
    second.add_argument("--gpu-price", type=float, default=1.0, help="$ of a GPU and an hour")
    second.add_argument("--blocks-a-core", type=int, default=8, help="how long to simulate")
    args = parser.parse_args()
    if args.verb == "measure":
        rates = measure(args.pictures, args.model, count=args.count, blocks=args.blocks)
        RATES.write_text(json.dumps(dataclasses.asdict(rates), indent=1) + "\n")
        print(RATES.read_text())
    else:
        simulate(args, Rates(**json.loads(RATES.read_text())))


def simulate(args: argparse.Namespace, rates: Rates) -> None:
    rows = []
    for gpu, nodes in itertools.product((0.0, 1 / args.gpu_rate), args.nodes):
        network, store = (each * 1e9 / 8 for each in (args.network_gbit, args.store_gbit))
        cluster = Cluster(nodes, args.cores, gpu, network, store, args.latency_ms / 1000)
        blocks = max(LEAST_BLOCKS, args.blocks_a_core * nodes * args.cores)
        rows.append(describe(cluster, rates, blocks=blocks, price=args.price, gpu_price=args.gpu_price))
    print("\n".join(format_table(rows)))


if __name__ == "__main__":
    processes.run_main(main)
