import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from maskfast.apps.cli.main import run
from maskfast.bundle.convert import draft_export
from maskfast.bundle.inspection import inspect_file
from maskfast.bundle.network import NetworkSpec, build_network
from maskfast.bundle.rebuild import swap_classes
from maskfast.core.errors import BundleError, ConfigError
from maskfast.score.loading import load

SIDE = 64
pytestmark = pytest.mark.filterwarnings(
    "ignore:The parameter 'pretrained' is deprecated", "ignore:Arguments other than a weight enum"
)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Ten drawn square pictures, larger than the input, named by class."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for index in range(10):
        small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        name = "with_mask" if index % 2 else "without_mask"
        small.resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{name}_{index}.png")
    return folder


def make_export(squares, out, arch, *, classes=("with_mask", "without_mask"), normalise=True, item=None, **options):
    """Export an untrained plain fastai learner and return it; its head is scaled so that answers differ."""
    from fastai.data.transforms import Normalize, get_image_files
    from fastai.vision.augment import Resize, aug_transforms
    from fastai.vision.data import ImageDataLoaders
    from fastai.vision.learner import vision_learner

    def name_class(path):
        return classes[0] if path.name.startswith("with_mask") else classes[1]

    batch = [*aug_transforms(), *([Normalize.from_stats((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))] if normalise else [])]
    dls = ImageDataLoaders.from_path_func(
        squares, sorted(get_image_files(squares)), name_class, valid_pct=0.3, seed=0,
        item_tfms=item or Resize(SIDE), batch_tfms=batch, bs=4, num_workers=0,
    )  # fmt: skip
    learn = vision_learner(dls, arch, pretrained=False, normalize=False, **options)
    (images,) = dls.test_dl(sorted(get_image_files(squares))).one_batch()
    images = images.as_subclass(torch.Tensor)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for part in learn.model.train().modules():
            if hasattr(part, "momentum"):
                part.momentum = 0.5
        for _ in range(8):
            learn.model(images + 0.1 * torch.randn_like(images))
        logits = learn.model.eval()(images)
        if hasattr(learn.model[1][-1], "weight"):
            learn.model[1][-1].weight *= 2 / (logits[:, 0] - logits[:, 1]).abs().max()
    learn.path = out.parent
    learn.export(out.name)
    return learn


def find_arch(name):
    import torchvision.models

    return getattr(torchvision.models, name, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "backbone"),
    [
        ("resnet18", "resnet18"),
        ("resnet34", "resnet34"),
        ("efficientnet_b0.ra_in1k", "timm:efficientnet_b0"),
        ("densenet121", "densenet121"),
        ("mobilenet_v3_large", "mobilenet_v3_large"),
        ("squeezenet1_1", "squeezenet1_1"),
    ],
)
def test_a_rebuilt_export_answers_as_fastai_does(squares, tmp_path, arch, backbone):
    learn = make_export(squares, tmp_path / "export.pkl", find_arch(arch), normalise=arch != "resnet18")
    predictor = load(tmp_path / "export.pkl")
    assert predictor.manifest.network.arch == backbone
    assert (predictor.size, predictor.method) == (SIDE, "crop")
    answers = []
    for path in sorted(squares.iterdir())[:4]:
        expected = float(learn.predict(path)[2][0])
        answers.append(expected)
        assert predictor.predict(path).probability == pytest.approx(expected, abs=1e-4)
    assert np.std(answers) > 1e-3


@pytest.fixture(scope="module")
def exported(squares, tmp_path_factory):
    """A resnet18 export whose classes are named so that nobody can tell which is the mask."""
    path = tmp_path_factory.mktemp("exported") / "export.pkl"
    return path, make_export(squares, path, find_arch("resnet18"), classes=("zebra", "ant"))


def test_unclear_classes_must_be_said(exported):
    path, learn = exported
    with pytest.raises(ConfigError, match="which of 'ant' and 'zebra' is the mask"):
        draft_export(path)
    with pytest.raises(ConfigError, match="--positive lion"):
        draft_export(path, positive="lion")
    network = learn.model[1][-1].weight
    for positive, rows in (("zebra", network), ("ant", network.flip(0))):
        assert torch.equal(draft_export(path, positive=positive).state_dicts[0]["1.8.weight"], rows)


def test_convert_writes_a_bundle_and_inspect_tells(exported, squares, tmp_path, capsys):
    path, learn = exported
    assert run(["convert", str(path), str(tmp_path / "model"), "--positive", "zebra", "--quiet"]) == 0
    predictor = load(tmp_path / "model")
    assert predictor.backend.name == "onnx"
    picture = sorted(squares.iterdir())[0]
    assert predictor.predict(picture).probability == pytest.approx(float(learn.predict(picture)[2][1]), abs=1e-4)
    capsys.readouterr()
    assert run(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["backbone"], found["rebuilt"], found["classes"]) == ("resnet18", "yes", ["ant", "zebra"])
    assert found["parameters"] == sum(each.numel() for each in learn.model.state_dict().values())
    assert found["mean"] == pytest.approx([0.4, 0.5, 0.6])
    assert found["calls"]["fastai.learner.Learner"] == 1
    assert run(["inspect", str(tmp_path / "model")]) == 0
    assert "kind: maskfast bundle" in capsys.readouterr().out


def test_an_export_inside_the_bundle_that_it_would_replace_stays(toy_bundle, exported, tmp_path, capsys):
    bundle = shutil.copytree(toy_bundle, tmp_path / "model")
    copy = shutil.copy(exported[0], bundle / "export.pkl")
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    (tmp_path / "link").symlink_to(bundle)
    for out in (bundle, tmp_path / "link"):
        assert run(["convert", str(copy), str(out), "--positive", "zebra"]) == 2
        assert "export.pkl lies in it and would be replaced with it; name another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before


def test_what_is_not_applied_is_told_when_an_export_is_loaded(squares, tmp_path, caplog):
    from fastai.vision.augment import CropPad, Resize

    make_export(squares, tmp_path / "export.pkl", find_arch("squeezenet1_1"), item=[Resize(SIDE), CropPad(SIDE)])
    load(tmp_path / "export.pkl")
    (line,) = [each for each in caplog.messages if "CropPad" in each]
    assert line.endswith("export.pkl: the transform fastai.vision.augment.CropPad is not applied")


def test_nothing_is_written_beside_an_export_that_is_loaded(exported, tmp_path):
    copy = shutil.copy(exported[0], tmp_path / "export.pkl")
    with pytest.raises(ConfigError):
        load(copy)
    assert [each.name for each in tmp_path.iterdir()] == ["export.pkl"]


def test_trust_hands_it_to_fastai_after_naming_what_it_refers_to(squares, tmp_path, caplog):
    learn = make_export(squares, tmp_path / "export.pkl", find_arch("resnet18"))
    with pytest.warns(UserWarning, match="insecure pickle"):
        predictor = load(tmp_path / "export.pkl", trust_pickle=True)
    assert "fastai.learner.Learner" in caplog.text
    assert predictor.manifest.config["sha256"] == hashlib.sha256((tmp_path / "export.pkl").read_bytes()).hexdigest()
    assert load(tmp_path / "export.pkl").manifest.config == predictor.manifest.config
    picture = sorted(squares.iterdir())[1]
    assert predictor.predict(picture).probability == pytest.approx(float(learn.predict(picture)[2][0]), abs=1e-4)


def make_head(kind):
    from torch import nn

    if kind == "own":
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 2))
    return None


def test_what_cannot_be_rebuilt_is_said_and_never_run(squares, tmp_path):
    path = tmp_path / "export.pkl"
    make_export(squares, path, find_arch("resnet18"), custom_head=make_head("own"))
    with pytest.raises(BundleError, match="its head is AdaptiveAvgPool2d, Flatten, Linear; only fastai's create_head"):
        load(path)
    assert "its head is" in inspect_file(path)["rebuilt"]


def add_third_class(model):
    model[1][8] = torch.nn.Linear(512, 3, bias=False)


def flatten_weights(model):
    model[1][4].weight = torch.nn.Parameter(torch.zeros(()))


def drop_everything(model):
    model[1][7].p = 1.5


def change_strides(model):
    model[0][4][0].conv1.stride = (2, 2)


def hook(*_):
    return None


class ReLU(torch.nn.ReLU):
    """A layer of the author's own that computes something else under a usual name."""

    def forward(self, images):
        return images.clamp(0, 0.02)


def put_own_layer_in_body(model):
    model[0][2] = ReLU(inplace=True)


def put_own_layer_in_head(model):
    model[1][5] = ReLU(inplace=True)


def add_hook(model):
    model[0][0].register_forward_hook(hook)


def change_shape(model):
    model[0][4][0].conv2 = torch.nn.Conv2d(64, 64, 5, padding=2, bias=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_strides, r"layer 0\.4\.0\.conv1: stride is \(2, 2\), rebuilt it would be \(1, 1\)"),
        (put_own_layer_in_body, r"layer 0\.2 is a .*test_convert\.ReLU, .* a torch\.nn\.modules\.activation\.ReLU"),
        (put_own_layer_in_head, r"its head is ConcatPool, .* Linear, .*test_convert\.ReLU, "),
        (add_hook, r"layer 0\.0 carries code of its own"),
        (add_third_class, "its head has not two outputs"),
        (flatten_weights, r"its head lacks the layers 1\.4 or 1\.7"),
        (drop_everything, "its head: Input should be less than 1"),
        (change_shape, "no backbone of torchvision or timm has its shapes; tried .*resnet18"),
    ],
)
def test_a_network_that_only_looks_like_a_known_one_is_refused(exported, tmp_path, change, message):
    from fastai.learner import load_learner

    with pytest.warns(UserWarning, match="insecure pickle"):
        learn = load_learner(exported[0])
    change(learn.model)
    torch.save(learn, tmp_path / "changed.pkl", pickle_module=__import__("cloudpickle"))
    with pytest.raises(BundleError, match=message):
        draft_export(tmp_path / "changed.pkl", positive="zebra")


@pytest.mark.parametrize("head", ["concat", "mil"])
def test_classes_in_the_other_order_are_exchanged(head):
    spec = NetworkSpec(arch="simple_cnn", head=head)
    network, images = build_network(spec).eval(), torch.randn(3, 3, SIDE, SIDE)
    with torch.inference_mode():
        expected = network(images).flip(1)
        network.load_state_dict(swap_classes(spec, network.state_dict()))
        assert torch.allclose(network(images), expected, atol=1e-6)
