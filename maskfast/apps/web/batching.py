"""Micro-batching: single arrays in from many requests, one call of the model for all that wait, probabilities out."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

Score = Callable[[np.ndarray], np.ndarray]
"""uint8 (N, size, size, 3) to float32 (N,): the probability of a mask."""


class Batcher:
    """Gathers what waits while the model works, so that a lone picture never waits for others.

    `observe` is told the size of every batch.
    """

    def __init__(self, score: Score, *, max_batch: int, observe: Callable[[int], None] = lambda _: None) -> None:
        self.score_batch = score
        self.max_batch = max_batch
        self.observe = observe
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[float]]] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End after the batch at work."""
        assert self._task is not None, "stop follows start"
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    async def score(self, array: np.ndarray) -> float:
        """The probability for one array; raises what the model raised."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((array, future))
        self._wake.set()
        return await future

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._take():
                await self._answer(batch)

    def _take(self) -> list[tuple[np.ndarray, "asyncio.Future[float]"]]:
        batch: list[tuple[np.ndarray, asyncio.Future[float]]] = []
        while self._waiting and len(batch) < self.max_batch:
            array, future = self._waiting.popleft()
            if not future.done():
                batch.append((array, future))
        return batch

    async def _answer(self, batch: list[tuple[np.ndarray, "asyncio.Future[float]"]]) -> None:
        self.observe(len(batch))
        arrays = np.stack([array for array, _ in batch])
        try:
            probs = await asyncio.get_running_loop().run_in_executor(self._thread, self.score_batch, arrays)
        except Exception as error:  # whatever the model raises belongs to those who asked, not to this loop
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), prob in zip(batch, probs, strict=True):
            if not future.done():
                future.set_result(float(prob))
