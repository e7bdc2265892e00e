"""The scoring service learns at its start how fast its model answers."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maskfast import load
from maskfast.apps.web import service
from maskfast.apps.web.admission import CROWDED_PATIENCE
from maskfast.apps.web.metrics import Metrics
from maskfast.apps.web.service import LEAST_PATIENCE
from maskfast.apps.web.settings import ServeSettings


def learn_patience(scorer: service.Scorer) -> float:
    async def scenario() -> float:
        await scorer.start()
        await scorer.stop()
        return scorer.room.crowded_patience

    return asyncio.run(scenario())


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "patience"), [(0.0001, LEAST_PATIENCE), (0.02, 0.02), (0.2, CROWDED_PATIENCE)])
def test_under_overload_nobody_waits_longer_than_one_answer_takes(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, patience: float
) -> None:
    clock = Clock()
    monkeypatch.setattr(service, "time", clock)
    scorer = service.Scorer(load(toy_bundle), ServeSettings(), Metrics())
    score: Callable[[np.ndarray], np.ndarray] = scorer.batcher.score_batch

    def answer_slowly(batch: np.ndarray) -> np.ndarray:
        clock.now += seconds
        return score(batch)

    scorer.batcher.score_batch = answer_slowly
    assert learn_patience(scorer) == pytest.approx(patience)
