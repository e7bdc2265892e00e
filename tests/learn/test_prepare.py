"""What a training says of its data before it starts."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from maskfast.core.config import TrainConfig, make_config
from maskfast.core.errors import ConfigError, DataError
from maskfast.learn.prepare import check_model, group_training_items, list_training_items
from maskfast.learn.train import train_learner


def test_what_cannot_be_used_is_told_row_by_row_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))
    rng, lines = np.random.default_rng(0), ["path,label"]
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number % 2}")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    (tmp_path / "items.csv").write_text("\n".join([*lines, "gone.png,1", "broken.png,0", "0.png,1", "1.png,"]) + "\n")
    with caplog.at_level(logging.INFO, "maskfast.train"):
        items = read_and_group(tmp_path / "items.csv")
    first, *told = [record.getMessage() for record in caplog.records]
    assert first.startswith("11 labelled pictures (6 mask, 5 no mask); 2 conflict; 2 refused; 1 missing")
    assert {line.split(": ")[1] for line in told} == {"gone.png", "broken.png", "0.png", "1.png"}
    assert "not used: gone.png: missing: no such file" in told
    assert set(items.loc[items["split"].eq("valid"), "status"]) == {"ok"}


def test_where_nothing_can_be_used_the_reasons_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))
    for name in ("mask", "no_mask"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        (tmp_path / "faces" / name / "1.jpg").write_text("no picture")
    (tmp_path / "unlabelled.csv").write_text("path\nfaces/mask/1.jpg\n")
    with caplog.at_level(logging.INFO, "maskfast.train"), pytest.raises(DataError, match=r"learned from; mask/1\.jpg"):
        read_and_group(tmp_path / "faces")
    assert sum("not used: " in record.getMessage() for record in caplog.records) == 2
    with pytest.raises(DataError, match="none has a label"):
        read_and_group(tmp_path / "unlabelled.csv")


def write_items(folder: Path, header: str, *cells: str) -> Path:
    rng, lines = np.random.default_rng(0), [f"path,{header}"]
    for number, text in enumerate(cells):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{text}")
    (folder / "items.csv").write_text("\n".join(lines) + "\n")
    return folder / "items.csv"


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (["1,train", "0,train", "1,eval", "0,eval"], r"items\.csv row 4: split 'eval' is not known; call it train"),
        (["1,train", "1,train", "0,valid", "0,valid"], "train 2 mask and 0 no mask, valid 0 mask and 2 no mask"),
        (["1,valid", "0,valid", "1,valid", "0,valid"], "train 0 mask and 0 no mask, valid 2 mask and 2 no mask"),
        (["1,test", "0,test", "1,test", "0,test"], "split: all 4 labelled pictures are in 'test'"),
    ],
)
def test_a_split_that_can_not_be_trained_on_is_told(
    cells: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=told):
        read_and_group(write_items(tmp_path, "label,split", *cells))


def test_folds_that_part_the_classes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))
    config = TrainConfig(data=(str(write_items(tmp_path, "label,fold", "1,a", "1,a", "0,a", "0,b")),), folds=2)
    with pytest.raises(DataError, match="fold: the data's own have all pictures of 'mask' in one"):
        group_training_items(list_training_items(config), config)


def test_one_class_is_told_with_the_rows_that_were_refused(tmp_path: Path) -> None:
    table = write_items(tmp_path, "label", "masked", "covered", "masked", "covered")
    with pytest.raises(
        DataError, match=r"all 2 usable .* 'mask'; .*; 2 can't be used, the first: 1\.png: label 'covered'"
    ):
        list_training_items(TrainConfig(data=(str(table),)))


def test_a_table_without_labels_is_told_with_its_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none has a label: no label, .* among its columns path, who, when"):
        list_training_items(TrainConfig(data=(str(write_items(tmp_path, "who,when", "me,now", "me,now")),)))


def test_classes_of_boxes_can_be_told(tmp_path: Path) -> None:
    table = write_items(tmp_path, "class,xmin,ymin,xmax,ymax", "smiley,1,1,20,20", "with_mask,1,1,20,20")
    with pytest.raises(DataError, match="--class 'smiley=mask'"):
        list_training_items(TrainConfig(data=(str(table),)))
    items = list_training_items(make_config({"data": (str(table),), "classes": {"smiley": "no_mask"}}))
    assert items["label"].tolist() == [0, 1]


def test_a_login_that_is_missing_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")

    def refuse() -> bool:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "login", refuse)
    table = write_items(tmp_path, "label", "1", "0")
    with pytest.raises(ConfigError, match=r"^track: wandb: No API key configured; or set WANDB_MODE=offline"):
        train_learner(table, weights="none", track="wandb", out=tmp_path / "model")
    assert not list(tmp_path.glob("*model*"))


def test_data_that_is_not_there_is_told_before_weights_are_looked_for(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(DataError, match="no such file or folder"):
        train_learner(missing, weights=str(tmp_path / "weights.safetensors"), out=tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"arch": "inception_v3", "size": 48}, "size: inception_v3 can't take pictures of 48 pixels"),
        ({"arch": "vit_b_16", "size": 64}, "size: vit_b_16 can't take pictures of 64 pixels .*; its own size is 224"),
        ({"arch": "inception_v3", "progressive": (48, 128)}, "progressive: inception_v3 can't take .* 48 pixels"),
        ({"arch": "inception_v3", "views": ("plain", "flip@50")}, "views: inception_v3 can't take .* 50 pixels"),
        ({"size": 96, "progressive": (64, 96)}, "progressive: 96 is not smaller than the size in the end, 96 pixels"),
        ({"progressive": (256,)}, "progressive: 256 is not smaller than the size in the end, 224 pixels"),
    ],
)
def test_sizes_that_a_network_can_not_take_are_told_first(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_model(make_config({"weights": "none", **options}))


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_a_device_that_is_not_there_is_told_first(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda:7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 7)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"device: there is no {device} here"):
        check_model(make_config({"weights": "none", "device": device}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "gpu"),
        ("device", "cuda:"),
        ("seed", 2**32),
        ("progressive", (8,)),
        ("lr", -1e-3),
        ("sharpness", float("inf")),
        ("mixup", float("nan")),
        ("batch_size", 10**20),
        ("epochs", 10**20),
        ("hidden", 10**20),
        ("classes", {"smiley": "laugh"}),
        ("workers", 10**20),
    ],
)
def test_values_out_of_range_are_told(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: seen "):
        make_config({name: value})


def test_sizes_that_a_network_takes_are_fine() -> None:
    for options in ({"arch": "inception_v3"}, {"size": 128, "progressive": (64, 96), "views": ("plain@32", "flip")}):
        check_model(make_config({"weights": "none", **options}))


def read_and_group(data: Path) -> pd.DataFrame:
    config = TrainConfig(data=(str(data),))
    return group_training_items(list_training_items(config), config)
