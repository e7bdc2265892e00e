import numpy as np
import pytest

from maskfast.apps.video.events import Event, EventTracker


def follow(probs: list[float], fps: float = 10, **options: float) -> tuple[list[Event], list[float]]:
    tracker = EventTracker(on=0.6, off=0.4, **options)
    states = [tracker.update(number / fps, prob) for number, prob in enumerate(probs)]
    events = [state.ended for state in states if state.ended]
    last = tracker.finish()
    return [*events, last] if last else events, [state.smoothed for state in states]


def test_the_smoothing_is_the_exponential_moving_average_of_that_time_constant() -> None:
    probs = np.random.default_rng(0).random(50)
    _, smoothed = follow(list(probs), smoothing=0.3)
    expected = probs[0]
    for number, prob in enumerate(probs[1:], start=1):
        expected = prob + (expected - prob) * np.exp(-0.1 / 0.3)
        assert smoothed[number] == pytest.approx(expected)


def test_an_event_has_the_bounds_of_the_stretch_and_its_peak() -> None:
    events, _ = follow([0.1] * 20 + [0.9] * 10 + [0.95] + [0.9] * 9 + [0.1] * 20, smoothing=0.3)
    assert events == [Event(2.0, 3.9, 0.95)]


def test_a_flicker_begins_no_event_and_a_dropout_ends_none() -> None:
    probs = [0.1] * 20 + [0.95] + [0.1] * 20 + [0.9] * 20 + [0.1] + [0.9] * 19 + [0.1] * 20
    events, _ = follow(probs, smoothing=0.5)
    assert [(event.start, event.end) for event in events] == [(4.1, 8.0)]


def test_between_off_and_on_nothing_changes() -> None:
    assert follow([0.55] * 30, smoothing=0)[0] == []
    (event,) = follow([0.7] * 5 + [0.45, 0.55] * 10 + [0.3], smoothing=0)[0]
    assert (event.start, event.end) == (0.0, 2.4)


def test_an_event_that_goes_on_at_the_end_is_not_lost() -> None:
    assert follow([0.1] * 5 + [0.9] * 10, smoothing=0)[0] == [Event(0.5, 1.4, 0.9)]


def test_a_long_gap_without_frames_ends_an_event() -> None:
    tracker = EventTracker(on=0.6, off=0.4, smoothing=0.5, longest_gap=2)
    tracker.update(0, 0.9)
    assert tracker.update(1, 0.9).ended is None
    state = tracker.update(10, 0.9)
    assert state.ended == Event(0, 1, 0.9)
    assert state.started == Event(10, 10, 0.9)
