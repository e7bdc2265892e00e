"""Blocks of pictures go in, their rows come out as they are ready: decoded by Ray tasks, scored by Ray actors.

What is lost with a worker, an actor or a node is a block of work, which is done again; every block that goes in comes
out once. Blocks wait before they are decoded, never after: no more are under way than the cores can use.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from maskfast.apps.cluster.partitions import Block
from maskfast.apps.cluster.stages import decode_and_locate
from maskfast.core.errors import MaskfastError
from maskfast.core.image import Method
from maskfast.score.predictor import Prediction

logger = logging.getLogger(__name__)

ATTEMPTS = 20
"""How often one block may be lost before the run gives up; each time another worker tries."""
BLOCKS_A_CORE = 2
"""Blocks decoding or decoded, for each core: one under way, one waiting."""
CALLS_A_SCORER = 2
"""Blocks handed to a scorer, so that the next one is there when it ends one."""
PATIENCE = 30.0
"""Seconds without any news after which a warning is logged."""
CORES_SECONDS = 5.0
"""How long the number of the cluster's cores is taken for granted."""


@dataclass
class _Job:
    """A block on its way: `pixels` refers to the decoded block on the node `node`."""

    block: Block
    attempts: int = 0
    pixels: Any = None
    node: str = ""


@dataclass(eq=False)
class _Worker:
    """A scorer: an actor that has its model loaded on the node `node`."""

    actor: Any
    node: str = ""
    calls: int = 0


@dataclass
class Flow:
    """The driver's side of a run: `decode` is the first stage, `start_scorer` makes one more actor for the second."""

    ray: Any
    start_scorer: Callable[[], Any]
    size: int
    method: Method
    decode: Callable[..., tuple[Any, str]] = decode_and_locate
    _again: deque[_Job] = field(default_factory=deque)
    _decoding: dict[Any, _Job] = field(default_factory=dict)
    _decoded: deque[_Job] = field(default_factory=deque)
    _scoring: dict[Any, tuple[_Job, _Worker]] = field(default_factory=dict)
    _starting: dict[Any, _Worker] = field(default_factory=dict)
    _scorers: list[_Worker] = field(default_factory=list)
    _lost_scorers: int = 0
    _cores: tuple[float, int] = (0.0, 1)

    def run(self, blocks: Iterator[Block], *, scorers: int) -> Iterator[tuple[Block, list[Prediction]]]:
        """Yield every block with its rows, in whatever order they are ready; `scorers` models are held.

        Raises MaskfastError where the code refuses (a broken model) or one block is lost again and again.
        """
        self._decode = self.ray.remote(num_cpus=1, max_retries=0, num_returns=2)(self.decode)
        try:
            for _ in range(scorers):
                self._add_scorer()
            while self._feed(blocks):
                for ref in self._wait():
                    yield from self._settle(ref)
        finally:
            for worker in [*self._scorers, *self._starting.values()]:
                self.ray.kill(worker.actor)

    def _feed(self, blocks: Iterator[Block]) -> bool:
        """Give work to whoever is free; say whether there is any left to wait for."""
        while len(self._decoding) + len(self._decoded) < BLOCKS_A_CORE * self._count_cores():
            job = self._again.popleft() if self._again else _take(blocks)
            if job is None:
                break
            job.pixels, node = self._decode.remote(job.block.pictures, self.size, self.method)
            self._decoding[node] = job
        while self._decoded and (worker := self._choose_scorer(self._decoded[0])):
            job = self._decoded.popleft()
            self._scoring[worker.actor.score.remote(job.pixels)] = (job, worker)
            worker.calls += 1
        return bool(self._decoding or self._decoded or self._scoring or self._again)

    def _choose_scorer(self, job: _Job) -> _Worker | None:
        """Return the scorer with the fewest calls, among them one on the pixels' own node; None where all are busy."""
        free = [worker for worker in self._scorers if worker.calls < CALLS_A_SCORER]
        return min(free, key=lambda worker: (worker.calls, worker.node != job.node), default=None)

    def _wait(self) -> list[Any]:
        """Return what became ready, at once as soon as there is something."""
        refs = [*self._starting, *self._decoding, *self._scoring]
        ready, _ = self.ray.wait(refs, num_returns=1, timeout=PATIENCE, fetch_local=False)
        if not ready:
            counts = f"{len(self._decoding)} blocks to decode, {len(self._scoring)} to score"
            logger.warning("nothing happened for %g s: %s, %d scorers starting", PATIENCE, counts, len(self._starting))
        return list(ready)

    def _settle(self, ref: Any) -> Iterator[tuple[Block, list[Prediction]]]:
        if ref in self._starting:
            self._settle_scorer(self._starting.pop(ref), ref)
        elif ref in self._decoding:
            self._settle_decoded(self._decoding.pop(ref), ref)
        else:
            yield from self._settle_scored(*self._scoring.pop(ref), ref)

    def _settle_scorer(self, worker: _Worker, ref: Any) -> None:
        try:
            worker.node = self._get(ref)
        except self.ray.exceptions.RayError as error:
            self._replace_scorer(worker, error)
            return
        self._scorers.append(worker)

    def _settle_decoded(self, job: _Job, ref: Any) -> None:
        try:
            job.node = self._get(ref)
        except self.ray.exceptions.RayError as error:
            self._repeat(job, error)
            return
        self._decoded.append(job)

    def _settle_scored(self, job: _Job, worker: _Worker, ref: Any) -> Iterator[tuple[Block, list[Prediction]]]:
        worker.calls -= 1
        try:
            rows = self._get(ref)
        except self.ray.exceptions.RayError as error:
            if isinstance(error, self.ray.exceptions.RayActorError) and worker in self._scorers:
                self._scorers.remove(worker)
                self._replace_scorer(worker, error)
            self._repeat(job, error)
            return
        yield job.block, rows

    def _get(self, ref: Any) -> Any:
        """Return a result; what the code itself raised comes as such, what Ray lost as a RayError."""
        try:
            return self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, Exception) else error from None

    def _repeat(self, job: _Job, error: Exception) -> None:
        job.attempts += 1
        job.pixels = None
        first = job.block.pictures[0][0]
        if job.attempts >= ATTEMPTS:
            raise MaskfastError(f"{first}: the block from it on was lost {ATTEMPTS} times, the last: {_brief(error)}")
        logger.warning("the block from %s on is done again: %s", first, _brief(error))
        time.sleep(min(0.1 * job.attempts, 1.0))
        self._again.append(job)

    def _add_scorer(self) -> None:
        worker = _Worker(self.start_scorer())
        self._starting[worker.actor.locate.remote()] = worker

    def _replace_scorer(self, worker: _Worker, error: Exception) -> None:
        self._lost_scorers += 1
        if self._lost_scorers > ATTEMPTS + len(self._scorers):
            raise MaskfastError(f"scorers were lost {self._lost_scorers} times, the last: {_brief(error)}")
        logger.warning("a scorer is replaced: %s", _brief(error))
        self.ray.kill(worker.actor)
        self._add_scorer()

    def _count_cores(self) -> int:
        now = time.monotonic()
        if now > self._cores[0]:
            self._cores = now + CORES_SECONDS, max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        return self._cores[1]


def _take(blocks: Iterator[Block]) -> _Job | None:
    block = next(blocks, None)
    return None if block is None else _Job(block)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
