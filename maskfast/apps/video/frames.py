"""A camera, stream or video file goes in, frames with their times come out.

Of a file every frame counts, and what of it cannot be read is counted. A camera or stream goes on whether or not
anybody keeps up, so a thread reads it and only the newest frame is handed out; a stream that is lost is opened again,
with a growing pause.
"""

import contextlib
import logging
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from maskfast.core.errors import DataError
from maskfast.core.extras import import_extra

logger = logging.getLogger(__name__)
STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://")
USUAL_FPS = 25.0
"""Frames a second of a source that does not say."""
HIGHEST_FPS = 10_000.0
"""Above this a container gives the ticks of its clock."""
OPEN_MILLISECONDS = 10_000
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a lost stream is tried again; doubled after each failure."""
CLOSE_SECONDS = 2.0
PATIENCE = 0.1
"""Seconds between looks at whether to stop while no frame comes."""
LOST_READS = 5000
"""Reads without a frame, one after the other, that are taken for a file's end; there they take microseconds each."""
EARLY_SECONDS, EARLY_PART = 2.0, 0.05
"""How much shorter than its head says a file may be, in seconds and in part, before it counts as cut off: honest ones
are a little, where a sound track is longer or a trimmed one keeps frames that are not shown."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """One frame: its time in seconds (of a file since its beginning, else since 1970) and its pixels, BGR uint8."""

    seconds: float
    pixels: Pixels


class FrameSource(Protocol):
    """Where frames come from.

    `dropped` counts the frames that nobody saw, `reconnects` the times the source came back, `unreadable` the frames
    that were there and could not be read; `cut_off` says that it ended well before the end its head tells of.
    """

    fps: float
    live: bool
    dropped: int
    reconnects: int
    unreadable: int
    cut_off: bool

    def read(self) -> Iterator[Frame]:
        """Yield frames until the source ends."""
        ...

    def close(self) -> None:
        """Let go of the source."""
        ...


def open_source(source: str, *, stop: threading.Event, give_up: float = 0) -> FrameSource:
    """Open a camera index, a stream's URL or a video file, to be read until it ends or `stop` is set.

    `give_up` ends a stream that is lost for that many seconds; 0 tries for ever. A recording that a web server sends
    has an end, so it is read as a file is.
    Raises DataError for what cannot be opened and for a file without a frame, MissingExtraError without OpenCV.
    """
    if is_file(source) and not Path(source).is_file():
        raise DataError(f"{source}: is no camera index, stream or video file")
    if "://" in source and not source.startswith(STREAMS):
        raise DataError(f"{hide_login(source)}: is no stream that can be watched; use {' '.join(STREAMS)}")
    capture = _open_capture(source)
    if is_file(source) or (source.startswith("http") and _count_frames(capture) > 0):
        return FileFrames(source, capture, stop=stop)
    return LiveFrames(source, capture, stop=stop, give_up=give_up)


def is_file(source: str) -> bool:
    """Whether `source` names a file, and no camera or address."""
    return not (source.isdigit() or "://" in source)


def hide_login(source: str) -> str:
    """An address without the user and password in it; anything else as it is."""
    return re.sub(r"(?<=://)[^/?#]*@", "", source)


class FileFrames:
    """Every frame of a video that has an end, in order."""

    live = False
    dropped = 0
    reconnects = 0

    def __init__(self, source: str, capture: Any, *, stop: threading.Event) -> None:
        self.source = source
        self._capture = capture
        self.fps = _find_fps(capture)
        self._stop = stop
        self.unreadable = 0
        self.cut_off = False
        self._step = 1 / self.fps
        self._seconds = -self._step
        self._first = self._take()
        if self._first is None:
            capture.release()
            raise DataError(f"{hide_login(source)}: no frame in it can be read; check that it is a whole video")

    def read(self) -> Iterator[Frame]:
        """Yield every frame that can be read, and say at the end what could not."""
        frame = self._first
        while frame is not None and not self._stop.is_set():
            yield frame
            frame = self._take()
        if not self._stop.is_set():
            self._check_end()

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()

    def _take(self) -> Frame | None:
        limit = time.monotonic() + OPEN_MILLISECONDS / 1000
        for failed in range(LOST_READS):
            there, pixels = self._capture.read()
            if there:
                self.unreadable += failed
                return Frame(self._find_time(), pixels)
            if self._stop.is_set() or time.monotonic() > limit:
                break
        return None

    def _find_time(self) -> float:
        """The frame's own time; where it has none, or one that is not later, one frame's time after the last."""
        cv2 = import_extra("cv2", "video")
        told = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        seconds = told if told >= 0 and told > self._seconds else self._seconds + 1 / self.fps
        self._step, self._seconds = seconds - self._seconds, round(seconds, 6)
        return self._seconds

    def _check_end(self) -> None:
        name = hide_login(self.source)
        if self.unreadable:
            logger.warning("%s: %d of its frames could not be read and were left out", name, self.unreadable)
        promised, seen = _count_frames(self._capture) / self.fps, self._seconds + self._step
        self.cut_off = promised - seen > max(EARLY_SECONDS, EARLY_PART * promised)
        if self.cut_off:
            logger.warning("%s: its head says %.1f s, its frames end at %.1f s: is it whole?", name, promised, seen)


class LiveFrames:
    """The newest frame of a camera or stream, read by a thread of its own."""

    live = True
    unreadable = 0
    cut_off = False

    def __init__(self, source: str, capture: Any, *, stop: threading.Event, give_up: float = 0) -> None:
        self.source = source
        self._stop = stop
        self.give_up = give_up
        self.dropped = 0
        self.reconnects = 0
        self._capture = capture
        self.fps = _find_fps(capture)
        self._newest: Frame | None = None
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._pump, name="frames", daemon=True)

    def read(self) -> Iterator[Frame]:
        """Yield the newest frame each time; what came in between counts as dropped."""
        self._thread.start()
        while (frame := self._take()) is not None:
            yield frame

    def close(self) -> None:
        """End the thread, which may take until a read of the source comes back."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)

    def _take(self) -> Frame | None:
        with self._changed:
            while self._newest is None and not (self._stop.is_set() or self._closed.is_set()):
                self._changed.wait(PATIENCE)
            frame, self._newest = self._newest, None
            return None if self._stop.is_set() else frame

    def _put(self, pixels: Pixels) -> None:
        with self._changed:
            self.dropped += self._newest is not None
            self._newest = Frame(time.time(), pixels)
            self._changed.notify_all()

    def _pump(self) -> None:
        try:
            while self._put_until_lost() and self._wait_for_return():
                continue
        finally:
            self._capture.release()
            self._closed.set()

    def _put_until_lost(self) -> bool:
        """Hand frames out until one does not come; False where that is because nobody wants more."""
        while not self._closed.is_set():
            there, pixels = self._capture.read()
            if not there:
                return True
            self._put(pixels)
        return False

    def _wait_for_return(self) -> bool:
        """Open the source again, as often as it takes until a frame comes; False where that was given up."""
        name = hide_login(self.source)
        lost, pause = time.monotonic(), FIRST_PAUSE
        self._capture.release()
        while not self._closed.wait(pause):
            with contextlib.suppress(DataError):
                self._capture = _open_capture(self.source)
                there, pixels = self._capture.read()
                if there:
                    self.reconnects += 1
                    logger.warning("%s: came back after %.1f s", name, time.monotonic() - lost)
                    self._put(pixels)
                    return True
                self._capture.release()
            pause = min(2 * pause, LONGEST_PAUSE)
            if self.give_up and time.monotonic() - lost > self.give_up:
                logger.error("%s: did not come back in %g s", name, self.give_up)
                return False
        return False


def _open_capture(source: str) -> Any:
    cv2 = import_extra("cv2", "video")
    if source.isdigit():
        capture = cv2.VideoCapture(int(source))
    else:
        bounds = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MILLISECONDS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, OPEN_MILLISECONDS]
        capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, bounds)
    if not capture.isOpened():
        capture.release()
        kind = "camera" if source.isdigit() else "video"
        name = hide_login(source)
        raise DataError(f"{name}: no {kind} that can be opened; check that it exists and that nobody else uses it")
    return capture


def _find_fps(capture: Any) -> float:
    cv2 = import_extra("cv2", "video")
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if 0 < fps <= HIGHEST_FPS else USUAL_FPS


def _count_frames(capture: Any) -> float:
    """How many frames a video's head speaks of; not above 0 where it has no end or does not say."""
    cv2 = import_extra("cv2", "video")
    return float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
