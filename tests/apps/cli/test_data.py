import json
from pathlib import Path

import pytest
from PIL import Image

from maskfast.apps.cli.main import run
from maskfast.data.demo import draw_demo


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))
    return draw_demo(tmp_path / "demo", count=12)


def test_a_sound_folder_passes_and_the_files_are_written(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = tmp_path / "clean.csv"
    assert run(["audit", str(demo), "--out", str(tmp_path / "audit"), "--clean", str(clean), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["usable"] == 9
    assert printed.err.count("wrote") == 5
    assert len(clean.read_text().splitlines()) == 10
    assert "<h1>Audit of" in (tmp_path / "audit" / "audit.html").read_text()


def test_findings_fail_with_strict_only_and_bad_rows_always(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sorted((demo / "images").iterdir())[:2]
    labels = (demo / "train_labels.csv").read_text()
    row = next(line for line in labels.splitlines() if line.startswith(first.name))
    (demo / "images" / "copy.jpg").write_bytes(first.read_bytes())
    (demo / "train_labels.csv").write_text(labels + row.replace(first.name, "copy.jpg") + "\n")
    assert run(["audit", str(demo), "--quiet"]) == 0
    assert run(["audit", str(demo), "--quiet", "--strict"]) == 1
    second.write_bytes(b"GIF89a")
    capsys.readouterr()
    assert run(["audit", str(demo), "--quiet"]) == 1
    assert f"{second.name}: truncated file" in capsys.readouterr().out


def test_crop_prints_counts_and_how_the_columns_were_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    Image.effect_noise((100, 60), 90).save(tmp_path / "images" / "a.png")
    (tmp_path / "b.csv").write_text(
        "name,x1,x2,y1,y2,classname\na.png,60,5,90,50,smile\na.png,5,5,40,45,face_no_mask\n"
    )
    arguments = ["crop", str(tmp_path / "b.csv"), str(tmp_path / "out"), "--split", "1", "0", "0", "--json"]
    assert run(arguments) == 2
    assert "--class 'smile=mask'" in capsys.readouterr().err
    assert run([*arguments, "--class", "smile=laugh"]) == 2
    assert run([*arguments, "--class", "smile=mask"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["train/no-mask"] == 1
    assert "read as xmin, ymin, xmax, ymax" in printed.err
