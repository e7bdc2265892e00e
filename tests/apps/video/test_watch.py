import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matroska import write_matroska
from network_camera import Camera
from PIL import Image
from serving import BrightnessPredictor, make_picture

from maskfast.apps.cli.main import run
from maskfast.apps.video import frames as frames_module
from maskfast.apps.video.frames import FileFrames, Frame, hide_login
from maskfast.apps.video.sinks import VideoSink
from maskfast.apps.video.watch import WatchOptions, watch_source
from maskfast.core.errors import ConfigError, DataError

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'maskfast[video]'")
FPS = 10
SCRIPT = [(20, 2.0), (220, 1.5), (20, 2.0), (220, 0.1), (20, 1.5), (200, 3.0), (30, 1.0)]
"""Brightness and seconds: two events, and a flicker of one frame that is none."""
EVENTS = [(2.0, 3.4, 220 / 255), (7.1, 10.0, 200 / 255)]


def draw_frame(level: int) -> np.ndarray:
    """A picture of a face-like disc on a ground, with the mean brightness that was asked for, nearly."""
    frame = np.full((120, 160, 3), level, np.uint8)
    cv2.circle(frame, (80, 60), 30, (level // 2 + 64,) * 3, 2)
    return frame


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "script.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (160, 120))
    for level, seconds in SCRIPT:
        for _ in range(round(seconds * FPS)):
            writer.write(draw_frame(level))
    writer.release()
    return path


def watch(source: Any, *, stop: threading.Event | None = None, predictor: Any = None, **options: Any) -> Any:
    told: list[Any] = []
    summary = watch_source(
        predictor or BrightnessPredictor(),
        str(source),
        WatchOptions(**options),
        stop=stop or threading.Event(),
        announce=lambda event, _: told.append(event),
    )
    return summary, told


def read_video(path: Path) -> tuple[float, list[np.ndarray]]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame)
    return capture.get(cv2.CAP_PROP_FPS), frames


def test_the_events_are_those_of_the_script(video: Path, tmp_path: Path) -> None:
    summary, told = watch(video, events=tmp_path / "events.csv", smoothing=0.3)
    assert (summary.scored, summary.dropped, summary.events) == (111, 0, 2)
    rows = list(csv.DictReader((tmp_path / "events.csv").read_text().splitlines()))
    assert list(rows[0]) == ["start", "end", "peak_probability"]
    for row, event, (start, end, peak) in zip(rows, told, EVENTS, strict=True):
        assert float(row["start"]) == event.start == pytest.approx(start)
        assert float(row["end"]) == event.end == pytest.approx(end)
        assert float(row["peak_probability"]) == pytest.approx(peak, abs=0.03)


def test_the_annotated_video_plays_and_shows_the_label(video: Path, tmp_path: Path) -> None:
    watch(video, out=tmp_path / "out.mp4", smoothing=0.3)
    fps, frames = read_video(tmp_path / "out.mp4")
    assert fps == pytest.approx(FPS)
    assert len(frames) == 111
    assert os.listdir(tmp_path) == ["out.mp4"]
    without, with_mask = frames[10], frames[80]
    assert abs(int(without[100, 30].mean()) - 20) < 8
    assert abs(int(with_mask[100, 30].mean()) - 200) < 8
    _, green, red = (int(value) for value in with_mask[118, 80])
    assert green > 100 > red, "an event is framed in green"
    bar_with, bar_without = (frame[16, :, :].max(axis=1) > 90 for frame in (with_mask, without))
    assert bar_with.sum() / 160 == pytest.approx(0.78, abs=0.06)
    assert bar_without.sum() / 160 == pytest.approx(0.08, abs=0.06)


def test_a_snapshot_is_the_frame_that_began_the_event(video: Path, tmp_path: Path) -> None:
    watch(video, snapshot=tmp_path, smoothing=0)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [
        f"event-000{n}-{t}.jpg" for n, t in ((1, "2.000"), (2, "5.500"), (3, "7.100"))
    ]
    assert np.asarray(Image.open(files[0])).mean() == pytest.approx(220, abs=8)


def test_a_stop_finishes_every_file(video: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    seen: list[int] = []

    def work(count: int) -> None:
        seen.append(count)
        if len(seen) == 30:
            stop.set()

    predictor = BrightnessPredictor(work)
    out, events = tmp_path / "out.mp4", tmp_path / "events.csv"
    summary, told = watch(video, stop=stop, predictor=predictor, out=out, events=events, smoothing=0)
    assert summary.scored == 30
    assert len(read_video(out)[1]) == 30
    assert [(event.start, event.end) for event in told] == [(2.0, 2.9)]
    assert events.read_text().count("\n") == 2


def test_what_cannot_be_watched_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no video")
    for source in (tmp_path / "none.mp4", tmp_path / "notes.mp4", "97", "ftp://example/x"):
        with pytest.raises(DataError, match=re.escape(str(source))):
            watch(source)


def test_a_window_without_a_screen_says_what_to_do(video: Path) -> None:
    if os.environ.get("DISPLAY"):
        pytest.skip("there is a screen")
    with pytest.raises(ConfigError, match="--headless"):
        watch(video, window=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hysteresis": 0.7}, "--hysteresis"),
        ({"out": Path("annotated.avi")}, r"--out .*\.mp4"),
        ({"webhook": "file:///etc/passwd"}, "--webhook"),
        ({"webhook": "http://"}, "--webhook"),
        ({"webhook": "http://host:seven/"}, "--webhook"),
        ({"webhook": "http://host/a b"}, "--webhook"),
        ({"webhook": "http://me:s3cret@host/"}, "--webhook http://host/: user and password"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_written(
    video: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    kept = tmp_path / "events.csv"
    kept.write_text("keep")
    with pytest.raises(ConfigError, match=message):
        watch(video, events=kept, **options)
    assert kept.read_text() == "keep"


def test_no_output_takes_the_place_of_the_video_or_of_another(video: Path, tmp_path: Path) -> None:
    before, link = video.read_bytes(), tmp_path / "link.mp4"
    link.symlink_to(video)
    for option, path in (("out", video), ("events", video), ("out", link), ("snapshot", video)):
        with pytest.raises(ConfigError, match=f"--{option} .*: is the video that is watched"):
            watch(video, **{option: path})
    with pytest.raises(ConfigError, match=r"--events .*: is what --out writes"):
        watch(video, out=tmp_path / "a.mp4", events=tmp_path / "b" / ".." / "a.mp4")
    assert video.read_bytes() == before
    assert os.listdir(tmp_path) == ["link.mp4"]


# ---- the time of frames, and files that are not whole --------------------------------------------------------------


def make_frames(*stretches: tuple[int, float, float, float]) -> list[tuple[float, bytes]]:
    """JPEGs of a brightness, from a second up to another, so many a second."""
    return [
        (start + number / fps, make_picture(level, kind="JPEG"))
        for level, start, end, fps in stretches
        for number in range(round((end - start) * fps))
    ]


@pytest.mark.parametrize(
    ("stretches", "start", "end"),
    [
        ([(20, 0, 2, 30), (220, 2, 12, 5), (20, 12, 14, 30)], 2.0, 11.8),
        ([(20, 0, 10, 0.5), (220, 10, 22, 0.5), (20, 22, 40, 0.5)], 10.0, 20.0),
        ([(20, 0, 40, 0.1), (220, 40, 80, 0.1), (20, 80, 120, 0.1)], 40.0, 70.0),
        ([(20, 0, 0.2, 500), (220, 0.2, 0.4, 500), (20, 0.4, 0.6, 500)], 0.2, 0.398),
    ],
    ids=["variable", "slow", "slower than the longest gap", "fast"],
)
def test_times_are_those_of_the_frames(
    tmp_path: Path, stretches: list[tuple[int, float, float, float]], start: float, end: float
) -> None:
    video = write_matroska(tmp_path / "a.mkv", make_frames(*stretches))
    summary, told = watch(video, smoothing=0, out=tmp_path / "out.mp4")
    assert [(event.start, event.end) for event in told] == [(pytest.approx(start), pytest.approx(end))]
    assert (summary.unreadable, summary.cut_off) == (0, False)
    fps, frames = read_video(tmp_path / "out.mp4")
    bright = [number / fps for number, frame in enumerate(frames) if frame[25, 2].mean() > 120]
    assert (bright[0], bright[-1]) == pytest.approx((start, end), abs=2.5 * max(1 / fps, 1 / stretches[1][3]))


@pytest.mark.parametrize("times", [[0.0, 0, 0, 0], [float("nan")] * 4, [-1.0, -1, -1, -1], [0, 100, 50, 300]])
def test_a_frame_without_a_time_of_its_own_comes_after_the_last(times: list[float]) -> None:
    class Capture:
        told = -1

        def read(self) -> tuple[bool, Any]:
            self.told += 1
            return self.told < len(times), draw_frame(20)

        def get(self, what: int) -> float:
            return {cv2.CAP_PROP_FPS: 10.0, cv2.CAP_PROP_POS_MSEC: times[min(self.told, 3)]}.get(what, 0.0)

    seconds = [frame.seconds for frame in FileFrames("http://x/", Capture(), stop=threading.Event()).read()]
    assert seconds == pytest.approx([0, 0.1, 0.2, 0.3])


def test_frames_that_cannot_be_read_are_counted_and_the_rest_is_seen(
    toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    frames = make_frames((20, 0, 4, 10))
    video = write_matroska(tmp_path / "a.mkv", [(at, b"bad" if 1 <= at < 2 else data) for at, data in frames])
    summary, _ = watch(video)
    assert (summary.scored, summary.unreadable, summary.cut_off) == (30, 10, False)
    assert "10 of its frames could not be read" in caplog.text
    assert run(["watch", str(video), "--model", str(toy_bundle), "--headless"]) == 1
    assert "30 frames scored, 0 dropped, 10 unreadable" in capsys.readouterr().err


def test_a_video_whose_end_is_missing_is_told_from_one_with_a_little_longer_sound(
    toy_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = write_matroska(tmp_path / "whole.mkv", make_frames((20, 0, 4, 10)), seconds=5.5)
    assert not watch(whole)[0].cut_off
    assert "is it whole" not in caplog.text
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    summary, _ = watch(cut)
    assert summary.cut_off
    assert 15 <= summary.scored <= 20
    assert "its head says 5.5 s, its frames end at" in caplog.text
    assert run(["watch", str(cut), "--model", str(toy_bundle), "--headless"]) == 1


def test_a_video_without_a_frame_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    video = write_matroska(tmp_path / "a.mkv", [(0.1 * number, b"bad") for number in range(20)])
    kept = tmp_path / "events.csv"
    kept.write_text("keep")
    with pytest.raises(DataError, match="no frame in it can be read"):
        watch(video, events=kept)
    assert kept.read_text() == "keep"


# ---- what is written -----------------------------------------------------------------------------------------------


def test_the_video_keeps_time_and_shortens_a_long_gap(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", fps=10)
    for seconds, level in ((100.0, 20), (100.05, 20), (100.1, 20), (101.0, 220), (3700.0, 20), (3701.0, 20)):
        frame = Frame(seconds, draw_frame(level))
        sink.write(frame, frame.pixels)
    sink.close()
    frames = read_video(tmp_path / "out.mp4")[1]
    assert len(frames) == 1 + 1 + 9 + 100 + 10
    bright = [number for number, frame in enumerate(frames) if frame[5, 5].mean() > 120]
    assert bright == list(range(10, 110)), "a frame stands still until the next one"


def test_no_video_takes_the_place_of_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out.mp4")
    with pytest.raises(DataError, match="is no regular file"):
        VideoSink(tmp_path / "out.mp4", fps=10)


# ---- streams -------------------------------------------------------------------------------------------------------


@pytest.fixture
def camera() -> Iterator[Camera]:
    camera = Camera()
    yield camera
    camera.end()


def wait_for(condition: Any, seconds: float = 15) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def test_a_stream_that_stops_and_comes_back_goes_on(camera: Camera, tmp_path: Path) -> None:
    stop, seen = threading.Event(), []
    predictor = BrightnessPredictor(lambda _: seen.append(time.time()))
    results: list[Any] = []
    options = {"stop": stop, "predictor": predictor, "events": tmp_path / "e.csv", "out": tmp_path / "o.mp4"}
    began = time.time()
    thread = threading.Thread(target=lambda: results.append(watch(camera.url, **options, smoothing=0.1)))
    thread.start()
    wait_for(lambda: len(seen) > 10)
    camera.level = 220
    wait_for(lambda: len(seen) > 20)
    camera.level = 20
    wait_for(lambda: len(seen) > 30)
    camera.plugged = False
    wait_for(lambda: time.time() - seen[-1] > 0.5)
    before = len(seen)
    camera.plugged = True
    wait_for(lambda: len(seen) > before + 10)
    stop.set()
    thread.join(10)
    summary, told = results[0]
    assert summary.reconnects == 1
    assert len(told) == 1
    (row,) = csv.DictReader(io.StringIO((tmp_path / "e.csv").read_text()))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["start"])
    assert began < told[0].start < told[0].end < time.time()
    fps, frames = read_video(tmp_path / "o.mp4")
    assert len(frames) / fps == pytest.approx(seen[-1] - seen[0], abs=1), "the video takes as long as it took"


def test_a_slow_model_sees_the_newest_frames_and_the_rest_is_counted(camera: Camera) -> None:
    stop, levels = threading.Event(), []

    class SlowPredictor(BrightnessPredictor):
        def predict(self, image: Any) -> Any:
            prediction = super().predict(image)
            levels.append((camera.level, round(prediction.probability * 255)))
            camera.level += 10
            time.sleep(0.4)
            if len(levels) == 8:
                stop.set()
            return prediction

    summary, _ = watch(camera.url, stop=stop, predictor=SlowPredictor())
    assert summary.scored == 8
    assert summary.dropped > 20
    assert all(abs(shown - seen) <= 4 for shown, seen in levels[2:]), "each frame is the one of that moment"


def test_a_stream_that_stays_away_is_given_up(camera: Camera) -> None:
    seen: list[int] = []

    def work(count: int) -> None:
        seen.append(count)
        if len(seen) == 5:
            camera.plugged = False

    summary, _ = watch(camera.url, predictor=BrightnessPredictor(work), give_up=1)
    assert summary.scored >= 5
    assert summary.reconnects == 0


def test_a_stream_that_opens_and_gives_no_frame_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Capture:
        def __init__(self, frames: int) -> None:
            self.frames = frames

        def read(self) -> tuple[bool, Any]:
            self.frames -= 1
            return self.frames >= 0, draw_frame(20)

        def get(self, _: int) -> float:
            return -1.0

        def release(self) -> None:
            pass

    left = [3, 0, 0, 2]
    monkeypatch.setattr(frames_module, "_open_capture", lambda _: Capture(left.pop(0) if left else 0))
    monkeypatch.setattr(frames_module, "FIRST_PAUSE", 0.01)
    summary, _ = watch("rtsp://camera/", give_up=0.2)
    assert summary.reconnects == 1, "a source is back with its first frame"
    assert summary.scored + summary.dropped == 5
    with pytest.raises(DataError, match="rtsp://camera/: gave no frame"):
        watch("rtsp://me:s3cret@camera/", give_up=0.05)


@contextmanager
def serve_http(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_recording_on_a_web_server_is_read_once_as_a_file_is(video: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(video.stat().st_size))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(video.read_bytes())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with serve_http(Handler) as url:
        summary, told = watch(f"{url}/script.mp4", smoothing=0.3)
    assert (summary.scored, summary.dropped, summary.reconnects) == (111, 0, 0)
    assert [event.start for event in told] == pytest.approx([start for start, _, _ in EVENTS])


def test_no_login_is_shown() -> None:
    assert hide_login("rtsp://me:p@ss@camera:554/a?b@c") == "rtsp://camera:554/a?b@c"
    assert hide_login("http://camera/a@b") == "http://camera/a@b"
    assert hide_login("me@home.mp4") == "me@home.mp4"
    for source in ("ftp://me:s3cret@host/x", "http://me:s3cret@127.0.0.1:9/x"):
        with pytest.raises(DataError) as caught:
            watch(source)
        assert "s3cret" not in str(caught.value)


def test_the_webhook_is_told_and_its_failure_stops_nothing(video: Path) -> None:
    calls: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if len(calls) == 2:
                self.wfile.write(b"no answer of HTTP\r\n\r\n")
                return
            self.send_response({1: 500, 3: 302}.get(len(calls), 204))
            self.send_header("Location", "http://[no address")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with serve_http(Handler) as url:
        summary, _ = watch(video, webhook=f"{url}/hook", smoothing=0.3)
    assert summary.events == 2
    assert [call["event"] for call in calls] == ["started", "ended", "started", "ended"]
    assert (calls[1]["start"], calls[1]["end"]) == ("2.000", "3.400")
    assert calls[1]["peak_probability"] == pytest.approx(220 / 255, abs=0.03)


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_prints_events_as_json(
    toy_bundle: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["watch", str(video), "--model", str(toy_bundle), "--headless", "--json", "--hysteresis", "0"]
    assert run([*args, "--events", str(tmp_path / "events.csv")]) == 0
    printed = capsys.readouterr()
    rows = list(csv.DictReader((tmp_path / "events.csv").read_text().splitlines()))
    assert [json.loads(line)["start"] for line in printed.out.splitlines()] == [row["start"] for row in rows]
    assert "111 frames scored, 0 dropped" in printed.err


def test_the_command_ends_cleanly_at_a_signal(toy_bundle: Path, camera: Camera, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "maskfast", "watch", camera.url, "--model", str(toy_bundle), "--headless"]
    with subprocess.Popen([*command, "--out", str(tmp_path / "out.mp4")], stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: camera.served > 20)
        wait_for(lambda: any(tmp_path.iterdir()))
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert "frames scored" in process.stderr.read()
    assert read_video(tmp_path / "out.mp4")[1]
