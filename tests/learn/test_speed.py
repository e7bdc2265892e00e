"""How many processes load pictures: as many as the time that was measured makes worth their start."""

from itertools import count

import pytest

from maskfast.core.errors import ImageError
from maskfast.learn import speed

PATHS = [f"{number}.jpg" for number in range(1000)]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(speed, "time", made)
    monkeypatch.setattr(speed, "count_cores", lambda: 4)
    return made


@pytest.mark.parametrize(("seconds", "workers"), [(0.0001, 0), (0.02, 3)])
def test_processes_load_what_would_take_one_too_long(clock: Clock, seconds: float, workers: int) -> None:
    def load(_path: str) -> None:
        clock.now += seconds

    assert speed.measure_workers(PATHS, load) == workers


def test_a_few_pictures_spread_over_all_are_timed_and_broken_ones_are_no_error(clock: Clock) -> None:
    seen, numbers = [], count()

    def load(path: str) -> None:
        seen.append(path)
        clock.now += 0.02
        if next(numbers) % 2:
            raise ImageError(path, "truncated file")

    assert speed.measure_workers(PATHS, load) == 3
    assert len(seen) == speed.TIMED_PICTURES
    assert int(seen[-1].removesuffix(".jpg")) > 900


def test_no_pictures_need_no_processes(clock: Clock) -> None:
    assert speed.measure_workers([], lambda path: path) == 0
    assert clock.now == 0
