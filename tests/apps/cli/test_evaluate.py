"""`maskfast evaluate` from the command line: exit codes, JSON, thresholds and the report."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfast.apps.cli.main import run
from maskfast.score.loading import SMALL_MODEL


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)
    for index in range(16):
        path = folder / ("mask", "no_mask")[index % 2] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))


def test_table_and_report(pictures: Path, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    options = ["--model", str(toy_bundle), "--out", str(out), "--bootstrap", "20", "--worst", "1"]
    assert run(["evaluate", str(pictures), *options, "--heat", "occlusion"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(
        f"16 pictures, 8 of them labelled mask\nmodel {toy_bundle} (simple_cnn, 32 px, onnx)\n"
    )
    assert str(out / "index.html") in printed.err
    assert (out / "index.html").stat().st_size > 10_000


@pytest.mark.parametrize("told", [["evaluate", "--out"], ["audit", "--out"], ["audit", "--clean"]])
def test_a_place_that_is_taken_is_told_before_the_work(
    pictures: Path, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], told: list[str]
) -> None:
    command, option = told
    (tmp_path / "file").touch()
    place = tmp_path / "file" if option == "--out" else tmp_path
    model = ["--model", str(toy_bundle)] if command == "evaluate" else []
    assert run([command, str(pictures), *model, option, str(place)]) == 2
    printed = capsys.readouterr()
    assert f"maskfast: {place}: is no" in printed.err
    assert printed.out == ""  # the table comes with the end of the work


def test_json_is_all_that_is_printed(pictures: Path, toy_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wish = ["--recall", "1", "--json", "--quiet", "--bootstrap", "0"]
    assert run(["evaluate", str(pictures), "--model", str(toy_bundle), *wish]) == 0
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert summary["metrics"]["sensitivity"] == 1
    assert summary["chosen"]["recall"] == 1
    assert summary["model"]["arch"] == "simple_cnn"
    assert printed.err == ""


def test_the_model_of_the_package_is_told(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["evaluate", str(pictures), "--bootstrap", "0"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("no model in export/model: the small one inside the package answers\n")
    assert f"\nmodel {SMALL_MODEL} (mobilenet_v2, " in printed.out


def test_positive_says_which_unclear_folder_is_mask(
    pictures: Path, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unclear = tmp_path / "unclear"
    shutil.copytree(pictures / "mask", unclear / "blue")
    shutil.copytree(pictures / "no_mask", unclear / "red")
    told = ["evaluate", str(unclear), "--model", str(toy_bundle), "--bootstrap", "0", "--quiet"]
    assert run(told) == 2
    assert "--positive" in capsys.readouterr().err
    assert run([*told, "--positive", "red"]) == 0
    assert capsys.readouterr().out.startswith("16 pictures, 8 of them labelled mask")


def test_class_says_what_an_unknown_class_of_boxes_is(
    pictures: Path, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = sorted(path for path in pictures.rglob("*.*") if path.is_file())[:4]
    rows = [f"{path},1,1,9,9,{('smiley', 'with_mask')[number % 2]}" for number, path in enumerate(found)]
    (tmp_path / "boxes.csv").write_text("\n".join(["name,xmin,ymin,xmax,ymax,class", *rows]) + "\n")
    told = ["evaluate", str(tmp_path / "boxes.csv"), "--model", str(toy_bundle), "--bootstrap", "0", "--quiet"]
    assert run(told) == 2
    assert "--class 'smiley=mask'" in capsys.readouterr().err
    assert run([*told, "--class", "smiley=no_mask"]) == 0
    assert capsys.readouterr().out.startswith("4 pictures, 2 of them labelled mask")


def test_an_unusable_picture_is_named_and_makes_it_1(
    pictures: Path, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "more" / "mask" / "broken.jpg"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"\xff\xd8\xff\xe0 no picture")
    both = [str(pictures), str(broken.parent.parent)]
    assert run(["evaluate", *both, "--model", str(toy_bundle), "--bootstrap", "0", "--quiet"]) == 1
    printed = capsys.readouterr()
    assert "broken.jpg" in printed.err
    assert printed.out.startswith("16 pictures")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recall", "1.5"], "--recall: 1.5"),
        (["--recall", "0.9", "--cost-miss", "2"], "not both"),
        (["--held-out"], "validation.csv"),
        (["--heat", "magic"], "magic"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_2(
    pictures: Path, toy_bundle: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(pictures), "--model", str(toy_bundle), *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
