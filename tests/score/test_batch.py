import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest

import maskfast.score.batch
import maskfast.score.decode_worker
from maskfast.core.errors import ConfigError, ImageError, MaskfastError
from maskfast.core.image import load_image
from maskfast.score.batch import score_inputs, score_to_file
from maskfast.score.decoders import DecoderPool
from maskfast.score.loading import load
from maskfast.score.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(toy_bundle):
    return load(toy_bundle)


@pytest.fixture(scope="module")
def many(tmp_path_factory, picture_folder):
    """Five batches of pictures, some of them broken."""
    folder = tmp_path_factory.mktemp("many")
    originals = sorted(picture_folder.iterdir())
    for index in range(150):
        shutil.copy(originals[index % len(originals)], folder / f"{index:03}.jpg")
    (folder / "007.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    (folder / "041.jpg").write_bytes(b"")
    return folder


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_scored_as_its_pictures_are(predictor, picture_folder):
    df = predictor.predict_folder(picture_folder)
    assert list(df.columns) == ["image", "probability", "label", "status", "reason"]
    assert [os.path.basename(name) for name in df["image"]] == sorted(
        os.listdir(picture_folder), key=lambda name: int(name.split(".")[0])
    )
    for row in df.itertuples():
        alone = predictor.predict(row.image)
        assert row.probability == pytest.approx(alone.probability, abs=1e-6)
        assert row.label == alone.label


def test_a_name_that_is_no_unicode_costs_nothing(predictor, picture_folder, tmp_path):
    for name in ("a.jpg", "b\udcff.jpg"):
        shutil.copy(picture_folder / "0.jpg", tmp_path / name)
    df = predictor.predict_folder(tmp_path)
    assert list(df["image"]) == [f"{tmp_path}/a.jpg", f"{tmp_path}/b\ufffd.jpg"]
    assert df["probability"].nunique() == 1


def test_formats_agree_and_a_zip_is_scored_in_place(predictor, picture_folder, tmp_path):
    archive = tmp_path / "album.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in picture_folder.iterdir():
            zipped.write(path, f"inner/{path.name}")
    for suffix in (".csv", ".jsonl", ".parquet"):
        counts = score_to_file(predictor, [archive], tmp_path / f"rows{suffix}")
        assert (counts.images, counts.failed, counts.resumed) == (12, 0, 0)
    rows = read_rows(tmp_path / "rows.csv")
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == [
        row | {"probability": float(row["probability"])} for row in rows
    ]
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == [
        row | {"probability": float(row["probability"])} for row in rows
    ]
    direct = predictor.predict_folder(picture_folder)["probability"]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], direct, atol=1e-7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["album.zip", "rows.csv", "rows.jsonl", "rows.parquet"]


def test_broken_and_missing_pictures_are_rows(predictor, many, tmp_path):
    counts = score_to_file(predictor, [many, many / "gone.jpg"], tmp_path / "rows.csv")
    assert (counts.images, counts.failed) == (151, 3)
    failed = [row for row in read_rows(tmp_path / "rows.csv") if row["status"] == "failed"]
    assert [os.path.basename(row["image"]) for row in failed] == ["007.jpg", "041.jpg", "gone.jpg"]
    assert all(row["probability"] == "" and row["label"] == "" and row["reason"] for row in failed)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(toy_bundle, predictor, many, tmp_path, suffix):
    score_to_file(predictor, [many], tmp_path / f"whole{suffix}")
    out = tmp_path / f"killed{suffix}"
    code = (
        "import os, signal\n"
        "from maskfast import load\n"
        "from maskfast.score.batch import score_to_file\n"
        "def stop(rows, total, done):\n"
        "    for count, row in enumerate(rows):\n"
        "        if count == 70: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield row\n"
        f"score_to_file(load({str(toy_bundle)!r}), [{str(many)!r}], {str(out)!r}, track=stop)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    partial = out.with_name(out.name + ".partial")
    partial.write_bytes(partial.read_bytes() + b'{"image": "torn in the mid')
    counts = score_to_file(predictor, [many], out)
    assert counts.resumed == 96
    assert out.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert not partial.exists()


def stop(rows, *_):
    for count, row in enumerate(rows):
        if count == 70:
            raise KeyboardInterrupt
        yield row


def test_rows_of_another_run_are_not_used(predictor, many, picture_folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        score_to_file(predictor, [many], tmp_path / "rows.csv", track=stop)
    counts = score_to_file(predictor, [picture_folder], tmp_path / "rows.csv")
    assert (counts.images, counts.resumed) == (12, 0)


@pytest.mark.parametrize(
    ("change", "resumed"),
    [({"created": "2001-01-01"}, 96), ({"config": {"sha256": "of another file"}}, 0), ({"temperature": 3.0}, 0)],
)
def test_rows_of_another_model_are_not_used(predictor, many, tmp_path, change, resumed):
    with pytest.raises(KeyboardInterrupt):
        score_to_file(predictor, [many], tmp_path / "rows.csv", track=stop)
    other = Predictor(predictor.manifest.model_copy(update=change), predictor.backend)
    assert score_to_file(other, [many], tmp_path / "rows.csv").resumed == resumed


def test_rows_of_another_version_are_not_used(predictor, many, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        score_to_file(predictor, [many], tmp_path / "rows.csv", track=stop)
    monkeypatch.setattr(maskfast.score.batch, "__version__", "another")
    assert score_to_file(predictor, [many], tmp_path / "rows.csv").resumed == 0


def test_rows_from_a_changed_picture_on_are_scored_again(predictor, many, tmp_path):
    folder = shutil.copytree(many, tmp_path / "many")
    with pytest.raises(KeyboardInterrupt):
        score_to_file(predictor, [folder], tmp_path / "rows.csv", track=stop)
    shutil.copy(folder / "001.jpg", folder / "040.jpg")
    assert score_to_file(predictor, [folder], tmp_path / "rows.csv").resumed == 32
    score_to_file(predictor, [folder], tmp_path / "whole.csv")
    assert (tmp_path / "rows.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_name_too_long_for_what_is_kept_is_one_line(predictor, picture_folder, tmp_path):
    out = tmp_path / f"{'n' * 249}.csv"
    with pytest.raises(MaskfastError, match=r"n\.csv: File name too long$"):
        score_to_file(predictor, [picture_folder], out)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_finished_rows(toy_bundle, predictor, many, tmp_path):
    out = tmp_path / "rows.csv"
    code = (
        "import resource\n"
        "from maskfast import load\n"
        "from maskfast.score.batch import score_to_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))\n"
        f"score_to_file(load({str(toy_bundle)!r}), [{str(many)!r}], {str(out)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MaskfastError: " + str(out) + ": File too large; finished rows are kept, run the same again" in done.stderr
    assert not out.exists()
    assert score_to_file(predictor, [many], out).resumed > 0
    score_to_file(predictor, [many], tmp_path / "whole.csv")
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_unknown_ending_is_refused_before_anything_is_scored(predictor, tmp_path):
    with pytest.raises(ConfigError, match=r"\.csv, \.jsonl, \.parquet"):
        score_to_file(predictor, [tmp_path / "nothing"], tmp_path / "rows.xls")


def test_a_vanished_file_costs_its_row(predictor, many, tmp_path):
    folder = shutil.copytree(many, tmp_path / "many")
    rows = score_inputs(predictor, [folder])
    first = next(rows)
    (folder / "149.jpg").unlink()
    rest = list(rows)
    assert first.status == "ok"
    assert rest[-1].status == "failed"
    assert "no such file" in rest[-1].reason
    assert [row.status for row in rest].count("failed") == 3


class Crash:
    """A picture that ends the process that reads it, as a broken decoder would."""

    def read_bytes(self):
        os.kill(os.getpid(), signal.SIGSEGV)


class Hang:
    """A picture whose decoder never comes back."""

    def read_bytes(self):
        time.sleep(600)


@pytest.fixture
def importable(monkeypatch):
    """Let the worker processes import this file's classes."""
    monkeypatch.syspath_prepend(os.path.dirname(__file__))


@pytest.mark.usefixtures("importable")
def test_a_crash_and_a_hang_cost_their_rows_alone(predictor, picture_folder):
    good = [(path.name, path) for path in sorted(picture_folder.iterdir())]
    pairs = [*good[:5], ("crash", Crash()), *good[5:7], ("hang", Hang()), *good[7:]]
    with DecoderPool(predictor.size, predictor.method, seconds=5) as pool:
        rows = list(predictor.predict_many(pairs, decode=pool.decode, batch_size=4))
    assert [row.image for row in rows] == [name for name, _ in pairs]
    reasons = {row.image: row.reason for row in rows if row.status == "failed"}
    assert reasons == {
        "crash": "the decoder crashed on it (exit code -11)",
        "hang": "decoding took more than 5 seconds",
    }


def test_workers_give_the_loaders_pixels_and_end_with_the_pool(picture_folder):
    with DecoderPool(64, "pad") as pool:
        for path in picture_folder.iterdir():
            assert np.array_equal(pool.decode(path.name, path), load_image(path, 64, "pad"))
        refusal = pool.decode("junk", b"GIF89a nonsense")
        (worker,) = pool._all
    assert isinstance(refusal, ImageError)
    assert refusal.name == "junk"
    assert worker._process.poll() == 0


def test_a_worker_starts_without_numpy_and_reads_usual_pictures_so(picture_folder):
    code = (
        "import sys; from pathlib import Path; from maskfast.score.decode_worker import decode; "
        "sizes = [decode(path.name, path, 64, 'pad').size for path in sorted(Path(sys.argv[1]).iterdir())]; "
        "print(len(sizes), set(sizes), 'numpy' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(picture_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == f"{len(list(picture_folder.iterdir()))} {{(64, 64)}} False"


def test_a_worker_killed_from_outside_costs_no_picture(picture_folder):
    paths = sorted(picture_folder.iterdir())[:2]
    with DecoderPool(64, "pad") as pool, ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda path: pool.decode(path.name, path), paths))
        for worker in pool._all:
            os.kill(worker._process.pid, signal.SIGKILL)
        assert np.array_equal(pool.decode("again", paths[0]), load_image(paths[0], 64, "pad"))


def test_a_worker_that_cannot_start_is_an_error_and_no_row(predictor, picture_folder, monkeypatch):
    monkeypatch.setattr(maskfast.score.decode_worker, "_START", "raise SystemExit(3)")
    with pytest.raises(MaskfastError, match="cannot start a process"):
        list(score_inputs(predictor, [picture_folder]))


def test_a_stopped_stream_leaves_no_process(predictor, many):
    rows = score_inputs(predictor, [many])
    next(rows)
    rows.close()
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True).stdout
    assert "decode_worker" not in children
