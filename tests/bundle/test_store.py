import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_bundles import make_toy_draft

import maskfast.bundle.weights
from maskfast.apps.cli.main import run
from maskfast.bundle.manifest import format_manifest, parse_manifest, read_manifest
from maskfast.bundle.store import write_bundle
from maskfast.bundle.verify import read_listed, verify_bundle, verify_meanwhile
from maskfast.bundle.weights import read_networks
from maskfast.core.errors import BundleError, ConfigError
from maskfast.score.loading import load


@pytest.fixture
def bundle(toy_bundle, tmp_path):
    return shutil.copytree(toy_bundle, tmp_path / "model")


def reseal(folder, **changes):
    """Write the manifest of `folder` again with other values and right hashes, as somebody hostile would."""
    fields = json.loads((folder / "bundle.json").read_bytes())
    fields.update(changes)
    fields["seal"] = "0" * 64
    for name in fields["sha256"]:
        fields["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    content = json.dumps(fields, indent=2).encode()
    sealed = content.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode(), 1)
    (folder / "bundle.json").write_bytes(sealed)


def test_a_bundle_says_what_was_drafted(bundle, toy_draft):
    manifest = verify_bundle(bundle)
    assert (manifest.size, manifest.temperature, manifest.threshold) == (32, 1.5, 0.4)
    assert manifest.network == toy_draft.network
    assert torch.__version__.startswith(manifest.versions["torch"])
    assert {"model.safetensors", "model.onnx"} <= set(manifest.sha256)
    for name, sha256 in manifest.sha256.items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == sha256


def test_the_weights_come_back(bundle, toy_draft):
    (network,) = read_networks(bundle, read_manifest(bundle))
    for key, tensor in toy_draft.state_dicts[0].items():
        assert torch.equal(network.state_dict()[key], tensor), key


def test_documents_are_written(tmp_path):
    import pandas as pd

    validation = pd.DataFrame({"image": ["a.jpg"], "probability": [0.5]})
    draft = make_toy_draft(
        export_pkl=b"pickle", validation=validation, report={"losses.png": b"png"}, card="# Card", onnx=False
    )
    manifest = write_bundle(tmp_path / "model", draft)
    assert set(manifest.sha256) == {
        "README.md", "export.pkl", "model.safetensors", "report/losses.png", "report/validation.csv",
    }  # fmt: skip
    assert pd.read_csv(tmp_path / "model/report/validation.csv").equals(validation)


def test_a_failed_write_leaves_the_old_bundle_whole(bundle, tmp_path):
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    state = dict(make_toy_draft().state_dicts[0])
    state["0.0.0.weight"] = state["0.0.0.weight"] * float("nan")
    with pytest.raises(BundleError, match=r"0\.0\.0\.weight is not finite"):
        write_bundle(bundle, make_toy_draft(state_dicts=[state]))
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other things than a bundle"):
        write_bundle(tmp_path, make_toy_draft(onnx=False))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(ConfigError, match="link: is no folder"):
        write_bundle(tmp_path / "link", make_toy_draft(onnx=False))


def test_a_bundle_with_other_things_in_it_or_of_others_is_not_replaced(bundle, tmp_path):
    write_bundle(bundle, make_toy_draft(onnx=False))
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds notes\.txt, which is no part of a bundle"):
        write_bundle(bundle, make_toy_draft(onnx=False))
    assert (bundle / "notes.txt").read_text() == "mine"
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "bundle.json").write_text('{"name": "another tool\'s"}')
    with pytest.raises(ConfigError, match="holds other things than a bundle"):
        write_bundle(tmp_path / "web", make_toy_draft(onnx=False))


def test_every_flipped_bit_is_noticed(bundle):
    rng = np.random.default_rng(0)
    for name in ("bundle.json", "model.safetensors", "model.onnx"):
        whole = (bundle / name).read_bytes()
        for place in rng.integers(0, len(whole), 40):
            broken = bytearray(whole)
            broken[place] ^= 1 << int(rng.integers(8))
            (bundle / name).write_bytes(broken)
            with pytest.raises(BundleError, match=name.replace(".", r"\.")):
                verify_bundle(bundle)
        (bundle / name).write_bytes(whole)
    verify_bundle(bundle)


@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors", "model.onnx"])
@pytest.mark.parametrize("harm", ["truncate", "rename", "symlink", "empty", "folder", "pipe"])
def test_a_harmed_file_is_named(bundle, name, harm):
    path = bundle / name
    content = path.read_bytes()
    path.rename(bundle / "elsewhere")
    if harm in ("truncate", "empty"):
        path.write_bytes(content[: len(content) // 2 if harm == "truncate" else 0])
    elif harm == "symlink":
        path.symlink_to(bundle / "elsewhere")
    elif harm == "folder":
        path.mkdir()
    elif harm == "pipe":
        os.mkfifo(path)
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        verify_bundle(bundle)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_what_is_read_is_what_was_written_although_it_changed_after_the_check(bundle, name):
    with verify_meanwhile(bundle) as manifest:
        assert hashlib.sha256(read_listed(bundle, manifest, name)).hexdigest() == manifest.sha256[name]
    flip_a_bit(bundle / name)
    with pytest.raises(BundleError, match=rf"{name}: its sha256 is .*it was changed"):
        read_listed(bundle, manifest, name)


@pytest.mark.parametrize("backend", ["onnx", "torch-fp32"])
@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_a_changed_file_is_refused_whichever_file_answers(bundle, backend, name):
    flip_a_bit(bundle / name)
    with pytest.raises(BundleError, match=rf"{name}: its sha256 is .*it was changed"):
        load(bundle, backend=backend)


def test_a_symlinked_inner_folder_is_refused(tmp_path):
    folder = tmp_path / "model"
    write_bundle(folder, make_toy_draft(report={"a.txt": b"a"}, onnx=False))
    (folder / "report").rename(tmp_path / "report")
    (folder / "report").symlink_to(tmp_path / "report")
    with pytest.raises(BundleError, match="report: is a symbolic link"):
        verify_bundle(folder)


PART = {"network": {"arch": "simple_cnn"}, "size": 32, "mean": [0] * 3, "std": [1] * 3, "temperature": 1, "weight": 1}


def nest(depth):
    told = 1
    for _ in range(depth):
        told = [told]
    return told


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": 0}, "size"),
        ({"size": "wide"}, "size"),
        ({"temperature": -1}, "temperature"),
        ({"threshold": 2}, "threshold"),
        ({"std": [0.2, 0.2, 0]}, "std"),
        ({"classes": ["mask", "no_mask"]}, "classes"),
        ({"views": []}, "views"),
        ({"views": ["upside down"]}, "views"),
        ({"schema_version": 99}, "schema_version"),
        ({"network": {"arch": "simple_cnn", "depth": 3}}, "network.depth"),
        ({"surprise": 1}, "surprise"),
        ({"mean": [1e39, 0, 0]}, "mean"),
        ({"std": [1e-320, 1, 1]}, "std"),
        ({"temperature": 1e-320}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"metrics": {"auc": float("nan")}}, "metrics"),
        ({"config": {"a": nest(300)}}, "config"),
        ({"data": {"a": nest(300)}}, "data"),
        ({"network": {"arch": "simple_cnn", "hidden": 2 * 10**7}}, "network.hidden"),
        ({"network": {"arch": "simple_cnn", "head": "mil", "sharpness": float("inf")}}, "network.sharpness"),
        ({"network": {"arch": "ensemble", "parts": [PART | {"mean": [float("nan"), 0, 0]}]}}, "network.parts.0.mean"),
        ({"network": {"arch": "ensemble", "parts": [PART | {"std": [0, 1, 1]}]}}, "network.parts.0.std"),
        ({"network": {"arch": "ensemble", "parts": [PART | {"temperature": float("inf")}]}}, "network.parts.0.temp"),
    ],
)
def test_an_impossible_field_is_named(bundle, changes, field):
    reseal(bundle, **changes)
    with pytest.raises(BundleError, match=rf"bundle\.json: {field}"):
        verify_bundle(bundle)


OUTSIDE = ["../secret", "/etc/passwd", "a/../../b", "C:evil", "a\\b", "bundle.json", "", ".", "a//b"]
UNSTORABLE = ["\ud800", "a\nb", "a\0b", "a" * 256, "é" * 128, "a/" * 600 + "a"]


@pytest.mark.parametrize("name", OUTSIDE + UNSTORABLE)
def test_a_listed_name_stays_inside_the_folder(bundle, name):
    fields = json.loads((bundle / "bundle.json").read_bytes())
    fields["seal"] = "0" * 64
    fields["sha256"][name] = "0" * 64
    content = json.dumps(fields, indent=2).encode()
    with pytest.raises(BundleError, match="sha256"):
        parse_manifest(content.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode(), 1))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b'{"seal": 1}', b"[" * 100_000])
def test_no_manifest_is_refused(content):
    with pytest.raises(BundleError, match=r"bundle\.json"):
        parse_manifest(content)


def test_a_manifest_survives_the_way_through_its_bytes(toy_bundle):
    manifest = read_manifest(toy_bundle)
    assert parse_manifest(format_manifest(manifest)) == manifest


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda state: state.pop("1.4.weight"), r"missing.*1\.4\.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected.*extra"),
        (lambda state: state.update({"1.4.weight": torch.zeros(3, 3)}), r"1\.4\.weight: shape \[3, 3\], expected"),
        (lambda state: state["1.4.weight"].fill_(float("inf")), r"1\.4\.weight: has values that are not finite"),
        (lambda state: state.update({"1.4.weight": state["1.4.weight"].int()}), r"1\.4\.weight: type torch\.int32"),
    ],
)
def test_wrong_weights_are_named_although_their_hash_is_right(bundle, harm, message):
    state = load_file(bundle / "model.safetensors")
    harm(state)
    save_file(state, bundle / "model.safetensors")
    reseal(bundle)
    with pytest.raises(BundleError, match=rf"model\.safetensors: .*{message}"):
        read_networks(bundle, verify_bundle(bundle))


@pytest.mark.parametrize("network", [{"arch": "nope"}, {"arch": "ensemble"}])
def test_an_unknown_network_is_named_with_its_field(bundle, network):
    reseal(bundle, network=network)
    with pytest.raises(BundleError, match=rf"bundle\.json: network\.arch: {network['arch']}: neither torchvision nor"):
        read_networks(bundle, verify_bundle(bundle))


def test_a_head_wider_than_all_tensors_is_not_built(bundle, monkeypatch):
    reseal(bundle, network={"arch": "simple_cnn", "hidden": 65536})
    monkeypatch.setattr(maskfast.bundle.weights, "build_network", None)
    with pytest.raises(BundleError, match=r"model\.safetensors: the widest .* its head should have 65536"):
        read_networks(bundle, verify_bundle(bundle))


def test_a_manifest_that_may_not_be_read_is_named(bundle, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(BundleError, match=r"bundle\.json: cannot be read: Permission denied"):
        read_manifest(bundle)


def test_a_bundle_of_odd_text_is_inspected(bundle, capsys):
    reseal(bundle, created="\ud800", left_out={"x": "\x1b[2J"})
    assert run(["inspect", str(bundle)]) == 0
    told = capsys.readouterr().out
    assert r"created: \ud800" in told
    assert r"x=\x1b[2J" in told


def test_a_folder_with_an_export_alone_names_it(tmp_path):
    (tmp_path / "export.pkl").write_bytes(b"")
    with pytest.raises(BundleError, match=r"no maskfast bundle; name the file export\.pkl in it to read that"):
        read_manifest(tmp_path)
