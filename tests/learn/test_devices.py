"""Several processes train one network: on the batches of one device, measured on all pictures, written by one."""

import json
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import torch

from maskfast.apps.cli.main import run
from maskfast.learn.loader import PictureLoader
from maskfast.score.loading import load

TOY = ["--arch=simple_cnn", "--weights=none", "--size=32", "--epochs=1", "--batch-size=8", "--lr=0.02", "--device=cpu"]


def list_batches(size: int, share: tuple[int, int], *, shuffle: bool, count: int, skip: int = 0) -> list[list[int]]:
    loader = PictureLoader(list(range(count)), bs=size, shuffle=shuffle)
    loader.share, loader.skip_batches = share, skip
    loader.reseed(7)
    batches = [batch.tolist() for batch in loader]
    assert len(loader) - skip == len(batches) or not shuffle
    return batches


@pytest.mark.parametrize("count", [64, 61, 57])
@pytest.mark.parametrize("skip", [0, 2])
def test_a_step_of_all_processes_has_the_pictures_of_one_device(count: int, skip: int) -> None:
    alone = list_batches(12, (0, 1), shuffle=True, count=count, skip=skip)
    shares = [list_batches(4, (rank, 3), shuffle=True, count=count, skip=skip) for rank in range(3)]
    if 0 < count % 12 < 6:  # too few for three
        alone = alone[: (count // 12) - skip]
    assert [len({len(part) for part in parts}) for parts in zip(*shares, strict=True)] == [1] * len(alone)
    for batch, *parts in zip(alone, *shares, strict=True):
        assert {place for part in parts for place in part} == set(batch)


def test_validation_pictures_are_shared_without_a_repeat() -> None:
    shares = [list_batches(4, (rank, 3), shuffle=False, count=31) for rank in range(3)]
    assert sorted(place for share in shares for batch in share for place in batch) == list(range(31))


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", str(tmp_path), *TOY, "--devices=999"]) == 2
    assert "--devices 999: this machine has" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(find_spec("accelerate") is None, reason="needs the extra maskfast[distributed]")
def test_two_processes_write_the_bundle_that_one_does(
    toy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskfast.learn.launch.count_cores", lambda: 2)
    common = ["train", str(toy), *TOY, "--precision=fp32", "--ema=0.5", "--json"]
    assert run([*common, f"--out={tmp_path / 'one'}"]) == 0
    capfd.readouterr()
    code = run([*common, f"--out={tmp_path / 'two'}", "--devices=2"])
    printed = capfd.readouterr()
    assert code == 0, printed.err
    assert json.loads(printed.out)["metrics"]["count"] > 0
    assert printed.err.count("epoch 1/1") == 1
    assert list_files(tmp_path / "one") == list_files(tmp_path / "two")
    assert not (tmp_path / ".two.training").exists()
    answers = [pd.read_csv(tmp_path / name / "report" / "validation.csv") for name in ("one", "two")]
    assert list(answers[0]["image"]) == list(answers[1]["image"])
    told = pd.read_csv(tmp_path / "two" / "report" / "history.csv")["valid_loss"].min()
    logits = torch.tensor(answers[1][["logit_no_mask", "logit_mask"]].to_numpy())
    whole = torch.nn.functional.cross_entropy(logits, torch.tensor(answers[1]["label"].to_numpy()))
    assert told == pytest.approx(float(whole), abs=1e-4)
    assert load(tmp_path / "two").predict(toy / "images" / "1.png").probability is not None


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
