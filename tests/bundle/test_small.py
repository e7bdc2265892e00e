from pathlib import Path

import numpy as np
import pytest
from toy_bundles import make_toy_draft

import maskfast.bundle
import maskfast.bundle.small
from maskfast.bundle.small import shrink_bundle
from maskfast.bundle.store import write_bundle
from maskfast.core.config import make_config
from maskfast.core.config_files import read_config
from maskfast.core.errors import BundleError
from maskfast.score.loading import find_model, load

PACKAGED = Path(maskfast.bundle.__file__).parent / "small"


def test_the_small_form_answers_as_the_int8_file_does(tmp_path):
    draft = make_toy_draft(card="# Card")
    write_bundle(tmp_path / "model", draft)
    shrink_bundle(tmp_path / "model", tmp_path / "small")
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == [
        "README.md",
        "bundle.json",
        "model.int8.onnx",
    ]
    assert "/" not in str(load(tmp_path / "small").manifest.config)
    small, whole = load(tmp_path / "small"), load(tmp_path / "model", backend="int8")
    assert small.backend.name == "int8"
    assert np.array_equal(small.predict_arrays(draft.check_images), whole.predict_arrays(draft.check_images))
    with pytest.raises(BundleError, match="no weights for torch"):
        load(tmp_path / "small", backend="torch")


def test_too_large_or_without_int8_is_refused(tmp_path, monkeypatch):
    write_bundle(tmp_path / "plain", make_toy_draft(onnx=False, card="# Card"))
    with pytest.raises(BundleError, match=r"model\.int8\.onnx: this bundle has no such file"):
        shrink_bundle(tmp_path / "plain", tmp_path / "small")
    write_bundle(tmp_path / "model", make_toy_draft(card="# Card"))
    monkeypatch.setattr(maskfast.bundle.small, "MAX_BYTES", 1000)
    with pytest.raises(BundleError, match="more than 1000"):
        shrink_bundle(tmp_path / "model", tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_without_a_model_the_packaged_one_is_meant(toy_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model(None) == PACKAGED
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model").symlink_to(toy_bundle)
    assert load().manifest == load(toy_bundle).manifest


def test_the_packaged_model_is_whole_and_small():
    assert sum(path.stat().st_size for path in PACKAGED.iterdir()) <= 4_000_000
    predictor = load(PACKAGED)
    assert make_config(predictor.manifest.config).scenes == make_config(read_config("scenes")[0]).scenes
    assert predictor.backend.name == "int8"
    assert 0 <= predictor.predict_arrays(np.zeros((1, predictor.size, predictor.size, 3), np.uint8))[0] <= 1


def test_the_command_trains_on_what_is_shared_and_shrinks(tmp_path, monkeypatch):
    import maskfast.learn.small

    asked = {}

    def train(data, *, out, **options):
        asked.update(options, data=[str(each) for each in data])
        write_bundle(out, make_toy_draft(card="# Card"))

    monkeypatch.setattr(maskfast.learn.small, "train_learner", train)
    manifest = maskfast.learn.small.train_small_model(tmp_path / "shared", tmp_path / "small", seed=2)
    assert asked["data"] == [str(tmp_path / "shared/data" / name) for name in ("spot-the-mask", "face-boxes")]
    assert (asked["arch"], asked["seed"]) == ("mobilenet_v2", 2)
    assert make_config({key: value for key, value in asked.items() if key != "data"}).head == "mil"
    assert load(tmp_path / "small").manifest == manifest
