import os
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from serving import serve

from maskfast.apps.web import service
from maskfast.apps.web.heat import colour_heat

CHROMIUM = os.environ.get("MASKFAST_CHROMIUM") or shutil.which("chromium")
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium: apt-get install chromium")
        pytest.skip("no chromium is installed: apt-get install chromium, or set MASKFAST_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve() as (address, _):
        yield address


class Page:
    """A playwright page that remembers what it asked for and what went wrong in it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        if message.type == "error" and "status of 422" not in message.text:
            self.errors.append(message.text)

    def open(self, url: str) -> Any:
        self.page.goto(url)
        self.page.locator("#model").wait_for(state="visible")
        return self.page


@pytest.fixture
def fresh(chromium: Any) -> Iterator[Page]:
    context = chromium.new_context(accept_downloads=True)
    page = Page(context.new_page())
    page.page.set_default_timeout(15_000)
    yield page
    context.close()
    assert page.errors == []


@pytest.fixture
def page(fresh: Page, url: str) -> Any:
    return fresh.open(url)


@pytest.fixture
def half_heat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heat map that is hot in the left half of the picture and cold in the right one."""

    def draw(_: object, array: np.ndarray) -> bytes:
        heat = np.zeros(array.shape[:2], np.float32)
        heat[:, : array.shape[1] // 2] = 1
        return colour_heat(heat)

    monkeypatch.setattr(service, "draw_heat_map", draw)
