"""The loop over a source's frames: each is scored, the events are followed, and every sink gets what it asked for."""

import math
import os
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskfast.apps.video.events import Event, EventTracker, State
from maskfast.apps.video.frames import Frame, FrameSource, Pixels, hide_login, is_file, open_source
from maskfast.apps.video.sinks import EventSink, SnapshotSink, VideoSink, Webhook, check_webhook, draw_state
from maskfast.apps.video.window import Window
from maskfast.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from maskfast.score.predictor import Predictor

LIVE_OUT_FPS = 10.0
"""Frames a second of the annotated video of a camera or stream."""
LIVE_GAP = 5.0
"""Seconds without a frame of a camera or stream that end an event; a file's frame stands until the next."""


@dataclass(frozen=True)
class WatchOptions:
    """What to do with a source; times in seconds, `hysteresis` is added to and taken from the model's threshold."""

    smoothing: float = 0.5
    hysteresis: float = 0.1
    give_up: float = 0.0
    out: Path | None = None
    events: Path | None = None
    snapshot: Path | None = None
    webhook: str | None = None
    window: bool = False


@dataclass(frozen=True)
class Summary:
    """What was seen: frames scored, frames dropped because the newest came first, reconnects, and the events.

    `unreadable` counts the frames of a file that were left out, `cut_off` says that it ended well before its head says.
    """

    scored: int
    dropped: int
    reconnects: int
    events: int
    unreadable: int
    cut_off: bool


def watch_source(
    predictor: "Predictor",
    source: str,
    options: WatchOptions,
    *,
    stop: threading.Event,
    announce: Callable[[Event, bool], None] = lambda _, __: None,
) -> Summary:
    """Watch until the source ends or `stop` is set; `announce` is told every event that ended, and whether live.

    Whatever ends it, the files are finished. Raises DataError for a source that cannot be opened or gives no frame,
    ConfigError for options that cannot be used, before anything is written, MissingExtraError without OpenCV.
    """
    check_options(source, options)
    scored = 0
    with closing(open_source(source, stop=stop, give_up=options.give_up)) as frames:
        tracker = make_tracker(predictor.threshold, options, live=frames.live)
        sinks = Sinks(source, frames, options, announce)
        try:
            for frame in frames.read():
                scored += 1
                if not sinks.take(frame, score_frame(predictor, tracker, frame)):
                    break
        finally:
            sinks.close(tracker.finish())
    if not (scored or stop.is_set()):
        raise DataError(f"{hide_login(source)}: gave no frame; check the camera or stream")
    return Summary(scored, frames.dropped, frames.reconnects, sinks.count, frames.unreadable, frames.cut_off)


def check_options(source: str, options: WatchOptions) -> None:
    """Raise ConfigError for options that cannot be used, and for outputs that would take the source's place."""
    if not 0 <= options.hysteresis < 0.5:
        raise ConfigError(f"--hysteresis {options.hysteresis:g}: is not from 0 to below 0.5")
    if options.out and options.out.suffix.lower() != ".mp4":
        raise ConfigError(f"--out {options.out}: only .mp4 is written; give it that ending")
    if options.webhook is not None:
        check_webhook(options.webhook)
    taken = {os.path.realpath(source): "the video that is watched"} if is_file(source) else {}
    for option, path in (("--out", options.out), ("--events", options.events), ("--snapshot", options.snapshot)):
        if path and os.path.realpath(path) in taken:
            raise ConfigError(f"{option} {path}: is {taken[os.path.realpath(path)]}; name another place")
        if path:
            taken[os.path.realpath(path)] = f"what {option} writes"


def make_tracker(threshold: float, options: WatchOptions, *, live: bool) -> EventTracker:
    """The tracker around the model's threshold."""
    on, off = min(threshold + options.hysteresis, 0.99), max(threshold - options.hysteresis, 0.01)
    return EventTracker(on=on, off=off, smoothing=options.smoothing, longest_gap=LIVE_GAP if live else math.inf)


def score_frame(predictor: "Predictor", tracker: EventTracker, frame: Frame) -> State:
    """Score one frame and follow the events."""
    rgb: Pixels = frame.pixels[:, :, ::-1]
    probability = predictor.predict(rgb).probability
    assert probability is not None, "a frame's pixels are always a usable picture"
    return tracker.update(frame.seconds, probability)


class Sinks:
    """All that gets a watched source's frames and events; `count` is the number of events that ended."""

    def __init__(
        self, source: str, frames: FrameSource, options: WatchOptions, announce: Callable[[Event, bool], None]
    ) -> None:
        self.live = frames.live
        self.announce = announce
        self.count = 0
        fps = LIVE_OUT_FPS if frames.live else frames.fps
        self.window = Window(source) if options.window else None
        self.video = VideoSink(options.out, fps=fps) if options.out else None
        self.snapshots = SnapshotSink(options.snapshot) if options.snapshot else None
        self.table = EventSink(options.events, live=frames.live) if options.events else None
        self.webhook = Webhook(options.webhook, source=source) if options.webhook else None

    def take(self, frame: Frame, state: State) -> bool:
        """Hand one frame on; False where the window was closed."""
        if state.ended:
            self.end(state.ended)
        if state.started:
            self.start(frame, state.started)
        if self.video or self.window:
            drawn = draw_state(frame.pixels, state)
            if self.video:
                self.video.write(frame, drawn)
            return self.window is None or self.window.show(drawn)
        return True

    def start(self, frame: Frame, event: Event) -> None:
        """Tell that an event began with this frame."""
        if self.snapshots:
            self.snapshots.add(frame, live=self.live)
        if self.webhook:
            self.webhook.send("started", event, live=self.live)

    def end(self, event: Event) -> None:
        """Tell that an event ended."""
        self.count += 1
        self.announce(event, self.live)
        if self.table:
            self.table.add(event)
        if self.webhook:
            self.webhook.send("ended", event, live=self.live)

    def close(self, last: Event | None) -> None:
        """End the event going on and finish every file."""
        if last:
            self.end(last)
        if self.video:
            self.video.close()
        if self.webhook:
            self.webhook.close()
        if self.window:
            self.window.close()
