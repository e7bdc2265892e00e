"""`maskfast train`, `models`, `doctor`: flags, exit codes, one line for what is wrong."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from toys import draw_toy

from maskfast.apps.cli.main import run
from maskfast.apps.cli.train import FLAGS, LISTS, SWITCHES
from maskfast.core.config import TrainConfig

TOY = ["--arch=simple_cnn", "--weights=none", "--size=32", "--epochs=1", "--batch-size=8", "--lr=0.02"]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))
    return draw_toy(tmp_path / "toy", count=24)


def test_there_is_a_flag_for_every_option() -> None:
    assert {name.replace("-", "_") for name in FLAGS} == set(TrainConfig.model_fields) - {"data"}
    assert {*SWITCHES, *LISTS} <= set(FLAGS)
    for name in SWITCHES:
        assert TrainConfig.model_fields[name.replace("-", "_")].annotation is bool


def test_defaults_in_the_help_are_the_models() -> None:
    for name, text in FLAGS.items():
        told = text.partition("[default: ")[2].rstrip("]")
        default = TrainConfig.model_fields[name.replace("-", "_")].default
        if told and default is not None and not isinstance(default, bool | tuple):
            assert told == (f"{default:g}" if isinstance(default, float) else str(default)), name


def test_training_writes_a_bundle_and_prints_json(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(toy), *TOY, f"--out={tmp_path / 'model'}", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["metrics"]["count"] > 0
    assert "epoch 1/1" in printed.err
    assert (tmp_path / "model" / "bundle.json").is_file()
    assert "\x1b" not in printed.err
    assert "\r" not in printed.err


def test_a_bad_row_is_listed_and_the_rest_is_done(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy / "images" / "2.png").unlink()
    assert run(["train", str(toy), *TOY, f"--out={tmp_path / 'model'}", "--quiet"]) == 1
    assert "2.png" in capsys.readouterr().err
    assert (tmp_path / "model" / "bundle.json").is_file()


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--arch=resnet33"], "resnet34"),
        (["--epochs=many"], "epochs"),
        (["--weights=/nowhere.pth"], "nowhere"),
        (["--config=nothing"], "nothing"),
        (["--out=/proc/nothing/model"], "--out"),
        (["--resume", "--out=/tmp/maskfast-never-trained"], "no interrupted"),
        (["--epoch=1"], "--epoch"),
        (["--class=smiley"], "NAME=mask"),
    ],
)
def test_what_is_wrong_is_one_line(
    flags: list[str], word: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(toy), *TOY, f"--out={tmp_path / 'model'}", *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert word in error
    assert "\n" not in error
    assert not (tmp_path / "model").exists()


def test_wrong_data_is_one_line(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"--out={tmp_path / 'model'}"
    assert run(["train", str(tmp_path / "nowhere"), *TOY, out]) == 2
    assert run(["train", *TOY, out]) == 2
    labels = pd.read_csv(toy / "train_labels.csv")
    labels.assign(target=0).to_csv(toy / "train_labels.csv", index=False)
    assert run(["train", str(toy), *TOY, out]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 3
    assert "both classes" in errors[2]
    assert not (tmp_path / "model").exists()


def test_class_is_kept_with_the_run(toy: Path, tmp_path: Path) -> None:
    rows = (toy / "train_labels.csv").read_text().splitlines()[1:]
    boxes = [f"{name},1,1,9,9,{('cap', 'veil')[int(label)]}" for name, label in (row.split(",") for row in rows)]
    (toy / "train_labels.csv").write_text("\n".join(["name,xmin,ymin,xmax,ymax,class", *boxes]) + "\n")
    flags = ["--class=veil=mask", "--class", "cap=no_mask"]
    assert run(["train", str(toy), *TOY, f"--out={tmp_path / 'model'}", *flags]) == 0
    config = json.loads((tmp_path / "model" / "bundle.json").read_text())["config"]
    assert config["classes"] == {"veil": "mask", "cap": "no_mask"}


def test_a_bundle_can_be_trained_again(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    assert run(["train", str(toy), *TOY, "--seed=3", f"--out={first}"]) == 0
    assert run(["train", f"--from={first / 'bundle.json'}", f"--out={second}"]) == 0
    capsys.readouterr()
    digests = [
        json.loads((folder / "bundle.json").read_text())["sha256"]["model.safetensors"] for folder in (first, second)
    ]
    assert digests[0] == digests[1]


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--schema"]) == 0
    assert set(json.loads(capsys.readouterr().out)["properties"]) == set(TrainConfig.model_fields)


def test_models_lists_costs_and_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "resnet18", "simple_cnn", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["resnet18", "simple_cnn"]
    assert rows[0]["licence"] == "BSD-3-Clause"
    assert run(["models", "simple_cnn"]) == 0
    assert "simple_cnn" in capsys.readouterr().out
    assert run(["models", "resnet33"]) == 2


def test_models_lists_one_whose_library_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pytorchcv.model_provider", None)
    assert run(["models", "nasnet_mobile", "simple_cnn"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[0] == "nasnet_mobile"
    assert lines[1].rstrip().endswith("pip install 'maskfast[nasnet]'")
    assert lines[2].startswith("simple_cnn")
    assert run(["models", "nasnet_mobile", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["parameters"] is None


def test_doctor_says_what_will_be_used_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["precision"].startswith(("bf16: ", "fp16: ", "fp32: "))
    assert found["torch"]


@pytest.mark.parametrize(
    ("able", "tiles", "told"),
    [
        ({"architecture": "x86_64", "avx512_vnni": True}, True, "multiplied in hardware, in tiles (AMX)"),
        ({"architecture": "x86_64", "avx512_vnni": True}, False, "multiplied in hardware (VNNI)"),
        ({"architecture": "x86_64", "avx_vnni": True}, False, "multiplied in hardware (VNNI)"),
        ({"architecture": "x86_64", "avx512_f": True}, False, "no VNNI here: the same answers, less speed"),
        ({"architecture": "aarch64"}, False, f"as onnxruntime does them on {platform.machine()}"),
    ],
)
def test_doctor_says_how_8_bits_are_multiplied(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, able: dict[str, Any], tiles: bool, told: str
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: able)
    monkeypatch.setattr("maskfast.learn.doctor.multiplies_tiles", lambda: tiles)
    assert run(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["8 bits"] == told


def test_the_command_line_starts_without_heavy_imports() -> None:
    heavy = ("torch", "fastai", "pydantic", "pandas")
    build = "import sys; from maskfast.apps.cli.main import make_app; make_app()"
    code = f"{build}; print([name for name in {heavy} if name in sys.modules])"
    run_ = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert run_.stdout.strip() == "[]"
