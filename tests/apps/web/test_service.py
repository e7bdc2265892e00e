"""The scoring service learns at its start how fast its model answers."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import make_picture

from maskfast import load
from maskfast.apps.web import service
from maskfast.apps.web.admission import CROWDED_PATIENCE
from maskfast.apps.web.answers import RefusalError
from maskfast.apps.web.metrics import Metrics
from maskfast.apps.web.service import LEAST_PATIENCE
from maskfast.apps.web.settings import ServeSettings
from maskfast.apps.web.uploads import Upload


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


def test_who_waits_for_an_explanation_is_as_patient_as_they_are_long(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six come at once to one seat and four places: one is refused, and nobody because the room is crowded."""
    clock = Clock()
    monkeypatch.setattr(service, "time", clock)
    scorer = service.Scorer(load(toy_bundle), ServeSettings(), Metrics())
    drawn = threading.Event()

    def draw(*_: object) -> bytes:
        drawn.wait(30)
        clock.now += 20.5
        return b"png"

    monkeypatch.setattr(service, "draw_heat_map", draw)

    async def scenario() -> list[Any]:
        await scorer.start()
        upload = Upload("a.png", make_picture())
        tasks = [asyncio.create_task(scorer.explain(upload)) for _ in range(6)]
        await asyncio.wait(tasks, timeout=0.3)  # longer than a prediction may wait in a crowded room
        drawn.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await scorer.stop()
        return answers

    answers = asyncio.run(scenario())
    assert [type(answer) for answer in answers].count(RefusalError) == 1
    room = scorer.explain_room
    assert (room.patience, room.crowded_patience, room.retry_after) == (102.5, 102.5, 21)
