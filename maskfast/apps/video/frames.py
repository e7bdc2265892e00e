"""A camera, stream or video file goes in, frames with their times come out.

Of a file every frame counts. A camera or stream goes on whether or not anybody keeps up, so a thread reads it and only
the newest frame is handed out; a stream that is lost is opened again, with a growing pause.
"""

import contextlib
import logging
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
OPEN_MILLISECONDS = 10_000
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a lost stream is tried again; doubled after each failure."""
CLOSE_SECONDS = 2.0
PATIENCE = 0.1
"""Seconds between looks at whether to stop while no frame comes."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """One frame: its time in seconds (of a file since its beginning, else since 1970) and its pixels, BGR uint8."""

    seconds: float
    pixels: Pixels


class FrameSource(Protocol):
    """Where frames come from; `dropped` and `reconnects` count what nobody saw and the times the source came back."""

    fps: float
    live: bool
    dropped: int
    reconnects: int

    def read(self) -> Iterator[Frame]:
        """Yield frames until the source ends."""
        ...

    def close(self) -> None:
        """Let go of the source."""
        ...


def open_source(source: str, *, stop: threading.Event, give_up: float = 0) -> FrameSource:
    """Open a camera index, a stream's URL or a video file, to be read until it ends or `stop` is set.

    `give_up` ends a stream that is lost for that many seconds; 0 tries for ever.
    Raises DataError for what cannot be opened, MissingExtraError without OpenCV.
    """
    if source.isdigit() or source.startswith(STREAMS):
        return LiveFrames(source, stop=stop, give_up=give_up)
    if "://" in source:
        raise DataError(f"{source}: is no stream that can be watched; use {' '.join(STREAMS)}")
    if not Path(source).is_file():
        raise DataError(f"{source}: is no camera index, stream or video file")
    return FileFrames(source, stop=stop)


class FileFrames:
    """Every frame of a video file, in order."""

    live = False
    dropped = 0
    reconnects = 0

    def __init__(self, path: str, *, stop: threading.Event) -> None:
        self._capture = _open_capture(path)
        self.fps = _find_fps(self._capture)
        self._stop = stop

    def read(self) -> Iterator[Frame]:
        """Yield every frame; the times are the frame's number over the frames a second."""
        number = 0
        while not self._stop.is_set():
            there, pixels = self._capture.read()
            if not there:
                break
            yield Frame(number / self.fps, pixels)
            number += 1

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()


class LiveFrames:
    """The newest frame of a camera or stream, read by a thread of its own."""

    live = True

    def __init__(self, source: str, *, stop: threading.Event, give_up: float = 0) -> None:
        self.source = source
        self._stop = stop
        self.give_up = give_up
        self.dropped = 0
        self.reconnects = 0
        self._capture = _open_capture(source)
        self.fps = _find_fps(self._capture)
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
            while not self._closed.is_set():
                there, pixels = self._capture.read()
                if there:
                    self._put(pixels)
                elif not self._reconnect():
                    return
        finally:
            self._capture.release()
            self._closed.set()

    def _reconnect(self) -> bool:
        """Open the source again, as often as it takes; False where that was given up."""
        lost, pause = time.monotonic(), FIRST_PAUSE
        self._capture.release()
        while not self._closed.wait(pause):
            with contextlib.suppress(DataError):
                self._capture = _open_capture(self.source)
                self.reconnects += 1
                logger.warning("%s: came back after %.1f s", self.source, time.monotonic() - lost)
                return True
            pause = min(2 * pause, LONGEST_PAUSE)
            if self.give_up and time.monotonic() - lost > self.give_up:
                logger.error("%s: did not come back in %g s", self.source, self.give_up)
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
        raise DataError(f"{source}: no {kind} that can be opened; check that it exists and that nobody else uses it")
    return capture


def _find_fps(capture: Any) -> float:
    cv2 = import_extra("cv2", "video")
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if 1 <= fps <= 240 else USUAL_FPS
