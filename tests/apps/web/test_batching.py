import asyncio
import threading

import numpy as np
import pytest

from maskfast.apps.web.batching import Batcher


def make_array(level: int) -> np.ndarray:
    return np.full((2, 2, 3), level, np.uint8)


def mean_level(batch: np.ndarray) -> np.ndarray:
    return batch.mean(axis=(1, 2, 3), dtype=np.float32)


def test_what_waits_is_scored_in_one_call_and_everybody_gets_the_own_answer() -> None:
    sizes: list[int] = []
    gate = threading.Event()

    def score(batch: np.ndarray) -> np.ndarray:
        gate.wait(5)
        return mean_level(batch)

    async def scenario() -> list[float]:
        batcher = Batcher(score, max_batch=4, observe=sizes.append)
        batcher.start()
        tasks = [asyncio.create_task(batcher.score(make_array(level))) for level in range(7)]
        await asyncio.sleep(0.05)
        more = [asyncio.create_task(batcher.score(make_array(level))) for level in range(7, 9)]
        gate.set()
        answers = await asyncio.gather(*tasks, *more)
        await batcher.stop()
        return answers

    assert asyncio.run(scenario()) == list(range(9))
    assert sizes == [4, 4, 1]


def test_who_goes_away_is_not_scored() -> None:
    sizes: list[int] = []

    async def scenario() -> float:
        batcher = Batcher(mean_level, max_batch=4, observe=sizes.append)
        tasks = [asyncio.create_task(batcher.score(make_array(level))) for level in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        batcher.start()
        answer = await tasks[2]
        await batcher.stop()
        return answer

    assert asyncio.run(scenario()) == 2
    assert sizes == [2]


def test_a_model_that_raises_fails_its_batch_and_no_other() -> None:
    def score(batch: np.ndarray) -> np.ndarray:
        if batch.max() > 100:
            raise RuntimeError("broken")
        return mean_level(batch)

    async def scenario() -> float:
        batcher = Batcher(score, max_batch=1)
        batcher.start()
        with pytest.raises(RuntimeError, match="broken"):
            await batcher.score(make_array(200))
        answer = await batcher.score(make_array(50))
        await batcher.stop()
        return answer

    assert asyncio.run(scenario()) == 50
