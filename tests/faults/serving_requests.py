"""Cases of docs/serving-faults.md that one broken request makes: framing, forms, pictures and names."""

import gzip
import io
import time
import zlib

import httpx
from serving import BrightnessPredictor, make_picture, serve
from serving_cases import (
    BOUNDS,
    HEAD,
    PICTURE,
    assert_idle,
    connect,
    exchange,
    fault,
    list_statuses,
    post,
    reason,
    refusal,
    refused,
    wait_hint,
)

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


@fault("more requests a minute than allowed")
def _(_: str) -> str:
    with serve(rate=1) as (url, _):
        assert post(url, PICTURE).status_code == 200
        return wait_hint(post(url, PICTURE))
