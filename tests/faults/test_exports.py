"""What a Learner in a stranger's file may describe: an answer or one line comes of it, in little time and memory."""

import random
import struct
import zipfile
from pathlib import Path

import hostile_exports as make
import pytest
import torch
from hostile_pickles import write_archive

from maskfast.apps.cli.main import run
from maskfast.bundle.convert import read_draft_fields
from maskfast.bundle.fastai_export import Module, read_export
from maskfast.bundle.inspection import inspect_file
from maskfast.bundle.rebuild import MAX_NAMED, list_candidates
from maskfast.core.errors import BundleError

pytestmark = pytest.mark.faults
FOUR = struct.pack("<4f", 1, 2, 3, 4)
LINEAR = make.layer("torch.nn.modules.linear.Linear")


@pytest.fixture
def write(tmp_path):
    """Returns what writes a pickle and its storage, and gives the path."""

    def write(content, storage=FOUR):
        write_archive(tmp_path / "x.pkl", content, **{"data/0": storage})
        return tmp_path / "x.pkl"

    return write


def share_one_state(layers, settings):
    state = make.entries((f"s{index}", b"\x88") for index in range(settings))
    shared = make.name("x.Layer") + b")\x81" + make.recall(1) + b"b"
    root = make.layer("x.Root", children=[(str(index), shared) for index in range(layers)])
    return make.learner(root, first=make.remember(1, state))


def share_one_loader(count):
    one = make.remember(1, make.thing("x.Transform", y=make.number(1)))
    lists = make.remember(2, make.thing("x.List", tfms=make.pipeline(*[make.recall(1)] * count)))
    return make.learner(LINEAR, first=one + lists, dls=make.loaders(types=make.items(*[make.recall(2)] * count)))


def nest(depth, key):
    inner = LINEAR
    for _ in range(depth):
        inner = make.layer("x.Layer", children=[(key, inner)])
    return make.learner(inner)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (make.learner(make.layer("x.Root", children=[("k" * 10**6, LINEAR)])), "names too long"),
        (nest(60, "ten_letters"), "nested too deep"),
        (
            make.learner(
                make.layer("x.Root", children=[(str(index), make.recall(1)) for index in range(10_001)]),
                first=make.remember(1, LINEAR),
            ),
            "more than 10000 layers",
        ),
        (share_one_state(layers=300, settings=2000), "more than 500000 parts"),
        (share_one_loader(800), "more than 500000 parts"),
        (
            make.learner(LINEAR, dls=make.loaders(after_item=[make.thing("x.Transform")] * 201)),
            "more than 200 transforms",
        ),
        (
            make.learner(
                make.layer("x.Root", parameters=[(f"w{index}", make.recall(1)) for index in range(20_001)]),
                first=make.remember(1, make.tensor((4,), (1,))),
            ),
            "more than 20000 tensors",
        ),
        (
            make.learner(LINEAR, dls=make.normalise(make.tensor(make.recall(2), make.recall(2))),
                         first=make.remember(2, b"(" + make.number(2**255) * 60_000 + b"t")),
            "reaches beyond its storage",
        ),
    ],
    ids=["key", "depth", "layers", "state", "loader", "transforms", "tensors", "dimensions"],
)  # fmt: skip
def test_a_small_file_that_describes_much_is_refused_soon(write, content, message):
    path = write(content)
    with pytest.raises(BundleError, match=rf"x\.pkl: .*{message}"):
        read_export(path)


def test_tensors_that_share_their_bytes_are_not_copied_without_end(write):
    parameters = [(f"w{index}", make.recall(1)) for index in range(40)]
    content = make.learner(
        make.network(parameters), first=make.remember(1, make.tensor((250_000,), (1,), count=250_000))
    )
    assert "its tensors share bytes" in inspect_file(write(content, bytes(10**6)))["rebuilt"]


def test_the_storage_of_a_mean_is_not_read_where_it_is_huge(write):
    path = write(make.learner(LINEAR, dls=make.normalise(make.tensor((3,), (1,), count=3))), bytes(2**20 + 1))
    with pytest.raises(BundleError, match=r"entry 'archive/data/0' has 1048577 bytes, more than 1048576"):
        read_export(path)


def test_few_of_the_networks_that_an_export_names_are_built():
    named = {str(index): Module("timm.X", architecture=f"resnet{index // 2}") for index in range(40)}
    assert list_candidates(named) == [f"timm:resnet{index}" for index in range(MAX_NAMED)]


@pytest.mark.parametrize(
    "content",
    [
        make.learner(LINEAR, dls=make.thing("x.D", loaders=make.name("a.b") + make.number(5) + b"R")),
        make.learner(LINEAR, dls=make.thing("x.D", loaders=make.name("a.b") + make.entries([("a", b"N")]) + b"R")),
        make.learner(make.layer("x.L", parameters=[("w", make.tensor([2**31 - 1] * 600, [0] * 600))])),
        make.learner(LINEAR, loss_func=make.name("x.y")),
        make.learner(LINEAR, dls=make.normalise(make.tensor((1, 3), (2**200, 1)))),
        make.learner(LINEAR, dls=make.normalise(make.tensor(make.call("torch.Size", make.row(make.number(3))), (1,)))),
    ],
    ids=["number", "dictionary", "dimensions", "loss", "stride", "size"],
)
def test_an_odd_description_is_read_on(write, content):
    assert inspect_file(write(content))["layers"] == 1
    assert run(["inspect", str(write(content))]) == 0


@pytest.mark.parametrize("shape", [(2**70, 0), (2**40, 2**40, 0)])
def test_a_tensor_of_no_values_may_not_be_endless(write, shape):
    path = write(make.learner(LINEAR, dls=make.normalise(make.tensor(shape, [1] * len(shape)))))
    with pytest.raises(BundleError, match="reaches beyond its storage"):
        read_export(path)


def test_the_last_of_two_layers_of_one_name_is_the_one_that_torch_would_take(write):
    children = [("0", LINEAR), ("0", make.layer("torch.nn.modules.activation.ReLU"))]
    found = read_export(write(make.learner(make.layer("x.Root", children=children)))).modules
    assert found["0"].kind == "torch.nn.modules.activation.ReLU"


def test_a_hook_is_seen_however_it_is_put_in(write):
    hooks = make.call("collections.OrderedDict", make.items(make.row(make.number(1), make.name("x.hook"))))
    assert read_export(write(make.learner(make.layer("x.Root", _forward_hooks=hooks)))).modules[""].hooked
    empty = make.call("collections.OrderedDict")
    assert not read_export(write(make.learner(make.layer("x.Root", _forward_hooks=empty)))).modules[""].hooked


def test_a_body_without_weights_is_no_unknown_network(write):
    configured = make.entries([("architecture", make.text("no_such_network"))])
    weight = [("weight", make.tensor((2, 2), (2, 1)))]
    model = make.network(pretrained_cfg=configured, head={"linear.Linear": weight})
    told = inspect_file(write(make.learner(model)))["rebuilt"]
    assert "x.pkl: no backbone of torchvision or timm has its shapes; tried timm:no_such_network" in told


@pytest.mark.parametrize("side", [28, 2000])
def test_a_size_that_is_not_scored_says_what_to_do(write, side):
    resize = make.thing(
        "fastai.vision.augment.Resize", size=make.row(*[make.number(side)] * 2), method=make.text("crop")
    )
    export = read_export(write(make.learner(LINEAR, dls=make.loaders(after_item=[resize]))))
    told = rf"x\.pkl: its pictures have {side} pixels a side, .* maskfast convert .*x\.pkl OUT --size 64"
    with pytest.raises(BundleError, match=told):
        read_draft_fields(export, None)
    assert read_draft_fields(export, 64)["size"] == 64


@pytest.mark.parametrize("values", [(float("nan"), 0.4, 0.4), (0.4, float("inf"), 0.4), (0.4, 0.4, 0.0)])
def test_an_impossible_normalisation_is_refused(write, values):
    path = write(
        make.learner(LINEAR, dls=make.normalise(make.tensor((3,), (1,), count=3))), struct.pack("<3f", *values)
    )
    with pytest.raises(BundleError, match=r"x\.pkl: it normalises by"):
        read_draft_fields(read_export(path), 64)


def test_names_of_a_stranger_forge_no_lines(write, capsys):
    named = b"\x80\x04" + make.text("torch.\x1b[2K") + make.text("x\nrebuilt: yes\ud800") + b"\x93)R."
    assert run(["inspect", str(write(named))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == r"kind: pickle of torch.\x1b[2K.x\nrebuilt: yes\ud800"
    assert [line.partition(":")[0] for line in lines].count("rebuilt") == 1
    assert run(["inspect", str(write(named)), "--json"]) == 0
    assert capsys.readouterr().out.isascii()


def test_a_declared_size_is_checked_before_a_byte_is_read(tmp_path):
    path = tmp_path / "x.pkl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(64 * 2**20 + 1))
    with pytest.raises(BundleError, match=r"x\.pkl: entry 'archive/data\.pkl' has 67108865 bytes"):
        read_export(path)


def test_a_directory_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "x.pkl"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(200):
            archive.writestr(f"{index:060000}", b"")
    with pytest.raises(BundleError, match=r"x\.pkl: is no zip .*its directory of \d+ bytes is more than 20000 entries"):
        read_export(path)


def test_a_file_that_may_not_be_read_is_named(write, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = write(b"N.")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BundleError, match=r"x\.pkl: cannot be read: Permission denied"):
        read_export(path)


def test_a_flipped_bit_anywhere_is_the_one_error_or_an_answer(tmp_path):
    path = tmp_path / "x.pkl"
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), path)
    content, chance = path.read_bytes(), random.Random(0)
    seen = set()
    for _ in range(400):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            read_export(path)
        except BundleError as error:
            seen.add(str(error))
    assert len(seen) > 10
    assert not [each for each in seen if "cannot be read" in each], "no case is left to the last resort"
