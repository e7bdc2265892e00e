import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crashing import CrashingPicture

from maskfast.apps.cli.main import run
from maskfast.apps.cluster.engine import ClusterOptions, score_cluster
from maskfast.apps.cluster.session import check_address, open_ray
from maskfast.apps.cluster.sources import list_pictures
from maskfast.apps.cluster.stages import Model, decode_block, read_bundle_files
from maskfast.bundle.verify import verify_bundle
from maskfast.core.errors import ConfigError, DataError
from maskfast.score.batch import score_to_file
from maskfast.score.loading import load

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra maskfast[ray]")

SMALL = ClusterOptions(partition=64)


@pytest.fixture(scope="module")
def ray():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr("maskfast.apps.cluster.session.count_cores", lambda: 2)
        with open_ray() as ray:
            yield ray


@pytest.fixture(scope="module")
def pictures(picture_folder, tmp_path_factory):
    """Two hundred pictures of a few kinds and three files that are none."""
    folder = tmp_path_factory.mktemp("many")
    sources = sorted(picture_folder.iterdir())
    for index in range(200):
        source = sources[index % len(sources)]
        os.link(source, folder / f"{index:03d}{source.suffix}")
    (folder / "070-empty.jpg").write_bytes(b"")
    (folder / "071-text.png").write_text("no picture")
    (folder / "130-cut.jpg").write_bytes((picture_folder / "0.jpg").read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def local(pictures, toy_bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "rows.parquet"
    score_to_file(load(toy_bundle), [pictures], out)
    return pq.read_table(out)


@pytest.fixture(scope="module")
def undisturbed(ray, pictures, toy_bundle, tmp_path_factory):
    assert ray.is_initialized()
    out = tmp_path_factory.mktemp("cluster") / "out"
    score_cluster([pictures], out, model=toy_bundle, options=SMALL)
    return out


def read_parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read_rows(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])


def list_processes_below(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]


def read_command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def kill_workers(*kinds: str) -> int:
    """Kill the Ray worker processes of this test that are named after one of `kinds`; return how many."""
    names = [f"ray::{kind}" for kind in kinds]
    pids = [pid for pid in list_processes_below(os.getpid()) if read_command(pid).startswith(tuple(names))]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


def test_rows_are_those_of_the_local_engine(undisturbed, local):
    rows = read_rows(undisturbed)
    assert rows.schema.equals(local.schema)
    assert rows.to_pylist() == local.to_pylist()
    assert rows.column("status").to_pylist().count("failed") == 3


def test_the_manifest_lists_every_file_with_its_checksum(undisturbed):
    manifest = json.loads((undisturbed / "manifest.json").read_text())
    assert (manifest["complete"], manifest["rows"], manifest["failed"]) == (True, 203, 3)
    files = {each["file"]: (each["rows"], each["sha256"]) for each in manifest["partitions"]}
    assert files == {
        path.name: (pq.read_metadata(path).num_rows, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in undisturbed.glob("*.parquet")
    }
    assert [rows for rows, _ in files.values()] == [64, 64, 64, 11]


def test_lost_workers_cost_no_row_and_make_none_twice(undisturbed, pictures, toy_bundle, tmp_path):
    killed = []

    def track(partitions):
        for partition in partitions:
            if len(killed) < 2:
                killed.append(kill_workers(*(("Scorer",), ("decode_and", "IDLE"))[len(killed)]))
            yield partition

    score_cluster([pictures], tmp_path / "out", model=toy_bundle, options=SMALL, track=track)
    assert all(killed)
    assert read_parts(tmp_path / "out") == read_parts(undisturbed)


def test_a_stopped_run_goes_on_from_its_finished_partitions(undisturbed, pictures, toy_bundle, tmp_path):
    def stop(partitions):
        yield next(iter(partitions))
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        score_cluster([pictures], out, model=toy_bundle, options=SMALL, track=stop)
    assert not json.loads((out / "manifest.json").read_text())["complete"]
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert kept
    counts = score_cluster([pictures], out, model=toy_bundle, options=SMALL)
    assert counts.resumed == sum(pq.read_metadata(path).num_rows for path in kept)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert read_parts(out) == read_parts(undisturbed)


def test_damaged_and_foreign_partitions_are_not_taken_for_finished(undisturbed, pictures, toy_bundle, tmp_path):
    out = shutil.copytree(undisturbed, tmp_path / "out")
    first, second = sorted(out.glob("*.parquet"))[:2]
    first.write_bytes(first.read_bytes()[:-9])
    second.rename(out / "part-00000001-0123456789abcdef.parquet")
    counts = score_cluster([pictures], out, model=toy_bundle, options=SMALL)
    assert counts.resumed == 203 - 2 * 64
    assert read_parts(out) == read_parts(undisturbed)


def test_a_folder_of_another_run_is_refused(undisturbed, pictures, toy_bundle, tmp_path):
    with pytest.raises(ConfigError, match="another run"):
        score_cluster([pictures], undisturbed, model=toy_bundle, options=ClusterOptions(partition=64, tta=True))
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds files but no manifest\.json"):
        score_cluster([pictures], tmp_path, model=toy_bundle)
    with pytest.raises(ConfigError, match="name a folder"):
        score_cluster([pictures], tmp_path / "rows.csv", model=toy_bundle)
    with pytest.raises(ConfigError, match="multiple of 64"):
        score_cluster([pictures], tmp_path / "new", model=toy_bundle, options=ClusterOptions(partition=100))


@pytest.fixture
def memory(picture_folder):
    """A memory: filesystem with the folder /album of pictures, one of them in a folder of its own."""
    fsspec = pytest.importorskip("fsspec")
    filesystem = fsspec.filesystem("memory")
    for path in sorted(picture_folder.iterdir()):
        place = "inner/" if path.name == "3.jpg" else ""
        filesystem.pipe_file(f"/album/{place}{path.name}", path.read_bytes())
    filesystem.pipe_file("/album/notes.txt", b"no picture")
    yield filesystem
    filesystem.rm("/", recursive=True)


@pytest.mark.usefixtures("ray")
def test_urls_go_in_and_come_out(memory, picture_folder, toy_bundle):
    counts = score_cluster(["memory://album"], "memory://scores", model=toy_bundle)
    assert (counts.images, counts.failed) == (12, 0)
    (name,) = [path for path in memory.ls("/scores", detail=False) if path.endswith(".parquet")]
    rows = pq.read_table(pa.BufferReader(memory.cat_file(name))).to_pylist()
    predictor = load(toy_bundle)
    assert [row["image"] for row in rows][-1] == "memory:///album/inner/3.jpg"
    for row in rows:
        expected = predictor.predict(picture_folder / Path(row["image"]).name).probability
        assert row["probability"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.usefixtures("memory")
def test_patterns_and_lists_are_read_in_order(picture_folder, tmp_path, monkeypatch):
    names = [name for name, _ in list_pictures(["memory://album/*.png"])]
    assert names == [f"memory:///album/{index}.png" for index in (1, 4, 7, 10)]
    listed = ["2.webp", str(picture_folder / "0.jpg"), "memory://album/1.png", "gone.jpg"]
    (tmp_path / "list.csv").write_text("label,path\n" + "".join(f"1,{name}\n" for name in listed))
    pq.write_table(pa.table({"image": listed}), tmp_path / "list.parquet")
    monkeypatch.chdir(tmp_path)
    for table in ("list.csv", "list.parquet"):
        found = dict(list_pictures([table]))
        assert list(found) == listed
        assert found["gone.jpg"] == tmp_path / "gone.jpg"
        assert found["memory://album/1.png"] == (picture_folder / "1.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.csv", "file,label\na.jpg,1\n", "columns file, label; one of them must be path"),
        ("list.csv", "label,path\n1\n", "line 2: has 1 columns"),
        ("list.csv", "path\n", "no pictures there"),
        ("list.csv", "", r"columns \(none\)"),
    ],
)
def test_a_bad_list_says_what_is_wrong(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        list(list_pictures([tmp_path / name]))


@pytest.mark.parametrize(
    ("url", "message"), [("memory://nowhere/*", "no pictures there"), ("gopher://a/b", "gopher://a/b: .*[Pp]rotocol")]
)
def test_a_bad_url_says_what_is_wrong(url, message):
    with pytest.raises(DataError, match=message):
        list(list_pictures([url]))


def test_a_picture_that_crashes_its_decoder_costs_its_row_alone(picture_folder):
    good = picture_folder / "0.jpg"
    decoded = decode_block([("a", good), ("crash", CrashingPicture()), ("b", good)], 32, "squish")
    pairs = dict(decoded.list_pairs())
    assert "crash" in pairs["crash"].reason
    assert (pairs["a"] == pairs["b"]).all()


def test_a_machine_without_the_folder_gets_the_bundles_files(ray, toy_bundle):
    manifest = (toy_bundle / "bundle.json").read_bytes()
    reference = ray.put(read_bundle_files(toy_bundle))
    assert Model(str(toy_bundle), manifest, [reference]).open() == toy_bundle
    elsewhere = Model("/nowhere/model", manifest, [reference]).open()
    assert verify_bundle(elsewhere) == verify_bundle(toy_bundle)
    shutil.rmtree(elsewhere.parent)


@pytest.mark.usefixtures("ray")
def test_ray_listens_on_loopback_only():
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            loopback = fields[1].startswith(("0100007F:", "0" * 24 + "01000000:", "0000000000000000FFFF00000100007F:"))
            if fields[3] == "0A" and not loopback:
                inodes.add(f"socket:[{fields[9]}]")
    ours = list_processes_below(os.getpid())
    assert any("raylet" in read_command(pid) for pid in ours)
    for pid in [os.getpid(), *ours]:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            assert target not in inodes, f"{read_command(pid)} listens beyond loopback"


def test_a_ray_imported_too_early_to_be_kept_on_loopback_is_refused():
    code = "import ray; from maskfast.apps.cluster.session import open_ray\nwith open_ray(): pass"
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=env)
    assert "ConfigError: Ray would listen on" in done.stderr.splitlines()[-1]


def test_no_cluster_at_the_address_is_one_line_soon(monkeypatch):
    monkeypatch.setattr("maskfast.apps.cluster.session.PROBE_SECONDS", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ConfigError, match=r"no Ray cluster answers within 4 seconds"):
            check_address(f"127.0.0.1:{port}")
    start = time.monotonic()
    with pytest.raises(ConfigError, match="nothing answers there"):
        check_address(f"127.0.0.1:{port}")
    assert time.monotonic() - start < 5
    for wrong in ("ray://localhost:10001", "localhost", "localhost:x"):
        with pytest.raises(ConfigError, match="give auto, or host:port"):
            check_address(wrong)


@pytest.mark.usefixtures("ray")
def test_command_line(pictures, toy_bundle, tmp_path, capsys):
    command = ["predict", str(pictures), "--model", str(toy_bundle), "--engine", "ray", "--out", str(tmp_path / "out")]
    assert run([*command, "--json", "--quiet"]) == 1
    printed = capsys.readouterr()
    counts = json.loads(printed.out)
    assert (counts["images"], counts["failed"], printed.err) == (203, 3, "")
    assert counts["first_failure"].endswith("070-empty.jpg: empty file")
    assert run([*command[:4], "--address", "auto"]) == 2
    assert "add --engine ray" in capsys.readouterr().err


def test_without_ray_one_line_says_what_to_install(pictures, toy_bundle, tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.split(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["predict", str(pictures), "--model", str(toy_bundle), "--engine", "ray", "--out", str(tmp_path / "out")]
    assert run(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "maskfast: ray is not installed; install it with: pip install 'maskfast[ray]'"
