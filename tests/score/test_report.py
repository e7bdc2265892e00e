"""The report of a toy model: everything is inside the page, names cannot break out of it, and tables agree with it."""

import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from maskfast.bundle.store import Draft, write_bundle
from maskfast.data.tables import read_items
from maskfast.score.evaluation import Evaluation, evaluate_items
from maskfast.score.explain import explain, make_explainer
from maskfast.score.figures import draw_figures
from maskfast.score.gallery import show_worst
from maskfast.score.loading import load
from maskfast.score.predictor import Predictor
from maskfast.score.report import render_page, summarise, write_report, write_table

HOSTILE = "<script>alert(1)</script>|&'.jpg"


class PageReader(HTMLParser):
    """Collects what a page would load and its images' texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.links += [str(values[name]) for name in ("src", "href", "srcset", "action") if name in values]
        if tag == "img":
            self.images.append(values)


@pytest.fixture(scope="module")
def predictor(toy_bundle: Path) -> Predictor:
    return load(toy_bundle)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Twenty-four drawn pictures in a folder a class, of several shapes; the last is broken."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for index in range(24):
        path = folder / ("mask", "no_mask")[index % 2] / f"{index}.jpg"
        path.parent.mkdir(exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((60 + 20 * (index % 5), 70), Image.Resampling.BICUBIC).save(path)
    path.write_bytes(path.read_bytes()[:200])
    return read_items(folder)


@pytest.fixture(scope="module")
def evaluation(predictor: Predictor, items: pd.DataFrame) -> Evaluation:
    items = items.assign(source=np.where(np.arange(len(items)) % 3, "street", "faces"))
    return evaluate_items(predictor, items, bootstrap=30)


@pytest.fixture(scope="module")
def folder(predictor: Predictor, evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    (out / "notes.txt").write_text("kept")
    write_report(evaluation, predictor, out, title="Toy <b>pictures</b>", worst=3, heat="occlusion")
    return out


def test_the_page_loads_nothing_and_every_image_says_what_it_shows(folder: Path, evaluation: Evaluation) -> None:
    page = PageReader((folder / "index.html").read_text())
    assert all(link.startswith("data:") for link in page.links if link != "label_errors.html")
    assert len(page.images) == 2 * 3 + 6
    assert all(len(str(image["alt"])) > 8 for image in page.images)
    assert "script" not in page.tags
    assert "<b>pictures" not in (folder / "index.html").read_text()
    assert f"{evaluation.metrics['log_loss']:.4f}" in (folder / "index.html").read_text()


def test_the_folder_holds_figures_tables_and_what_was_there(folder: Path, evaluation: Evaluation) -> None:
    plots = {"confusion", "probabilities", "roc", "precision_recall", "reliability", "sources"}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    worst = {f"worst/{index:02}.jpg" for index in (1, 2, 3)}
    tables = {"metrics.json", "predictions.csv", "label_errors.csv", "label_errors.html"}
    assert files == {"index.html", "notes.txt", *tables, *worst} | {f"{name}.png" for name in plots}
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary["metrics"] == evaluation.metrics
    assert sum(map(sum, summary["confusion"]["counts"])) == 23
    assert [row["image"] for row in summary["unusable"]] == ["no_mask/23.jpg"]
    rows = pd.read_csv(folder / "predictions.csv")
    assert len(rows) == 24
    assert rows["probability"].isna().sum() == 1
    assert "path" not in rows, "where pictures lie on this machine is nobody's business"


def test_names_cannot_break_out_of_the_page(predictor: Predictor, evaluation: Evaluation) -> None:
    rows = evaluation.rows.assign(image=HOSTILE, reason=HOSTILE)
    sources = {HOSTILE: evaluation.metrics, "other": evaluation.metrics}
    hostile = replace(evaluation, rows=rows, by_source=sources, notes=(HOSTILE,))
    shown = list(show_worst(hostile.scored, make_explainer(predictor, method="occlusion"), count=1))
    page = render_page(hostile, predictor, title=HOSTILE, figures=draw_figures(hostile), shown=shown)
    reader = PageReader(page)
    assert "script" not in reader.tags
    assert all(link.startswith("data:") for link in reader.links)
    assert page.count("&lt;script&gt;") >= 6


def test_shown_pictures_are_the_costliest_in_their_own_proportions(
    predictor: Predictor, evaluation: Evaluation
) -> None:
    shown = list(show_worst(evaluation.scored, make_explainer(predictor, method="occlusion"), count=4))
    losses = sorted(evaluation.scored["loss"], reverse=True)[:4]
    assert [picture.loss for picture in shown] == losses
    rows = evaluation.scored.set_index("image")
    for picture in shown:
        with Image.open(rows.loc[picture.image, "path"]) as original, Image.open(io.BytesIO(picture.picture)) as image:
            assert image.size == original.size
            with Image.open(io.BytesIO(picture.heat)) as heat:
                assert heat.size == original.size


def test_a_square_method_shows_the_square_it_saw(predictor: Predictor, evaluation: Evaluation) -> None:
    explainer = make_explainer(predictor, method="occlusion")
    (picture,) = show_worst(evaluation.scored, explainer, count=1, method="pad")
    with Image.open(io.BytesIO(picture.picture)) as image:
        assert image.width == image.height


def test_a_picture_that_is_gone_keeps_its_place(predictor: Predictor, evaluation: Evaluation, tmp_path: Path) -> None:
    gone = replace(evaluation, rows=evaluation.rows.assign(path=str(tmp_path / "gone.jpg")))
    page = write_report(gone, predictor, tmp_path / "out", worst=2, heat="occlusion").read_text()
    assert page.count("cannot be read any more") == 2
    assert not (tmp_path / "out" / "worst").exists()


def test_gradients_come_from_the_bundles_weights(toy_draft: Draft, items: pd.DataFrame, tmp_path: Path) -> None:
    write_bundle(tmp_path / "model", replace(toy_draft, size=96, onnx=False))
    predictor = load(tmp_path / "model")
    find_heat, find_best = make_explainer(predictor, method="gradients"), make_explainer(predictor)
    paths = items["path"].iloc[:8]
    maps = np.stack([find_heat(path) for path in paths])
    assert maps.shape[1:] == explain(predictor, paths[0]).shape == (96, 96)
    assert 0 <= maps.min() <= maps.max() <= 1
    assert (maps.max((1, 2)) > 0.99).sum() >= 2, "some picture has evidence for a mask"
    assert np.array_equal(np.stack([find_best(path) for path in paths]), maps)


def test_a_missing_class_is_said_and_not_drawn(predictor: Predictor, items: pd.DataFrame) -> None:
    alone = evaluate_items(predictor, items[items["label"] == 1], bootstrap=5)
    assert [figure.name for figure in draw_figures(alone)] == ["confusion", "probabilities", "reliability"]
    assert summarise(alone, predictor)["undefined"]["auc"] == "every picture is labelled mask"
    assert "every picture is labelled mask" in write_table(alone, predictor)
    page = render_page(alone, predictor, title="Alone", figures=[], shown=[])
    assert "every picture is labelled mask" in page


def test_the_table_says_what_was_measured(predictor: Predictor, items: pd.DataFrame, evaluation: Evaluation) -> None:
    text = write_table(evaluation, predictor)
    assert text.startswith("23 pictures, 12 of them labelled mask")
    assert f"{evaluation.metrics['accuracy']:.4f}" in text
    assert "street" in text
    chosen = evaluate_items(predictor, items, bootstrap=0, cost_miss=5)
    assert "least cost where a miss costs 5" in write_table(chosen, predictor)
    assert summarise(chosen, predictor)["chosen"]["cost"] == chosen.choice.cost


def test_training_history_is_drawn_from_the_bundle(evaluation: Evaluation) -> None:
    history = pd.DataFrame({"train_loss": [0.6, 0.25], "valid_loss": [0.7, 0.5], "lr": [1e-3, 1e-4]})
    figures = {figure.name: figure for figure in draw_figures(evaluation, history)}
    assert "valid loss 0.5" in figures["history_loss"].alt
    assert "history_learning_rate" in figures
    assert "history_score" not in figures
