"""Faults by the words of their row in docs/serving-faults.md, and what their cases share."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
from serving import make_picture

MAX_BODY = 200_000
BOUNDS = {"max_body": MAX_BODY, "body_seconds": 1, "head_seconds": 1}
PICTURE = make_picture(200)
HEAD = "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
CASES: dict[str, Callable[[str], str]] = {}


def fault(words: str) -> Callable[[Callable[[str], str]], Callable[[str], str]]:
    def add(case: Callable[[str], str]) -> Callable[[str], str]:
        CASES[words] = case
        return case

    return add


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


def refused(answer: httpx.Response) -> str:
    assert list(answer.json()) == ["error"]
    return str(answer.status_code)


def wait_hint(answer: httpx.Response) -> str:
    assert int(answer.headers["retry-after"]) >= 1
    return f"{refused(answer)}, with Retry-After"
