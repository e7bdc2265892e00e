import csv
import io
import json
import os
import shutil
import subprocess
import sys

import pytest

from maskfast.apps.cli.main import run
from maskfast.score.loading import SMALL_MODEL, load


def run_program(*args, cwd=None):
    """The command as a user starts it."""
    command = [sys.executable, "-X", "importtime", "-m", "maskfast", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_one_photo_imports_nothing_heavy(toy_bundle, picture_folder):
    done = run_program("predict", picture_folder / "0.jpg", "--model", toy_bundle)
    assert done.returncode == 0, done.stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "onnxruntime" in imported
    assert not imported & {"torch", "fastai", "matplotlib", "pandas", "sklearn", "rich", "pyarrow", "onnx"}
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    expected = load(toy_bundle).predict(picture_folder / "0.jpg")
    assert float(row["probability"]) == pytest.approx(expected.probability, abs=1e-6)
    assert (row["label"], row["status"]) == (expected.label, "ok")


def test_rows_come_as_csv_or_json(toy_bundle, picture_folder, capsys):
    assert run(["predict", str(picture_folder), "--model", str(toy_bundle)]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert run(["predict", str(picture_folder), "--model", str(toy_bundle), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 12
    assert [row | {"probability": float(row["probability"])} for row in table] == rows


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8:strict", "\u9762 \udcff".encode("utf-8", "surrogateescape")),
                            ("ascii:strict", rb"\u9762 \udcff")])  # fmt: skip
def test_any_name_is_printed(toy_bundle, picture_folder, tmp_path, encoding, shown):
    shutil.copy(picture_folder / "0.jpg", tmp_path / "\u9762 \udcff.jpg")
    command = [sys.executable, "-m", "maskfast", "predict", tmp_path, "--model", toy_bundle]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[1].startswith(os.fsencode(tmp_path) + b"/" + shown + b".jpg,0.")


def test_threshold_and_tta_are_obeyed(toy_bundle, picture_folder, capsys):
    for threshold, label in (("0", "mask"), ("1", "no_mask")):
        run(["predict", str(picture_folder / "1.png"), "--model", str(toy_bundle), "--json", "--threshold", threshold])
        assert json.loads(capsys.readouterr().out)[0]["label"] == label
    run(["predict", str(picture_folder / "1.png"), "--model", str(toy_bundle), "--json", "--tta"])
    both = load(toy_bundle).predict(picture_folder / "1.png", tta=True)
    assert json.loads(capsys.readouterr().out)[0]["probability"] == pytest.approx(both.probability, abs=1e-6)


def test_an_unusable_picture_among_good_ones_exits_with_1(toy_bundle, picture_folder, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    out = tmp_path / "rows.csv"
    args = ["predict", str(picture_folder), str(tmp_path / "bad.jpg"), "--model", str(toy_bundle), "--out", str(out)]
    assert run(args) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"{out}: 13 rows, 1 failed, the first: {tmp_path / 'bad.jpg'}: not a picture" in shown.err
    assert run([*args, "--quiet"]) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["predict", "nowhere.jpg"], "no picture could be scored; the first of 1: nowhere.jpg: no such file"),
        (["predict", "a.jpg", "--model", "nowhere"], "nowhere: is no bundle folder"),
        (["predict", "a.jpg", "--backend", "abacus"], "abacus"),
        (["predict", "a.jpg", "--out", "rows.xls"], "rows.xls: unknown ending"),
        (["submit", "nowhere"], "nowhere: no such folder"),
        (["predict"], "INPUT"),
    ],
)
def test_what_cannot_be_done_is_one_line(toy_bundle, tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy_bundle, tmp_path / "export" / "model")
    assert run(args) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]


def test_the_model_of_the_package_is_told_unless_it_was_named(
    toy_bundle, picture_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    predict, told = ["predict", str(picture_folder / "0.jpg")], "no model in export/model: the small one inside the"
    assert run(predict) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith(told)
    assert shown.out.startswith("image,")
    for silent in (["--quiet"], ["--model", str(SMALL_MODEL)]):
        assert run([*predict, *silent]) == 0
        assert capsys.readouterr().err == ""
    shutil.copytree(toy_bundle, tmp_path / "export" / "model")
    assert run(predict) == 0
    assert capsys.readouterr().err == ""


def test_submit_writes_the_samples_rows(toy_bundle, picture_folder, tmp_path, capsys):
    shutil.copytree(picture_folder, tmp_path / "images")
    (tmp_path / "sample_submission.csv").write_text("image,target\n5.webp,0\ngone.jpg,0\n")
    args = ["submit", str(tmp_path), "--model", str(toy_bundle), "--out", str(tmp_path / "out.csv")]
    assert run(args) == 2
    assert "gone.jpg" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
    assert run([*args, "--missing", "0.5"]) == 1
    assert (tmp_path / "out.csv").read_text().splitlines()[2] == "gone.jpg,0.5"


@pytest.mark.parametrize("verb", ["predict", "submit"])
def test_help_has_an_example(verb, capsys):
    assert run([verb, "--help"]) == 0
    assert f"Example: maskfast {verb} " in capsys.readouterr().out
