import base64
import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image
from serving import BrightnessPredictor, make_picture, serve


@pytest.fixture(scope="module")
def url() -> Any:
    with serve(max_files=4, max_body=200_000) as (address, _):
        yield address


def send(url: str, *files: tuple[str, bytes]) -> httpx.Response:
    return httpx.post(f"{url}/api/predict", files=[("files", file) for file in files])


def test_several_pictures_come_back_in_order_and_a_broken_one_keeps_its_row(url: str) -> None:
    answer = send(url, ("a.png", make_picture(51)), ("b.jpg", b"\xff\xd8\xff no picture"), ("c.png", make_picture(204)))
    assert answer.status_code == 200
    first, broken, last = answer.json()["results"]
    assert (first["image"], first["label"], first["status"], first["reason"]) == ("a.png", "no_mask", "ok", "")
    assert first["probability"] == pytest.approx(51 / 255, abs=1e-6)
    assert (last["image"], last["label"]) == ("c.png", "mask")
    assert last["probability"] == pytest.approx(204 / 255, abs=1e-6)
    assert (broken["image"], broken["probability"], broken["label"], broken["status"]) == ("b.jpg", None, "", "failed")
    assert broken["reason"]


def test_a_raw_body_is_one_picture_with_the_name_of_the_query(url: str) -> None:
    picture = make_picture(255, kind="JPEG")
    answer = httpx.post(f"{url}/api/predict?name=x/face.jpg", content=picture, headers={"content-type": "image/jpeg"})
    assert answer.status_code == 200
    (row,) = answer.json()["results"]
    assert row["image"] == "face.jpg"
    assert row["probability"] == pytest.approx(1, abs=1e-6)


def test_a_request_without_a_usable_picture_is_422_with_the_rows(url: str) -> None:
    answer = send(url, ("notes.txt", b"hello"))
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert answer.json()["results"][0]["status"] == "failed"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/html", b"<p>", 415),
        ("application/json", b"{}", 415),
        ("image/png", b"", 422),
        ("multipart/form-data; boundary=x", b"no form", 422),
        ("multipart/form-data", b"--x", 422),
        ("image/png", bytes(200_001), 413),
    ],
)
def test_what_is_no_upload_is_refused_with_one_line(url: str, content_type: str, body: bytes, status: int) -> None:
    answer = httpx.post(f"{url}/api/predict", content=body, headers={"content-type": content_type})
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.text
    assert "maskfast/" not in answer.text


def test_the_heat_map_is_hot_where_the_evidence_is(url: str) -> None:
    picture = Image.new("RGB", (128, 128))
    picture.paste((255, 255, 255), (80, 80, 128, 128))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    answer = httpx.post(f"{url}/api/explain", files=[("files", ("corner.png", buffer.getvalue()))])
    assert answer.status_code == 200
    explained = answer.json()
    assert explained["result"]["probability"] == pytest.approx(48 * 48 / 128**2, abs=0.01)
    heat = Image.open(io.BytesIO(base64.b64decode(explained["heat_map"])))
    assert (heat.mode, heat.size, explained["method"]) == ("RGBA", (64, 64), "squish")
    assert heat.getpixel((56, 56))[3] > 40 > 10 > heat.getpixel((8, 8))[3]


def test_one_picture_at_a_time_is_explained_and_a_broken_one_is_not(url: str) -> None:
    two = [("files", (name, make_picture())) for name in ("a.png", "b.png")]
    assert httpx.post(f"{url}/api/explain", files=two).json() == {"error": "send one picture at a time to be explained"}
    broken = httpx.post(f"{url}/api/explain", content=b"hello", headers={"content-type": "image/png"})
    assert broken.status_code == 422
    assert broken.json()["results"][0]["status"] == "failed"


def test_too_many_files_are_413(url: str) -> None:
    assert send(url, *[(f"{number}.png", make_picture()) for number in range(5)]).status_code == 413


def test_the_model_and_the_health_are_described(url: str) -> None:
    model = httpx.get(f"{url}/api/model").json()
    assert (model["arch"], model["threshold"], model["size"], model["max_files"]) == ("brightness", 0.5, 64, 4)
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}


def test_metrics_count_requests_pictures_and_batches(url: str) -> None:
    def read(name: str) -> float:
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    before = read('maskfast_pictures_total{status="ok"}'), read('maskfast_requests_total{path="/api/predict"')
    send(url, ("a.png", make_picture()), ("b.png", make_picture()))
    after = read('maskfast_pictures_total{status="ok"}'), read('maskfast_requests_total{path="/api/predict"')
    assert after == (before[0] + 2, before[1] + 1)
    assert read("maskfast_batch_pictures_sum") >= 3


def test_an_unknown_page_is_404_and_a_wrong_method_405(url: str) -> None:
    missing, wrong = httpx.get(f"{url}/nothing"), httpx.get(f"{url}/api/predict")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert wrong.headers["allow"] == "POST"
    assert list(missing.json()) == list(wrong.json()) == ["error"]


def test_every_answer_carries_the_security_headers(url: str) -> None:
    for path in ("/health", "/nothing", "/openapi.json"):
        headers = httpx.get(f"{url}{path}").headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_a_foreign_host_name_is_refused_without_a_token(url: str) -> None:
    answer = httpx.get(f"{url}/api/model", headers={"host": "evil.example"})
    assert answer.status_code == 421


def test_a_token_guards_the_api_and_the_metrics_but_not_the_health() -> None:
    with serve(token="secret") as (url, _):
        assert httpx.get(f"{url}/health").status_code == 200
        for path in ("/api/model", "/metrics"):
            refused = httpx.get(f"{url}{path}", headers={"authorization": "Bearer wrong"})
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert httpx.get(f"{url}{path}", headers={"authorization": "Bearer secret"}).status_code == 200


def test_more_requests_a_minute_than_allowed_are_429() -> None:
    with serve(rate=2) as (url, _):
        codes = [send(url, ("a.png", make_picture())).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        assert int(send(url, ("a.png", make_picture())).headers["retry-after"]) > 20


def test_a_crash_of_the_model_is_500_without_its_words() -> None:
    def crash(count: int) -> None:
        if count and crash.armed:  # type: ignore[attr-defined]
            raise RuntimeError("/secret/path")

    crash.armed = False  # type: ignore[attr-defined]
    with serve(BrightnessPredictor(crash)) as (url, _):
        crash.armed = True  # type: ignore[attr-defined]
        answer = send(url, ("a.png", make_picture()))
        assert answer.status_code == 500
        assert "secret" not in answer.text
        crash.armed = False  # type: ignore[attr-defined]
        assert send(url, ("a.png", make_picture())).status_code == 200


def test_the_description_names_every_endpoint_and_resolves(url: str) -> None:
    described = httpx.get(f"{url}/openapi.json").json()
    assert set(described["paths"]) == {"/api/predict", "/api/explain", "/api/model", "/health", "/metrics"}
    schemas = described["components"]["schemas"]
    refs = [part.split('"')[0] for part in json.dumps(described).split('"#/components/schemas/')[1:]]
    assert refs
    assert set(refs) <= set(schemas)
    assert list(schemas["Row"]["properties"]) == ["image", "probability", "label", "status", "reason"]
