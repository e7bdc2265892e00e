"""Probabilities over time go in, events of somebody wearing a mask come out: smoothed, and with hysteresis."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Event:
    """A stretch in which somebody wore a mask: seconds of its first and last frame, and the highest probability."""

    start: float
    end: float
    peak: float


@dataclass(frozen=True)
class State:
    """Where things stand after a frame; `event` is the one going on, `started` and `ended` what this frame changed."""

    probability: float
    smoothed: float
    event: Event | None = None
    started: Event | None = None
    ended: Event | None = None


class EventTracker:
    """Follows one source.

    `on` and `off`: an event begins when the smoothed probability reaches `on` and ends when it falls to `off`.
    `smoothing`: time constant of the exponential smoothing, in seconds; 0 takes every frame as it is.
    `longest_gap`: an event also ends where no frame came for that many seconds.
    An event's bounds are its first and last frame above the middle of `on` and `off`, so smoothing delays neither.
    """

    def __init__(self, *, on: float, off: float, smoothing: float = 0.5, longest_gap: float = 5.0) -> None:
        self.on = on
        self.off = off
        self.middle = (on + off) / 2
        self.smoothing = smoothing
        self.longest_gap = longest_gap
        self.event: Event | None = None
        self._smoothed: float | None = None
        self._last = 0.0
        self._rise: Event | None = None

    def update(self, seconds: float, probability: float) -> State:
        """Take the next frame's probability."""
        ended = self.finish() if seconds - self._last > self.longest_gap else None
        self._smoothed = self._smooth(seconds, probability)
        self._last = seconds
        self._follow_rise(seconds, probability)
        started = None
        if self.event is None and self._smoothed >= self.on:
            self.event = started = self._rise or Event(seconds, seconds, probability)
        elif self.event is not None:
            self.event = self._extend(self.event, seconds, probability)
            if self._smoothed <= self.off:
                ended, self.event = self.event, None
        return State(probability, self._smoothed, self.event, started, ended)

    def finish(self) -> Event | None:
        """End the event that is going on, if any, and forget what came before."""
        ended, self.event = self.event, None
        self._smoothed = self._rise = None
        return ended

    def _smooth(self, seconds: float, probability: float) -> float:
        if self._smoothed is None or self.smoothing <= 0:
            return probability
        weight = 1 - math.exp(-max(0.0, seconds - self._last) / self.smoothing)
        return self._smoothed + weight * (probability - self._smoothed)

    def _follow_rise(self, seconds: float, probability: float) -> None:
        """Remember the stretch above the middle that may turn out to be the beginning of an event."""
        if probability < self.middle:
            self._rise = None
        elif self._rise is None:
            self._rise = Event(seconds, seconds, probability)
        else:
            self._rise = self._extend(self._rise, seconds, probability)

    def _extend(self, event: Event, seconds: float, probability: float) -> Event:
        end = seconds if probability >= self.middle else event.end
        return replace(event, end=end, peak=max(event.peak, probability))
