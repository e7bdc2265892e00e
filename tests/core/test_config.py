"""The configuration: types, ranges, nearest names, files, and the challenge entry's own keys."""

import json
from pathlib import Path

import pytest

from maskfast.core.config import TrainConfig, make_config
from maskfast.core.config_files import export_schema, list_configs, read_config
from maskfast.core.errors import ConfigError


def write(path: Path, options: object) -> Path:
    path.write_text(json.dumps(options))
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epoch": 3}, ["epoch", "did you mean epochs"]),
        ({"batchsize": 3}, ["did you mean batch_size"]),
        ({"epochs": "few"}, ["epochs", "few"]),
        ({"valid": 1.5}, ["valid", "1.5"]),
        ({"lr": "high"}, ["lr", "high"]),
        ({"folds": 1}, ["folds"]),
        ({"recall": 0.9, "cost_miss": 2}, ["recall"]),
        ({"epochs": 0, "frozen_epochs": 0}, ["epochs"]),
        ({"method": "stretch"}, ["method", "stretch", "squish"]),
    ],
)
def test_wrong_options_are_named_with_what_was_seen(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(options, origin="a.json")
    for word in ["a.json", *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flags_given_as_text_become_numbers() -> None:
    config = make_config(
        {"epochs": "3", "lr": "0.01", "cache": False, "views": ["plain", "flip"], "progressive": ["128"]}
    )
    assert (config.epochs, config.lr, config.cache, config.progressive) == (3, 0.01, False, (128,))


def test_a_configuration_survives_json(tmp_path: Path) -> None:
    config = make_config({"epochs": 7, "views": ("plain", "flip"), "out": tmp_path, "recall": 0.9})
    options, notes = read_config(write(tmp_path / "c.json", config.model_dump(mode="json")))
    assert make_config(options) == config
    assert notes == []


def test_toml_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('arch = "simple_cnn"\nprogressive = [64, 96]\n')
    assert make_config(read_config(tmp_path / "c.toml")[0]).progressive == (64, 96)


def test_the_challenge_entrys_keys_are_translated_with_notes(tmp_path: Path) -> None:
    theirs = {
        "im_width": 224, "im_height": 200, "Epochs": 9, "Batch": 16, "Dropout": 0.2, "compressFile": "data/images.zip",
        "TrainFolder": "data/train", "TestFolder": "data/test", "LabelFiles": "data/train_labels.csv",
        "Model_Path": "models/best.h5",
    }  # fmt: skip
    options, notes = read_config(write(tmp_path / "config.json", theirs))
    config = make_config(options)
    assert (config.size, config.epochs, config.batch_size, config.dropout) == (224, 9, 16, 0.2)
    assert config.data == (str(tmp_path / "data"),)
    assert config.out == tmp_path / "models" / "best"
    for key in theirs:
        assert any(key in note for note in notes), key


def test_a_bundles_own_json_is_a_configuration(tmp_path: Path) -> None:
    path = write(tmp_path / "bundle.json", {"schema_version": 1, "config": {"epochs": 2}, "classes": ["a"]})
    assert read_config(path) == ({"epochs": 2}, [])


@pytest.mark.parametrize(
    ("text", "word"), [("{", "no JSON"), ("[1]", "list"), ('{"epoch": 1}', "epochs"), ('{"Epoch": 1}', "epochs")]
)
def test_broken_files_are_told(text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ConfigError, match=word):
        read_config(tmp_path / "c.json")


def test_a_missing_file_names_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="challenge, scenes"):
        read_config("nothing")


@pytest.mark.parametrize("name", list_configs())
def test_shipped_configurations_are_whole(name: str) -> None:
    options, notes = read_config(name)
    assert make_config(options)
    assert notes == []


def test_the_schema_describes_every_option() -> None:
    schema = export_schema()
    assert set(schema["properties"]) == set(TrainConfig.model_fields)
    assert schema["additionalProperties"] is False
