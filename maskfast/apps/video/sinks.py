"""What a watched source leaves behind: an annotated video, a table of events, snapshots, and calls of a webhook."""

import http.client
import json
import logging
import os
import queue
import threading
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from maskfast.apps.video.events import Event, State
from maskfast.apps.video.frames import USUAL_FPS, Frame, Pixels, hide_login
from maskfast.core.errors import ConfigError
from maskfast.core.extras import import_extra
from maskfast.core.files import find_target, make_folder, write_whole

logger = logging.getLogger(__name__)
GREEN, AMBER, WHITE, BLACK = (110, 150, 20), (20, 120, 220), (255, 255, 255), (0, 0, 0)
OUT_FPS = (1.0, 240.0)
"""Frames a second that an annotated video may have; outside of these it gets USUAL_FPS."""
LONGEST_STILL = 10.0
"""Seconds that the annotated video stands still at most while a stream is away."""
WEBHOOK_SECONDS = 5.0
WEBHOOK_PLACES = 100
"""Calls that may wait for a slow webhook; more are dropped, and said so."""


def draw_state(pixels: Pixels, state: State) -> Pixels:
    """A copy of a BGR frame with the smoothed probability as a bar and the label at its top."""
    cv2 = import_extra("cv2", "video")
    drawn: Pixels = pixels.copy()
    height, width = drawn.shape[:2]
    band = max(18, height // 14)
    colour = GREEN if state.event else AMBER
    cv2.rectangle(drawn, (0, 0), (width, band), BLACK, -1)
    cv2.rectangle(drawn, (0, band - max(3, band // 6)), (round(width * state.smoothed), band), colour, -1)
    words = f"{'mask' if state.event else 'no mask'} {state.smoothed:.0%}"
    scale = band / 40
    cv2.putText(drawn, words, (band // 3, round(band * 0.68)), cv2.FONT_HERSHEY_SIMPLEX, scale, WHITE, 1, cv2.LINE_AA)
    if state.event:
        cv2.rectangle(drawn, (0, 0), (width - 1, height - 1), colour, max(2, band // 8))
    return drawn


class VideoSink:
    """Writes an mp4 at a steady rate: a frame is repeated or left out so that the video takes as long as it took.

    A frame stands still until the next one's time, for LONGEST_STILL seconds at most.

    Written beside the target under another name and renamed by `close`, so the target is always playable.
    """

    def __init__(self, path: Path, *, fps: float) -> None:
        self.path = find_target(path)
        self.fps = fps if OUT_FPS[0] <= fps <= OUT_FPS[1] else USUAL_FPS
        self.part = self.path.with_name(f".{self.path.stem}.part.mp4")
        self._writer: Any = None
        self._shown: Pixels | None = None
        self._size = (0, 0)
        self._first = 0.0
        self._written = 0

    def write(self, frame: Frame, drawn: Pixels) -> None:
        """Add a frame as often as its time asks for."""
        if self._writer is None:
            self._open(frame, drawn)
        if (drawn.shape[1], drawn.shape[0]) != self._size:
            drawn = import_extra("cv2", "video").resize(drawn, self._size)
        missing = round((frame.seconds - self._first) * self.fps) + 1 - self._written
        if missing > LONGEST_STILL * self.fps:
            self._first += missing / self.fps - LONGEST_STILL
            missing = round(LONGEST_STILL * self.fps)
        for _ in range(missing - 1):
            self._writer.write(self._shown)
        if missing > 0:
            self._writer.write(drawn)
            self._written += missing
        self._shown = drawn

    def close(self) -> None:
        """Finish the file and give it its name."""
        if self._writer is not None:
            self._writer.release()
            os.replace(self.part, self.path)

    def _open(self, frame: Frame, drawn: Pixels) -> None:
        cv2 = import_extra("cv2", "video")
        self._size = (drawn.shape[1], drawn.shape[0])
        self._first = frame.seconds
        self._writer = cv2.VideoWriter(str(self.part), cv2.VideoWriter_fourcc(*"mp4v"), self.fps, self._size)
        if not self._writer.isOpened():
            raise ConfigError(f"--out {self.path}: OpenCV cannot write it; check the folder, and use a name in .mp4")


class EventSink:
    """Writes events.csv anew after every event, so that it is whole whenever somebody reads it."""

    def __init__(self, path: Path, *, live: bool) -> None:
        self.path = path
        self.live = live
        self.events: list[Event] = []
        self._write()

    def add(self, event: Event) -> None:
        """Add an event that ended."""
        self.events.append(event)
        self._write()

    def _write(self) -> None:
        lines = ["start,end,peak_probability"]
        lines += [",".join(format_event(event, live=self.live)) for event in self.events]
        write_whole(self.path, "\n".join(lines) + "\n")


def format_event(event: Event, *, live: bool) -> Sequence[str]:
    """An event's start, end and peak as text: seconds of a file, times of day in UTC of a live source."""
    return format_time(event.start, live=live), format_time(event.end, live=live), f"{event.peak:.4f}"


def format_time(seconds: float, *, live: bool) -> str:
    """Seconds with milliseconds, or ISO 8601 in UTC of a live source."""
    if not live:
        return f"{seconds:.3f}"
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class SnapshotSink:
    """Saves the frame that began an event as a JPEG in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        make_folder(folder)

    def add(self, frame: Frame, *, live: bool) -> Path:
        """Save one frame; its name holds the event's number and time."""
        cv2 = import_extra("cv2", "video")
        self.count += 1
        when = format_time(frame.seconds, live=live).replace(":", "").replace("-", "")
        path = self.folder / f"event-{self.count:04d}-{when}.jpg"
        write_whole(path, cv2.imencode(".jpg", frame.pixels)[1].tobytes())
        return path


class Webhook:
    """Posts events as JSON from a thread of its own, so that a slow or faulty receiver never stops the watching."""

    def __init__(self, url: str, *, source: str) -> None:
        self.url = url
        self.source = hide_login(source)
        self.failed = 0
        self._calls: queue.Queue[bytes | None] = queue.Queue(WEBHOOK_PLACES)
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    def send(self, kind: str, event: Event, *, live: bool) -> None:
        """Tell of an event that `started` or `ended`."""
        start, end, peak = format_event(event, live=live)
        call = {"event": kind, "source": self.source, "start": start, "peak_probability": float(peak)}
        if kind == "ended":
            call["end"] = end
        try:
            self._calls.put_nowait(json.dumps(call).encode())
        except queue.Full:
            self._fail("too slow, an event was not sent")

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        try:
            self._calls.put(None, timeout=WEBHOOK_SECONDS)
        except queue.Full:
            self._fail("too slow, events were not sent")
        self._thread.join(2 * WEBHOOK_SECONDS)

    def _work(self) -> None:
        while (body := self._calls.get()) is not None:
            request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
            try:
                urllib.request.urlopen(request, timeout=WEBHOOK_SECONDS).close()
            except (OSError, http.client.HTTPException, ValueError) as error:  # the last: a redirect to no address
                self._fail(str(error))

    def _fail(self, why: str) -> None:
        self.failed += 1
        logger.warning("webhook %s: %s", self.url, why)


def check_webhook(url: str) -> None:
    """Raise ConfigError for an address that nothing can be posted to."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not (usable and url.isascii() and url.isprintable() and " " not in url):
        raise ConfigError(f"--webhook {hide_login(url)}: is no http or https address")
    if "@" in parts.netloc:
        raise ConfigError(f"--webhook {hide_login(url)}: user and password in the address are not sent; leave them out")
