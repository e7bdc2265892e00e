import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import hostile_pickles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfast.bundle.fastai_export import read_export
from maskfast.bundle.inspection import inspect_file
from maskfast.bundle.pickles import Pairs, read_pickle, walk
from maskfast.bundle.torch_zip import open_torch_zip
from maskfast.core.errors import BundleError, MaskfastError

pytestmark = pytest.mark.faults

WATCHER = """
import json, sys, time
from maskfast.bundle.fastai_export import list_unknown_names, read_export
from maskfast.core.errors import BundleError

told, watching, allowed = [], False, ""
FORBIDDEN = ("import", "exec", "compile", "subprocess", "socket", "os.", "ctypes", "pickle", "marshal", "shutil")

def watch(event, args):
    if watching and (event.startswith(FORBIDDEN) or (event == "open" and str(args[0]) != allowed)):
        told.append(f"{event} {str(args)[:80]}")

sys.addaudithook(watch)
results = {}
for path in sys.argv[1:]:
    allowed, told[:] = path, []
    start = time.process_time()  # of this process alone, so that a busy machine does not count
    watching = True
    try:
        export = read_export(path)
        list_unknown_names(export), export.count_parameters()
        error = None
    except BundleError as caught:
        error = str(caught)
    watching = False
    results[path] = {"events": list(told), "error": error, "seconds": time.process_time() - start}
with open("/proc/self/status") as status:  # ru_maxrss would begin with the size of the process that started this one
    results["peak"] = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def readings(tmp_path_factory):
    """Every hostile pickle, alone and as the network of a Learner, read in a process that is watched."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, content in hostile_pickles.list_hostile().items():
        hostile_pickles.write_archive(folder / f"{name}.pkl", content)
        hostile_pickles.write_archive(folder / f"{name}-as-model.pkl", hostile_pickles.wrap_in_learner(content))
    paths = sorted(map(str, folder.iterdir()))
    done = subprocess.run([sys.executable, "-c", WATCHER, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_nothing_is_imported_called_or_opened(readings):
    assert len(readings) > 80
    assert {path: seen["events"] for path, seen in readings.items() if path != "peak" and seen["events"]} == {}
    assert not Path("/tmp/maskfast-was-here").exists()


def test_reading_is_quick_and_small(readings):
    slow = {path: seen["seconds"] for path, seen in readings.items() if path != "peak" and seen["seconds"] > 3}
    assert slow == {}
    assert readings["peak"] < 2**30


def test_the_watcher_sees_what_pickle_would_do(tmp_path):
    """The test of the test: the same hook is told when the pickle is really opened."""
    code = WATCHER.replace(
        "export = read_export(path)", "import pickle; pickle.loads(open(path, 'rb').read()); continue"
    )
    code = code.replace("watching = False\n    results[path]", "results[path]").replace(
        "; continue", "; export = None; 1/0"
    )
    code = code.replace("except BundleError as caught", "except ZeroDivisionError as caught")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(hostile_pickles.Reduced(eval, "1+1")))
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "plain.pkl"], capture_output=True, text=True, check=True
    )
    events = json.loads(done.stdout)[str(tmp_path / "plain.pkl")]["events"]
    assert any(event.startswith("pickle.find_class") for event in events)
    assert any(event.startswith("exec") for event in events)


def test_an_inert_reading_says_what_would_have_been_called():
    found = read_pickle(hostile_pickles.list_hostile()["getattr-chain"], name="x")
    assert found.calls["builtins.getattr"] == 1
    assert found.calls["builtins.__import__"] == 1
    computed = read_pickle(b"cos\nsystem\n(Vid\ntRVx\n\x85R.", name="x")
    assert computed.calls["(something that the pickle itself computes)"] == 1


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_as_they_are(protocol):
    value = {"a": [1, -2, 2**70, 1.5, "é", b"\0\xff", None, True], "b": (1, (2, 3)), "c": {}}
    read = read_pickle(pickle.dumps(value, protocol=protocol), name="x").value
    assert isinstance(read, Pairs)
    numbers = read.get("a")
    bytes_value = numbers[5] if isinstance(numbers[5], bytes) else numbers[5].args[0].encode("latin-1")
    assert [*numbers[:5], bytes_value, *numbers[6:]] == value["a"]
    assert read.get("b") == value["b"]
    assert read.get("c").pairs == []


def test_tensors_are_what_torch_saved(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "plain": torch.randn(3, 4, generator=generator),
        "turned": torch.randn(3, 4, generator=generator).t(),
        "part": torch.arange(20.0)[4:16:3],
        "half": torch.randn(5, generator=generator).half(),
        "bfloat": torch.randn(5, generator=generator).bfloat16(),
        "long": torch.arange(4),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(tensors, tmp_path / "tensors.pkl")
    archive = open_torch_zip(tmp_path / "tensors.pkl")
    for key, node in archive.pickle.value.pairs:
        array = archive.read_tensor(node)
        expected = tensors[key].detach()
        expected = expected.float() if expected.dtype == torch.bfloat16 else expected
        assert array.shape == tuple(expected.shape)
        assert torch.equal(torch.from_numpy(array), expected), key


def rebuild(size, strides, offset=0, count=4, key="0", kind="Float"):
    """A pickle of one tensor, described as told."""
    storage = (
        b"(X\x07\0\0\0storagectorch\n" + kind.encode() + b"Storage\nX" + struct.pack("<I", len(key)) + key.encode()
        + b"X\x03\x00\x00\x00cpuJ" + struct.pack("<i", count) + b"tQ"
    )  # fmt: skip
    numbers = b"".join(
        b"(" + b"".join(b"J" + struct.pack("<i", each) for each in row) + b"t" for row in (size, strides)
    )
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"J"
        + struct.pack("<i", offset)
        + numbers
        + b"\x89)tR."
    )


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"size": (4,), "strides": (1,), "count": 5}, "reaches beyond"),
        ({"size": (4,), "strides": (1,), "offset": 1}, "reaches beyond"),
        ({"size": (2, 2), "strides": (4, 1)}, "reaches beyond"),
        ({"size": (1_000_000, 1_000_000), "strides": (0, 0)}, "reaches beyond"),
        ({"size": (-4,), "strides": (1,)}, "no row of whole numbers"),
        ({"size": (4,), "strides": (-1,)}, "no row of whole numbers"),
        ({"size": (4,), "strides": (1,), "offset": -1}, "no row of whole numbers"),
        ({"size": (4, 1), "strides": (1,)}, "no row of whole numbers"),
        ({"size": (4,), "strides": (1,), "key": "../../etc/passwd"}, "is missing"),
        ({"size": (4,), "strides": (1,), "kind": "Untyped"}, "unknown type"),
    ],
)
def test_a_tensor_stays_inside_its_storage(tmp_path, told, message):
    hostile_pickles.write_archive(tmp_path / "x.pkl", rebuild(**told), **{"data/0": struct.pack("<4f", 1, 2, 3, 4)})
    archive = open_torch_zip(tmp_path / "x.pkl")
    with pytest.raises(BundleError, match=message):
        archive.read_tensor(archive.pickle.value)


def test_the_same_description_within_bounds_is_read(tmp_path):
    hostile_pickles.write_archive(
        tmp_path / "x.pkl", rebuild((2, 2), (1, 2)), **{"data/0": struct.pack("<4f", 1, 2, 3, 4)}
    )
    archive = open_torch_zip(tmp_path / "x.pkl")
    assert archive.read_tensor(archive.pickle.value).tolist() == [[1, 3], [2, 4]]


def test_a_packed_or_doubled_or_foreign_archive_is_refused(tmp_path):
    path = tmp_path / "x.pkl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"N." + b"\0" * 10_000_000)
    with pytest.raises(BundleError, match="is packed"):
        read_export(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"N.")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("archive/data.pkl", b"N.")
    with pytest.raises(BundleError, match="comes twice"):
        read_export(path)
    hostile_pickles.write_archive(path, b"N.", byteorder=b"big")
    with pytest.raises(BundleError, match="big-endian"):
        read_export(path)
    torch.save([1], path, _use_new_zipfile_serialization=False)
    with pytest.raises(BundleError, match="is no zip archive of"):
        read_export(path)
    with pytest.raises(BundleError, match="no such file"):
        read_export(tmp_path / "gone.pkl")
    with pytest.raises(BundleError, match="is a folder"):
        read_export(tmp_path)


def test_inspect_tells_about_a_hostile_file(tmp_path):
    hostile_pickles.write_archive(tmp_path / "x.pkl", hostile_pickles.list_hostile()["reduce-2"])
    found = inspect_file(tmp_path / "x.pkl")
    assert any(name.endswith("system") for name in found["unusual"])
    assert any(name.endswith("system") for name in found["calls"])
    assert "no fastai Learner" in found["rebuilt"]


OPCODES = [bytes([code]) for code in range(256)]
PIECES = st.one_of(
    st.sampled_from(OPCODES),
    st.binary(max_size=6),
    st.sampled_from(
        [b"cos\nsystem\n", b"X\x01\x00\x00\x00a", b"K\x01", b"(", b"]", b"}", b")", b"q\x00", b"h\x00", b"R", b"b"]
    ),
)


@settings(max_examples=400, deadline=1000)
@given(st.lists(PIECES, max_size=40).map(b"".join))
def test_any_bytes_are_a_value_or_the_one_error(content):
    try:
        found = read_pickle(content, name="fuzz")
    except BundleError:
        return
    assert sum(1 for _ in walk(found.value)) <= 3 * found.opcodes, "shared values are walked once"


@settings(max_examples=150, deadline=2000)
@given(st.data())
def test_a_damaged_export_is_the_one_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged", numbered=True)
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    torch.save({"model": network, "x": [torch.ones(2)]}, folder / "whole.pkl")
    content = bytearray((folder / "whole.pkl").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "damaged.pkl").write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        inspect_file(folder / "damaged.pkl")
    except MaskfastError:
        return
