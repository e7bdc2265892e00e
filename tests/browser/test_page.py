import base64
import csv
import io
from importlib.resources import files
from typing import Any
from urllib.parse import urlparse

import pytest
from serving import BrightnessPredictor, make_picture, serve

from maskfast.data.names import disarm_name

DARK, BRIGHT, BROKEN = 51, 204, b"\xff\xd8\xff no picture"


def give(page: Any, *pictures: tuple[str, bytes]) -> None:
    before = page.locator(".card").count()
    page.set_input_files("#files", [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in pictures])
    wait_scored(page, before + len(pictures))


def wait_scored(page: Any, count: int) -> None:
    page.locator(".card:not([data-state=waiting])").nth(count - 1).wait_for()
    assert page.locator(".card").count() == count


def wait_until(page: Any, expression: str) -> None:
    """As wait_for_function, which the page's security policy refuses as soon as it has to ask twice."""
    for _ in range(300):
        if page.evaluate(f"Boolean({expression})"):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {expression}")


def read_states(page: Any) -> list[str]:
    return [card.get_attribute("data-state") for card in page.locator(".card").all()]


def test_several_pictures_with_a_broken_one_are_shown(page: Any) -> None:
    give(page, ("dark.png", make_picture(DARK)), ("broken.jpg", BROKEN), ("bright.png", make_picture(BRIGHT)))
    assert read_states(page) == ["no_mask", "failed", "mask"]
    dark, broken, bright = page.locator(".card").all()
    assert dark.locator(".number").inner_text() == "20.0 %"
    assert bright.locator("[role=meter]").get_attribute("aria-valuenow") == "80"
    assert broken.locator(".reason").inner_text()
    assert not broken.locator(".bar").is_visible()
    assert dark.locator("canvas").evaluate("canvas => canvas.width") == 40
    assert page.locator("#summary").inner_text() == "1 with a mask, 1 without, 1 failed"


def test_the_threshold_moves_the_labels(page: Any) -> None:
    give(page, ("dark.png", make_picture(DARK)), ("bright.png", make_picture(BRIGHT)))
    page.locator("#threshold").fill("0.1")
    assert read_states(page) == ["mask", "mask"]
    page.locator("#threshold").fill("0.9")
    assert read_states(page) == ["no_mask", "no_mask"]
    assert page.locator("#threshold-value").inner_text() == "0.90"


def test_the_threshold_is_the_models_own_until_it_is_moved(fresh: Any) -> None:
    class CarefulPredictor(BrightnessPredictor):
        threshold = 0.204

    with serve(CarefulPredictor()) as (address, _):
        page = fresh.open(address)
        give(page, ("51.png", make_picture(51)), ("53.png", make_picture(53)))
        assert read_states(page) == ["no_mask", "mask"], "at 0.2 both would be masks"
        assert page.locator("#threshold-value").inner_text() == "0.204"
        page.locator("#threshold").fill("0.2")
        assert read_states(page) == ["mask", "mask"]


def test_a_pasted_picture_is_scored(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (text) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const item = new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) });
            await navigator.clipboard.write([item]);
        }""",
        base64.b64encode(make_picture(BRIGHT)).decode(),
    )
    page.keyboard.press("Control+V")
    wait_scored(page, 1)
    assert read_states(page) == ["mask"]


def test_a_dropped_picture_is_scored(page: Any) -> None:
    page.evaluate(
        """(text) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
            document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }""",
        base64.b64encode(make_picture(DARK)).decode(),
    )
    wait_scored(page, 1)
    assert page.locator(".card .name").inner_text() == "dropped.png"


def test_the_csv_holds_the_rows_at_the_threshold(page: Any) -> None:
    names = ["dark.png", 'broken, "quoted".jpg', "bright.png"]
    give(page, *zip(names, [make_picture(DARK), BROKEN, make_picture(BRIGHT)], strict=True))
    page.locator("#threshold").fill("0.1")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download CSV").click()
    assert waiting.value.suggested_filename == "predictions.csv"
    rows = list(csv.DictReader(io.StringIO(waiting.value.path().read_text())))
    assert list(rows[0]) == ["image", "probability", "label", "status", "reason"]
    assert [row["image"] for row in rows] == names
    assert [row["label"] for row in rows] == ["mask", "", "mask"]
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert float(rows[0]["probability"]) == pytest.approx(DARK / 255, abs=1e-6)
    assert rows[1]["probability"] == ""
    assert rows[1]["reason"]


@pytest.mark.usefixtures("half_heat")
def test_the_heat_map_is_laid_where_the_model_looked(page: Any) -> None:
    give(page, ("bright.png", make_picture(BRIGHT)))
    canvas = page.locator(".card canvas")
    read = "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    plain = canvas.evaluate(read)
    page.get_by_role("switch", name="Heat map").check(force=True)
    page.locator(".card.heated").wait_for()
    heated = canvas.evaluate(read)
    left, right = heated[4 * 5 : 4 * 5 + 3], heated[4 * 35 : 4 * 35 + 3]
    assert left[0] - left[2] > 60, "the left half is coloured"
    assert max(right) - min(right) < 10, "the right half is grey"
    page.get_by_role("switch", name="Heat map").uncheck(force=True)
    assert canvas.evaluate(read) == plain


def test_a_name_that_is_a_formula_is_disarmed_as_in_other_tables(page: Any) -> None:
    names = ["=HYPERLINK(1).png", "-1.png", "a=b.png"]
    give(page, *((name, make_picture(DARK)) for name in names))
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download CSV").click()
    rows = csv.DictReader(io.StringIO(waiting.value.path().read_text()))
    assert [row["image"] for row in rows] == [disarm_name(name) for name in names]


@pytest.mark.usefixtures("half_heat")
def test_heat_maps_are_asked_for_one_at_a_time_and_again_where_the_server_is_busy(fresh: Any, url: str) -> None:
    page = fresh.open(url)
    under_way, most = [], []
    busy = [{"status": 503, "headers": {"Retry-After": "0.1"}, "body": "{}"}]

    def answer(route: Any) -> None:
        under_way.append(route)
        most.append(len(under_way))
        route.fulfill(**busy.pop()) if busy else route.continue_()

    page.on("response", lambda response: under_way.clear() if "explain" in response.url else None)
    page.route("**/api/explain*", answer)
    give(page, ("first.png", make_picture(DARK)))
    page.get_by_role("switch", name="Heat map").check(force=True)
    give(page, *((f"{level}.png", make_picture(level)) for level in range(100, 106)))
    page.locator(".card.heated").nth(6).wait_for()
    assert max(most) == 1
    assert len(most) == 8
    fresh.errors = [error for error in fresh.errors if "status of 503" not in error]


@pytest.mark.usefixtures("half_heat")
def test_a_heat_map_that_failed_is_asked_for_again_when_it_is_wanted_again(page: Any) -> None:
    page.route("**/api/explain*", lambda route: route.fulfill(status=422, body='{"error": "the server failed"}'))
    switch = page.get_by_role("switch", name="Heat map")
    give(page, ("a.png", make_picture(BRIGHT)))
    switch.check(force=True)
    page.get_by_text("no heat map: the server failed").wait_for()
    page.unroute("**/api/explain*")
    switch.uncheck(force=True)
    switch.check(force=True)
    page.locator(".card.heated").wait_for()


@pytest.mark.usefixtures("half_heat")
def test_the_heat_map_of_a_cropping_model_covers_the_crop_alone(fresh: Any) -> None:
    class CroppingPredictor(BrightnessPredictor):
        method = "crop"

    with serve(CroppingPredictor()) as (address, _):
        page = fresh.open(address)
        give(page, ("wide.png", make_picture(BRIGHT, size=(90, 30))))
        page.get_by_role("switch", name="Heat map").check(force=True)
        page.locator(".card.heated").wait_for()
        row = page.locator(".card canvas").evaluate(
            "(canvas) => [...canvas.getContext('2d').getImageData(0, 15, canvas.width, 1).data]"
        )
    colourful = [max(row[4 * x : 4 * x + 3]) - min(row[4 * x : 4 * x + 3]) > 40 for x in range(90)]
    assert [x for x in range(90) if colourful[x]] == pytest.approx(range(30, 45), abs=1)


def test_the_camera_is_watched_and_a_still_is_kept(page: Any) -> None:
    page.get_by_role("button", name="Use camera").click()
    page.locator("#camera-verdict[data-label=mask], #camera-verdict[data-label=no_mask]").wait_for()
    assert "%" in page.locator("#camera-verdict").inner_text()
    page.get_by_role("button", name="Keep this picture").click()
    wait_scored(page, 1)
    assert page.locator(".card .name").inner_text() == "camera-1.jpg"
    page.get_by_role("button", name="Stop camera").click()
    assert not page.locator("#camera").is_visible()
    assert page.locator("#video").evaluate("video => video.srcObject") is None


SLOW_PERMISSION = """
    const media = navigator.mediaDevices, real = media.getUserMedia.bind(media);
    window.streams = [];
    media.getUserMedia = async (wish) => {
        const stream = await real(wish);
        window.streams.push(stream);
        await new Promise((resolve) => { window.permit = resolve; });
        return stream;
    };
"""
COUNT_LIVE = "streams.flatMap((each) => each.getTracks()).filter((track) => track.readyState === 'live').length"


def ask_for_camera(fresh: Any, url: str) -> Any:
    """Open the page and use the camera, up to where the browser asks for permission."""
    fresh.page.add_init_script(SLOW_PERMISSION)
    page = fresh.open(url)
    page.get_by_role("button", name="Use camera").click()
    wait_until(page, "window.permit")
    return page


def test_a_camera_that_is_stopped_before_it_starts_stays_off(fresh: Any, url: str) -> None:
    page = ask_for_camera(fresh, url)
    page.get_by_role("button", name="Stop camera").click()
    page.evaluate("permit()")
    wait_until(page, f"{COUNT_LIVE} === 0")
    assert page.locator("#video").evaluate("video => video.srcObject") is None
    page.get_by_role("button", name="Use camera").click()
    wait_until(page, "streams.length === 2")
    page.evaluate("permit()")
    page.locator("#camera-verdict[data-label=mask], #camera-verdict[data-label=no_mask]").wait_for()


def test_a_camera_is_started_once_however_often_it_is_asked_for(fresh: Any, url: str) -> None:
    page = ask_for_camera(fresh, url)
    page.get_by_role("button", name="Use camera").click()
    page.evaluate("permit()")
    page.locator("#camera-verdict[data-label=mask], #camera-verdict[data-label=no_mask]").wait_for()
    assert page.evaluate("streams.length") == 1
    page.get_by_role("button", name="Stop camera").click()
    assert page.evaluate(COUNT_LIVE) == 0


def test_everything_works_from_the_keyboard(page: Any) -> None:
    def tab_to(name: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.id") == name:
                return
        raise AssertionError(f"{name} is not reached with Tab")

    tab_to("choose")
    # Playwright stops seeing choosers once files were given to another page, so the click that opens one is watched.
    page.evaluate("() => { document.getElementById('files').onclick = () => { window.asked = 1; return false } }")
    page.keyboard.press("Enter")
    wait_until(page, "window.asked === 1")
    give(page, ("a.png", make_picture(BRIGHT)))
    tab_to("threshold")
    page.keyboard.press("End")
    assert read_states(page) == ["no_mask"]
    tab_to("heat")
    tab_to("download")
    with page.expect_download():
        page.keyboard.press("Enter")
    tab_to("Remove a.png")
    page.keyboard.press("Space")
    assert page.locator(".card").count() == 0
    assert page.evaluate("document.activeElement.id") == "choose"


def test_the_filters_show_one_kind(page: Any) -> None:
    give(page, ("dark.png", make_picture(DARK)), ("bright.png", make_picture(BRIGHT)))
    page.get_by_role("button", name="No mask").click()
    assert [card.is_visible() for card in page.locator(".card").all()] == [True, False]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_axe_finds_nothing_serious_and_nothing_hangs_over(page: Any, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})
    for pictures in ((), (("dark.png", make_picture(DARK)), ("bad.jpg", BROKEN), ("bright.png", make_picture(BRIGHT)))):
        give(page, *pictures) if pictures else None
        found = scan(page)
        assert [finding for finding in found if finding["impact"] in ("serious", "critical")] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def scan(page: Any) -> list[dict[str, Any]]:
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        {"id": each["id"], "impact": each["impact"], "where": [node["target"] for node in each["nodes"]]}
        for each in found
    ]


def test_axe_does_find_a_fault(page: Any) -> None:
    page.evaluate("document.getElementById('choose').textContent = ''")
    assert "button-name" in [finding["id"] for finding in scan(page)]


def test_nothing_beyond_loopback_is_asked_for(fresh: Any, url: str) -> None:
    def cut(route: Any) -> None:
        (route.continue_ if urlparse(route.request.url).hostname == "127.0.0.1" else route.abort)()

    fresh.page.context.route("**/*", cut)
    page = fresh.open(url)
    give(page, ("bright.png", make_picture(BRIGHT)))
    hosts = {urlparse(asked).hostname for asked in fresh.asked if not asked.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    assert read_states(page) == ["mask"]


def test_the_page_asks_for_the_token_and_pictures_wait_for_it(fresh: Any) -> None:
    page = fresh.page
    with serve(token="secret") as (address, _):
        page.goto(address)
        token, use = page.get_by_label("This server asks for its token"), page.get_by_role("button", name="Use token")
        token.wait_for()
        page.get_by_role("button", name="Choose pictures").focus()
        page.set_input_files("#files", [{"name": "a.png", "mimeType": "image/png", "buffer": make_picture(BRIGHT)}] * 6)
        for wrong in ("wrong", "пароль"):
            token.fill(wrong)
            use.click()
            page.get_by_text("Wrong token.").wait_for()
            token.fill("")
        assert not page.locator("#notice").is_visible()
        assert read_states(page) == ["waiting"] * 6
        assert not [asked for asked in fresh.asked if "/api/predict" in asked], "nothing is sent without a token"
        token.fill(" secret ")
        use.click()
        page.locator("#model").wait_for(state="visible")
        wait_scored(page, 6)
        assert read_states(page) == ["mask"] * 6
        assert not token.is_visible()
    fresh.errors = [error for error in fresh.errors if "status of 401" not in error]


def test_a_token_that_is_no_longer_right_is_asked_for_once(fresh: Any, url: str) -> None:
    page = fresh.open(url)
    page.route("**/api/predict*", lambda route: route.fulfill(status=401, body="{}"))
    page.set_input_files("#files", [{"name": "a.png", "mimeType": "image/png", "buffer": make_picture(BRIGHT)}] * 6)
    page.get_by_label("This server asks for its token").wait_for()
    page.get_by_role("button", name="Choose pictures").focus()
    page.unroute("**/api/predict*")
    page.wait_for_timeout(200)
    assert page.evaluate("document.activeElement.id") == "choose", "no answer takes the focus"
    assert len([asked for asked in fresh.asked if "/api/predict" in asked]) <= 4
    page.get_by_label("This server asks for its token").fill("secret")
    page.get_by_role("button", name="Use token").click()
    wait_scored(page, 6)
    assert read_states(page) == ["mask"] * 6
    fresh.errors = [error for error in fresh.errors if "status of 401" not in error]


def test_without_javascript_the_page_says_so(chromium: Any, url: str) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    assert "needs JavaScript" in page.inner_text("main")
    context.close()


def test_the_results_can_be_skipped_to_once_there_are_some(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    give(page, ("a.png", make_picture(BRIGHT)))
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "results-title"
