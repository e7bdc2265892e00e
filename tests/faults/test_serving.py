import gzip
import io
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from serving import BrightnessPredictor, make_picture, serve

pytestmark = pytest.mark.faults
TABLE = Path(__file__).parents[2] / "docs" / "serving-faults.md"
MAX_BODY = 200_000
BOUNDS = {"max_body": MAX_BODY, "body_seconds": 1, "head_seconds": 1}
PICTURE = make_picture(200)
HEAD = "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
CASES: dict[str, Callable[[str], str]] = {}

NAUGHTY = """
import os, time
from maskfast.apps.web import decoder
honest = decoder.answer_picture
def answer(data, *options):
    if data.startswith(b"hang"):
        time.sleep(60)
    if data.startswith(b"die"):
        os._exit(1)
    if data.startswith(b"slow"):
        time.sleep(0.5)
        data = data[4:]
    return honest(data, *options)
decoder.answer_picture = answer
decoder.main(["64", "squish", "0"])
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


def fault(words: str) -> Callable[[Callable[[str], str]], Callable[[str], str]]:
    def add(case: Callable[[str], str]) -> Callable[[str], str]:
        CASES[words] = case
        return case

    return add


def read_table() -> dict[str, str]:
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", TABLE.read_text(), re.MULTILINE)
    return {words: answer for words, answer in rows if words != "what comes in"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve(**BOUNDS) as (address, _):
        yield address


@pytest.mark.parametrize("words", read_table())
def test_the_answer_is_the_one_in_the_table(words: str, url: str) -> None:
    assert CASES[words](url) == read_table()[words]
    assert_idle(url)


def test_the_table_and_the_cases_are_the_same() -> None:
    assert set(CASES) == set(read_table())
    assert len(CASES) >= 30


def assert_idle(url: str) -> None:
    assert httpx.get(f"{url}/health", timeout=5).status_code == 200
    busy = []
    for _ in range(60):
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        busy = [line for line in lines if re.match(r"maskfast_(waiting|working|held)_\w+ (?!0\.0$)", line)]
        if not busy:
            return
        time.sleep(0.05)
    raise AssertionError(f"still busy: {busy}")


def test_memory_stays_flat() -> None:
    picture = make_picture(120, size=(900, 900), kind="BMP")

    def send(client: httpx.Client, count: int) -> None:
        for _ in range(count):
            answer = client.post("/api/predict", content=picture, headers={"content-type": "image/bmp"})
            assert answer.status_code == 200

    with start_server() as (server, url), httpx.Client(base_url=url, timeout=20) as client:
        send(client, 20)
        before = read_resident(server.pid)
        send(client, 60)
        grown = read_resident(server.pid) - before
        server.terminate()
    assert grown < 12 << 20, f"60 requests of {len(picture)} bytes left {grown} bytes"


def read_resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def start_server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", SERVER, str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server, server.stdout.readline().strip()


# ---- raw connections -----------------------------------------------------------------------------------------------


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=10)


def read_all(link: socket.socket, limit: int = 1 << 20) -> bytes:
    data = b""
    try:
        while len(data) < limit and (chunk := link.recv(65536)):
            data += chunk
    except (ConnectionResetError, TimeoutError):
        return data
    return data


def exchange(url: str, *parts: bytes | str, pause: float = 0) -> bytes:
    """Send the parts, with a pause between them, for as long as the server reads, and return all it answers."""
    with connect(url) as link:
        answer: list[bytes] = []
        reader = threading.Thread(target=lambda: answer.append(read_all(link)))
        reader.start()
        for part in parts:
            if not reader.is_alive():
                break
            try:
                link.sendall(part if isinstance(part, bytes) else part.encode())
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(pause)
        reader.join(10)
        return answer[0]


def list_statuses(data: bytes) -> list[str]:
    return re.findall(r"HTTP/1\.1 (\d{3})", data.decode())


def refusal(data: bytes) -> str:
    """The status of the one answer in `data`, which must be a line of JSON without paths."""
    (status,) = list_statuses(data)
    body = data.partition(b"\r\n\r\n")[2].decode()
    assert list(json.loads(body)) == ["error"], body
    assert "\n" not in body
    assert ".py" not in body
    return status


def post(url: str, body: Any, kind: str | None = "image/png", **options: Any) -> httpx.Response:
    headers = {"content-type": kind} if kind else {}
    return httpx.post(f"{url}/api/predict", content=body, headers=headers, timeout=15, **options)


def reason(answer: httpx.Response, word: str) -> str:
    (row,) = answer.json()["results"]
    assert (row["status"], row["probability"], row["label"]) == ("failed", None, "")
    assert word in row["reason"], row["reason"]
    return str(answer.status_code)


# ---- framing -------------------------------------------------------------------------------------------------------


@fault("a body larger than the bound")
def _(url: str) -> str:
    return refusal(exchange(url, f"{HEAD}Content-Length: 500000\r\n\r\n", bytes(500_000)))


@fault("a body larger than the bound after `Expect: 100-continue`")
def _(url: str) -> str:
    data = exchange(url, f"{HEAD}Content-Length: 500000\r\nExpect: 100-continue\r\n\r\n")
    return f"{refusal(data)}, before the body is sent"


@fault("chunks without end")
def _(url: str) -> str:
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    started = time.monotonic()
    data = exchange(url, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 2000)
    assert time.monotonic() - started < 5
    return refusal(data)


@fault("chunks that stop before the end")
def _(url: str) -> str:
    return refusal(exchange(url, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n"))


@fault("a body of one byte every 0.2 s")
def _(url: str) -> str:
    return refusal(exchange(url, f"{HEAD}Content-Length: 100\r\n\r\n", *[b"x"] * 50, pause=0.2))


@fault("a Content-Length larger than what follows")
def _(url: str) -> str:
    return refusal(exchange(url, f"{HEAD}Content-Length: 5000\r\n\r\n", PICTURE))


@fault("a Content-Length smaller than what follows")
def _(url: str) -> str:
    first, second = list_statuses(exchange(url, f"{HEAD}Content-Length: 10\r\n\r\n", PICTURE))
    return f"{first}, then {second} for the rest"


@fault("a Content-Length below zero")
def _(url: str) -> str:
    return refusal(exchange(url, f"{HEAD}Content-Length: -5\r\n\r\n"))


@fault("a Content-Length of 5,000 digits")
def _(url: str) -> str:
    return refusal(exchange(url, f"{HEAD}Content-Length: {'9' * 5000}\r\n\r\n"))


@fault("a broken chunk header")
def _(url: str) -> str:
    return refusal(exchange(url, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", b"zz\r\nhello\r\n"))


@fault("a head of one byte every 0.2 s")
def _(url: str) -> str:
    return refusal(exchange(url, *HEAD, pause=0.2))


@fault("a connection without a byte")
def _(url: str) -> str:
    return refusal(exchange(url))


@fault("10,000 headers")
def _(url: str) -> str:
    return refusal(exchange(url, HEAD, *[f"x-{number}: y\r\n" for number in range(10_000)], "\r\n"))


@fault("a header line of 200,000 bytes")
def _(url: str) -> str:
    return refusal(exchange(url, HEAD, b"x: " + b"y" * 200_000))


@fault("a TLS hello")
def _(url: str) -> str:
    return refusal(exchange(url, bytes.fromhex("16030100c8010000c40303") + bytes(200)))


@fault("50 pipelined requests")
def _(url: str) -> str:
    one = f"{HEAD}Content-Length: {len(PICTURE)}\r\n\r\n".encode() + PICTURE
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    statuses = list_statuses(exchange(url, one * 49 + last))
    return "200, fifty times" if statuses == ["200"] * 50 else str(statuses)


@fault("a client that leaves in the middle of its body")
def _(url: str) -> str:
    for _ in range(20):
        with connect(url) as link:
            link.sendall(f"{HEAD}Content-Length: 5000\r\n\r\n".encode() + bytes(100))
    return "nothing"


@fault("a client that leaves while its picture is scored")
def _(_: str) -> str:
    with serve(BrightnessPredictor(lambda _: time.sleep(0.3)), seats=1, **BOUNDS) as (url, _):
        for _ in range(10):
            with connect(url) as link:
                link.sendall(f"{HEAD}Content-Length: {len(PICTURE)}\r\n\r\n".encode() + PICTURE)
                time.sleep(0.02)
        started = time.monotonic()
        assert post(url, PICTURE).status_code == 200
        assert time.monotonic() - started < 2, "those who left were not scored first"
        assert_idle(url)
    return "nothing"


# ---- forms and types -----------------------------------------------------------------------------------------------


def form(*parts: str, end: bool = True) -> bytes:
    body = "".join(f"--b\r\nContent-Disposition: form-data; {part}" for part in parts)
    return (body + ("--b--\r\n" if end else "")).encode()


def post_form(url: str, body: bytes, kind: str = "multipart/form-data; boundary=b") -> httpx.Response:
    return post(url, body, kind)


def refused(answer: httpx.Response) -> str:
    assert list(answer.json()) == ["error"]
    return str(answer.status_code)


@fault("10,000 empty files")
def _(_: str) -> str:
    with serve() as (url, _):
        parts = [f'name="f"; filename="{number}.png"\r\n\r\n\r\n' for number in range(10_000)]
        return refused(post_form(url, form(*parts)))


@fault("33 files")
def _(url: str) -> str:
    return refused(post_form(url, form(*['name="f"; filename="a.png"\r\n\r\nx\r\n'] * 33)))


@fault("40 form fields and no file")
def _(url: str) -> str:
    return refused(post_form(url, form(*['name="f"\r\n\r\nx\r\n'] * 40)))


@fault("a form field of 100,000 bytes")
def _(url: str) -> str:
    return refused(post_form(url, form('name="f"\r\n\r\n' + "x" * 100_000 + "\r\n")))


@fault("a form without a file")
def _(url: str) -> str:
    return refused(post_form(url, form('name="f"\r\n\r\nx\r\n')))


@fault("a form cut off in the middle")
def _(url: str) -> str:
    return refused(post_form(url, form('name="f"; filename="a.png"\r\n\r\nx', end=False)))


@fault("a form that names no boundary")
def _(url: str) -> str:
    return refused(post_form(url, b"x", "multipart/form-data"))


@fault("no content type")
def _(url: str) -> str:
    return refused(post(url, PICTURE, None))


@fault("text/html")
def _(url: str) -> str:
    return refused(post(url, b"<p>", "text/html"))


# ---- pictures and names --------------------------------------------------------------------------------------------


def make_bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    pixels = zlib.compress(bytes(13_001 * 13_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@fault("a PNG of 13,000 x 13,000 pixels in 170 kB")
def _(url: str) -> str:
    bomb = make_bomb(13_000)
    assert len(bomb) < 170_000
    return f"{reason(post(url, bomb), '13000 x 13000 pixels')}, with the number of pixels"


@fault("a JPEG cut in half")
def _(url: str) -> str:
    picture = make_picture(90, size=(300, 300), kind="JPEG")
    return f"{reason(post(url, picture[: len(picture) // 2]), '')}, with the reason"


@fault("text sent as image/png")
def _(url: str) -> str:
    return f"{reason(post(url, b'hello, this is text'), 'not a picture')}, with the reason"


@fault("a gzip-compressed body")
def _(url: str) -> str:
    answer = httpx.post(
        f"{url}/api/predict",
        content=gzip.compress(PICTURE),
        headers={"content-type": "image/png", "content-encoding": "gzip"},
    )
    return f"{reason(answer, 'not a picture')}, with the reason"


def send_named(url: str, name: str) -> tuple[int, str]:
    answer = post(url, PICTURE, params={"name": name})
    by_form = httpx.post(f"{url}/api/predict", files=[("files", (name[:1000], io.BytesIO(PICTURE)))])
    assert by_form.status_code == answer.status_code
    assert "/" not in by_form.json()["results"][0]["image"]
    return answer.status_code, answer.json()["results"][0]["image"]


@fault("a file named ../../etc/passwd")
def _(url: str) -> str:
    status, name = send_named(url, "../../etc/passwd")
    assert send_named(url, "C:\\Windows\\passwd")[1] == name
    return f"{status}, named {name}"


@fault("a file name with line feeds, a zero byte and 5,000 letters")
def _(url: str) -> str:
    status, name = send_named(url, "a\n\r\0" + "x" * 5000 + "\x1b[31m")
    assert name.isprintable()
    return f"{status}, named in one line of {len(name)}"


@fault("the path /static/../settings.py")
def _(url: str) -> str:
    return refusal(exchange(url, "GET /static/../settings.py HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))


@fault("the path /static/%2e%2e/settings.py")
def _(url: str) -> str:
    return refusal(
        exchange(url, "GET /static/%2e%2e/settings.py HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    )


@fault("an unknown method")
def _(url: str) -> str:
    return refused(httpx.request("BREW", f"{url}/api/predict"))


@fault("a foreign Host header")
def _(url: str) -> str:
    return refused(httpx.get(f"{url}/api/model", headers={"host": "attacker.example"}))


@fault("a wrong token")
def _(_: str) -> str:
    with serve(token="right") as (url, _):
        return refused(post(url, PICTURE, params=None))


def wait_hint(answer: httpx.Response) -> str:
    assert int(answer.headers["retry-after"]) >= 1
    return f"{refused(answer)}, with Retry-After"


@fault("more requests a minute than allowed")
def _(_: str) -> str:
    with serve(rate=1) as (url, _):
        assert post(url, PICTURE).status_code == 200
        return wait_hint(post(url, PICTURE))


# ---- decoders, load and the end ------------------------------------------------------------------------------------


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
