import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import serving_load
import serving_requests
from serving import make_picture, serve
from serving_cases import BOUNDS, CASES, assert_idle

pytestmark = pytest.mark.faults
MODULES = (serving_load, serving_requests)
TABLE = Path(__file__).parents[2] / "docs" / "serving-faults.md"


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


def test_memory_stays_flat() -> None:
    picture = make_picture(120, size=(900, 900), kind="BMP")

    def send(client: httpx.Client, count: int) -> None:
        for _ in range(count):
            answer = client.post("/api/predict", content=picture, headers={"content-type": "image/bmp"})
            assert answer.status_code == 200

    with serving_load.start_server() as (server, url), httpx.Client(base_url=url, timeout=20) as client:
        send(client, 20)
        before = read_resident(server.pid)
        send(client, 60)
        grown = read_resident(server.pid) - before
        server.terminate()
    assert grown < 12 << 20, f"60 requests of {len(picture)} bytes left {grown} bytes"


def read_resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
