"""The report and the list of labels to check in a real browser: offline, whole, readable in every mode and width."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskfast.data.audit import audit_items
from maskfast.data.audit_page import write_audit
from maskfast.data.tables import read_items
from maskfast.score.evaluation import evaluate_items
from maskfast.score.loading import load
from maskfast.score.report import write_report


@pytest.fixture(scope="module")
def report(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on forty drawn pictures of two sources, one of them broken."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for index in range(40):
        path = folder / ("mask", "no_mask")[index % 2] / f"{'a-very-long-name-' * 4}{index}.jpg"
        path.parent.mkdir(exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((60 + 20 * (index % 5), 70), Image.Resampling.BICUBIC).save(path)
    path.write_bytes(path.read_bytes()[:200])
    predictor = load(toy_bundle)
    items = read_items(folder)
    items["source"] = np.where(np.arange(40) % 3, "street", "faces")
    evaluation = evaluate_items(predictor, items, bootstrap=20, recall=0.9)
    out = tmp_path_factory.mktemp("report")
    write_report(evaluation, predictor, out, title="Drawn pictures", worst=4, heat="occlusion")
    return out


@pytest.mark.parametrize("name", ["index.html", "label_errors.html"])
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_it_is_whole_and_accessible(fresh: Any, report: Path, name: str, width: int, scheme: str) -> None:
    page = fresh.page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((report / name).as_uri())
    page.evaluate("Promise.all([...document.images].map(image => (image.loading = 'eager', image.decode())))")
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert all(asked.startswith(("file:", "data:")) for asked in fresh.asked)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    found = page.evaluate("async () => (await axe.run()).violations")
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []


def test_dark_mode_reaches_the_plots(fresh: Any, report: Path) -> None:
    fresh.page.goto((report / "index.html").as_uri())
    plot = fresh.page.locator("figure.plot img").first
    shots = []
    for scheme in ("light", "dark"):
        fresh.page.emulate_media(color_scheme=scheme)
        shots.append(plot.screenshot())
    assert shots[0] != shots[1]


def test_the_audit_page_fits_a_phone(fresh: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("mask", "no_mask"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for size in ((4000, 30), (30, 4000), (1234, 1567), (2211, 1111)):
            small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            small.resize(size).save(tmp_path / "in" / label / f"{size}.jpg")
    write_audit(audit_items(read_items(tmp_path / "in")), tmp_path / "out")
    fresh.page.set_viewport_size({"width": 390, "height": 900})
    fresh.page.goto((tmp_path / "out" / "audit.html").as_uri())
    assert fresh.page.evaluate("document.documentElement.scrollWidth") <= 390
