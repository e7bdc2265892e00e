import asyncio
from collections.abc import AsyncGenerator
from itertools import pairwise

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfast.apps.web.forms import read_form
from maskfast.apps.web.uploads import MAX_NAME, clean_name

NAMES = st.text("abcXYZ 019.-_äöü😷漢", min_size=1, max_size=40)


async def cut(data: bytes, places: list[int]) -> AsyncGenerator[bytes, None]:
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    for start, end in pairwise(edges):
        yield data[start:end]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, st.binary(max_size=300)), min_size=1, max_size=5), st.lists(st.integers(0, 10**6)))
def test_a_form_is_read_as_it_was_written_wherever_it_is_cut(files: list[tuple[str, bytes]], places: list[int]) -> None:
    request = httpx.Request("POST", "http://x", files=[("f", file) for file in files], data={"field": "text"})
    body = request.read()
    read = asyncio.run(read_form(request.headers["content-type"], cut(body, places), max_files=5))
    assert read == files


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("filename*=UTF-8''Bild%20%C3%BC.jpg", "Bild ü.jpg"),
        ("filename*=utf-8'de'a.jpg; other=1", "a.jpg"),
        ("filename=\"a.jpg\"; filename*=UTF-8''b.jpg", "a.jpg"),
    ],
)
def test_a_name_in_the_spelling_of_other_headers_is_read(disposition: str, name: str) -> None:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; {disposition}\r\n\r\n'
    data = bytes(range(256)) * 20
    body = cut(head.encode() + data + b"\r\n--x--\r\n", [])
    read = asyncio.run(read_form("multipart/form-data; boundary=x", body, max_files=1))
    assert read == [(name, data)]


@given(st.text(max_size=500))
def test_a_shown_name_is_one_printable_line_without_folders(name: str) -> None:
    shown = clean_name(name)
    assert 0 < len(shown) <= MAX_NAME
    assert shown.isprintable()
    assert "/" not in shown
    assert "\\" not in shown


def test_names_stay_as_they_are_where_they_can() -> None:
    assert clean_name("photo.jpg") == "photo.jpg"
    assert clean_name("C:\\Users\\me\\Bild äöü 😷.png") == "Bild äöü 😷.png"
    assert clean_name("../../etc/passwd") == "passwd"
    assert clean_name("folder/") == "image"
    assert clean_name("x" * 300 + ".jpg").endswith(".jpg")
