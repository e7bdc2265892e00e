"""Cases of docs/serving-faults.md that load, dying decoders and signals make."""

import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
from serving import BrightnessPredictor, serve
from serving_cases import (
    MAX_BODY,
    PICTURE,
    assert_idle,
    connect,
    fault,
    post,
    reason,
    refused,
    wait_hint,
)

import maskfast.apps.web.decode

NAUGHTY = """
import os, time
from maskfast.score import decode_worker
honest = decode_worker.decode
def decode(name, data, *options):
    if data.startswith(b"hang"):
        time.sleep(60)
    if data.startswith(b"die"):
        os._exit(1)
    if data.startswith(b"slow"):
        time.sleep(0.5)
        data = data[4:]
    return honest(name, data, *options)
decode_worker.decode = decode
decode_worker.serve(64, "squish", 10**6)
"""

SERVER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from serving import BrightnessPredictor
from maskfast.apps.web.server import run_server
from maskfast.apps.web.settings import ServeSettings
run_server(
    BrightnessPredictor(lambda count: time.sleep(0.04)),
    ServeSettings(port=0, decoders=1, seats=2, max_batch=2),
    announce=lambda address: print(address, flush=True),
)
"""


@contextmanager
def start_server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", SERVER, str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server, server.stdout.readline().strip()


@fault("a picture that hangs its decoder")
def _(_: str) -> str:
    with serve(decoder=[sys.executable, "-c", NAUGHTY], decode_seconds=1) as (url, _):
        with ThreadPoolExecutor() as pool:
            hanging = pool.submit(post, url, b"hang")
            took = []
            while not hanging.done():
                started = time.monotonic()
                assert httpx.get(f"{url}/health").status_code == 200
                took.append(time.monotonic() - started)
        status = reason(hanging.result(), "took longer than 1 s")
        assert post(url, PICTURE).status_code == 200
        assert_idle(url)
    return f"{status}, and /health meanwhile in less than 0.5 s" if statistics.median(took) < 0.5 else str(took)


@fault("a picture that kills its decoder")
def _(_: str) -> str:
    with serve(decoder=[sys.executable, "-c", NAUGHTY]) as (url, _):
        status = reason(post(url, b"die"), "stops the decoder")
        assert post(url, PICTURE).status_code == 200
        assert_idle(url)
    return f"{status}, with the reason"


@fault("a decoder killed while it works")
def _(_: str) -> str:
    with serve(decoder=[sys.executable, "-c", NAUGHTY]) as (url, app), ThreadPoolExecutor() as pool:
        working = pool.submit(post, url, b"slow" + PICTURE)
        time.sleep(0.25)
        (pid,) = app.state.scorer.decoders.list_pids()
        os.kill(pid, signal.SIGKILL)
        answer = working.result()
        assert app.state.scorer.decoders.replaced == 1
        assert answer.json()["results"][0]["status"] == "ok"
    return str(answer.status_code)


@fault("a decoder that died and cannot be started again")
def _(_: str) -> str:
    with serve() as (url, app), patch.object(maskfast.apps.web.decode, "START_SECONDS", 1):
        decoders = app.state.scorer.decoders
        (pid,) = decoders.list_pids()
        command, decoders.command = decoders.command, [sys.executable, "-c", "raise SystemExit(3)"]
        os.kill(pid, signal.SIGKILL)
        told = wait_hint(post(url, PICTURE))
        decoders.command = command
        time.sleep(maskfast.apps.web.decode.PAUSE)
        assert post(url, PICTURE).status_code == 200
        assert_idle(url)
    return told


@fault("more pictures than the waiting room holds")
def _(_: str) -> str:
    gate = threading.Event()
    predictor = BrightnessPredictor()
    with serve(predictor, seats=1, max_waiting=4, max_files=4) as (url, _), ThreadPoolExecutor(12) as pool:
        predictor.work = lambda _: gate.wait(10)
        answers = [pool.submit(post, url, PICTURE) for _ in range(12)]
        early = [answer for answer in answers if _finished_by(answer, 1)]
        gate.set()
        statuses = sorted(answer.result().status_code for answer in answers)
        assert set(statuses) == {200, 503}
        assert len(early) >= 7, "who cannot be served is told at once"
        assert_idle(url)
        return wait_hint(early[0].result())


def _finished_by(answer: Any, seconds: float) -> bool:
    try:
        answer.result(seconds)
    except TimeoutError:
        return False
    return True


@fault("more bytes at once than the memory bound")
def _(_: str) -> str:
    with serve(max_memory=1000, max_body=MAX_BODY) as (url, _):
        assert post(url, PICTURE).status_code == 200
        return wait_hint(post(url, bytes(1001)))


@fault("more connections than allowed")
def _(_: str) -> str:
    with serve(max_connections=5, head_seconds=1) as (url, _):
        idle = [connect(url) for _ in range(5)]
        time.sleep(0.1)
        answer = httpx.get(f"{url}/health")
        for link in idle:
            link.close()
        time.sleep(0.1)
        assert_idle(url)
        return wait_hint(answer)


@fault("a model that raises")
def _(_: str) -> str:
    predictor = BrightnessPredictor()
    with serve(predictor) as (url, _):
        predictor.work = lambda _: 1 / 0  # type: ignore[assignment,return-value]
        answer = post(url, PICTURE)
        assert "zero" not in answer.text
        predictor.work = lambda _: None
        assert post(url, PICTURE).status_code == 200
        assert_idle(url)
        return f"{refused(answer)}, without its words"


@fault("SIGTERM under load")
def _(_: str) -> str:
    with start_server() as (server, url), ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(post, url, PICTURE) for _ in range(16)]
        for _ in range(100):
            text = httpx.get(f"{url}/metrics").text
            held = sum(float(each) for each in re.findall(r"^maskfast_(?:waiting|working)_pictures (\S+)", text, re.M))
            done = sum(each.done() for each in answers)
            if held + done >= 16:
                break
            time.sleep(0.01)
        assert done < 16, "some are still waiting when the signal comes"
        server.send_signal(signal.SIGTERM)
        statuses = {answer.result().status_code for answer in answers}
        code = server.wait(15)
    return f"{statuses.pop()} for all that was accepted, exit code {code}" if len(statuses) == 1 else str(statuses)
