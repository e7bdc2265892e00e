"""Runs that are interrupted: whatever happens, the last whole state stays, and going on ends in the same weights."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from killing import KilledError, kill_at_batch
from toys import draw_toy

from maskfast.core.config import make_config
from maskfast.core.errors import ConfigError
from maskfast.learn import checkpoint
from maskfast.learn import train as training
from maskfast.learn.checkpoint import Checkpointer, InterruptedTraining, load_checkpoint, save_checkpoint
from maskfast.learn.progress import Progress
from maskfast.learn.runs import name_run_folder
from maskfast.learn.train import is_out_of_memory, resume_training, run_training

TOY = {"arch": "simple_cnn", "weights": "none", "size": 32, "epochs": 3, "batch_size": 8, "lr": 0.02, "ema": 0.9,
       "optimizer": "muon", "checkpoint_minutes": 1e-9}  # fmt: skip


def configure(toy: Path, out: Path, **changes: Any) -> Any:
    return make_config({**TOY, "data": [str(toy)], "out": out, **changes})


def weights(run: Any) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in run.learn.model.state_dict().items()}


@pytest.fixture(autouse=True, scope="module")
def no_onnx() -> Iterator[None]:
    draft = training.draft_bundle
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "draft_bundle", lambda *parts: replace(draft(*parts), onnx=False))
        yield


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_toy(tmp_path_factory.mktemp("resume") / "toy")


@pytest.fixture(scope="module")
def undisturbed(toy: Path) -> dict[str, torch.Tensor]:
    return weights(run_training(configure(toy, toy.parent / "whole")))


@pytest.mark.parametrize("batch", [1, 3, 6])
def test_a_killed_run_ends_in_the_same_weights(
    batch: int, toy: Path, tmp_path: Path, undisturbed: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(toy, tmp_path / "model")
    with monkeypatch.context() as patch:
        kill_at_batch(patch, batch)
        with pytest.raises(KilledError):
            run_training(config)
    assert not (tmp_path / "model").exists()
    torch.rand(3)
    resumed = resume_training(make_config({"out": tmp_path / "model"}))
    found = weights(resumed)
    assert all(found[key].equal(value) for key, value in undisturbed.items())
    assert not name_run_folder(tmp_path / "model").exists()
    assert len(resumed.manifest.sha256) > 3


def test_folds_go_on_too(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_training(configure(toy, tmp_path / "a", folds=2, epochs=2))
    with monkeypatch.context() as patch:
        kill_at_batch(patch, 6)  # in the second fold
        with pytest.raises(KilledError):
            run_training(configure(toy, tmp_path / "b", folds=2, epochs=2))
    resumed = resume_training(make_config({"out": tmp_path / "b"}))
    for name, digest in whole.manifest.sha256.items():
        if name.endswith(".safetensors"):
            assert resumed.manifest.sha256[name] == digest


def test_an_interrupt_saves_and_says_how_to_go_on(
    toy: Path, tmp_path: Path, undisturbed: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    after_batch = Checkpointer.after_batch

    def press(self: Checkpointer) -> None:
        if self.learn.training and self.progress.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        after_batch(self)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "after_batch", press)
        with pytest.raises(InterruptedTraining):
            run_training(configure(toy, tmp_path / "model", checkpoint_minutes=5))
    assert f"--resume --out {tmp_path / 'model'}" in caplog.text
    found = weights(resume_training(make_config({"out": tmp_path / "model"})))
    assert all(found[key].equal(value) for key, value in undisturbed.items())


@pytest.mark.parametrize(("minutes", "saved"), [(5, [0, 2, 4, 6]), (0.25, [0, 2, 4, 6]), (0.1, list(range(8)))])
def test_short_epochs_are_not_all_saved(
    minutes: float, saved: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs of ten seconds, with a save that takes one: two of them are twenty times as long."""
    now, epochs = [0.0], []

    def save(_path: Path, _state: dict[str, Any]) -> None:
        epochs.append(saver.learn.epoch)
        now[0] += 1

    monkeypatch.setattr(checkpoint, "save_checkpoint", save)
    monkeypatch.setattr(checkpoint, "capture_state", lambda _learn, _progress: {})
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    saver = Checkpointer(tmp_path / "checkpoint.pt", Progress(), minutes=minutes)
    for epoch in range(8):
        saver.learn = SimpleNamespace(epoch=epoch)
        now[0] += 10
        saver.after_epoch()
    assert epochs == saved


def test_a_second_interrupt_stops_at_once() -> None:
    with training.watch_interrupts() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_save_that_is_killed_at_any_file_operation_leaves_a_whole_state(tmp_path: Path) -> None:
    path, operation = tmp_path / "checkpoint.pt", 0
    old, new = {"format": 1, "value": torch.zeros(100)}, {"format": 1, "value": torch.ones(100)}
    save_checkpoint(path, old)
    while True:
        operation += 1
        child = os.fork()
        if child == 0:
            _die_at(operation)
            save_checkpoint(path, new)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        value = load_checkpoint(path)["value"]
        assert value.equal(old["value"]) or value.equal(new["value"])
        if code == 0:
            break
        assert operation < 100
    assert operation > 4
    assert load_checkpoint(path)["value"].equal(new["value"])


def _die_at(operation: int) -> None:
    seen = [0]

    def watch(event: str, _arguments: Any) -> None:
        if event == "open" or event.startswith(("os.", "tempfile.")):
            seen[0] += 1
            if seen[0] == operation:
                os._exit(9)

    sys.addaudithook(watch)


def test_a_full_disk_leaves_the_last_state(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"format": 1, "value": torch.zeros(10)})
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            save_checkpoint(path, {"format": 1, "value": torch.zeros(100_000)})
        except (OSError, RuntimeError):
            os._exit(errno.ENOSPC)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.ENOSPC
    assert load_checkpoint(path)["value"].equal(torch.zeros(10))
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"x\.pt"):
        load_checkpoint(tmp_path / "x.pt")
    torch.save({"format": 0}, tmp_path / "x.pt")
    with pytest.raises(ConfigError, match="another version"):
        load_checkpoint(tmp_path / "x.pt")


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no interrupted training"):
        resume_training(make_config({"out": tmp_path / "model"}))


def test_other_options_and_other_data_are_refused(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        kill_at_batch(patch, 1)
        with pytest.raises(KilledError):
            run_training(configure(toy, out))
    with pytest.raises(ConfigError, match="epochs"):
        resume_training(make_config({"out": out, "epochs": 9}))
    (name_run_folder(out) / "items.sha256").write_text("0" * 64)
    with pytest.raises(ConfigError, match="data changed"):
        resume_training(make_config({"out": out}))


def test_a_second_training_into_the_same_folder_is_refused(toy: Path, tmp_path: Path) -> None:
    folder = name_run_folder(tmp_path / "model")
    folder.mkdir()
    with FileLock(folder / "lock"), pytest.raises(ConfigError, match="another training"):
        run_training(configure(toy, tmp_path / "model"))


def test_out_of_memory_halves_the_batch(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fit = training.fit_fold

    def run_out(items: Any, setting: Any, **options: Any) -> Any:
        if setting.config.batch_size > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return fit(items, setting, **options)

    monkeypatch.setattr(training, "fit_fold", run_out)
    run = run_training(configure(toy, tmp_path / "model", epochs=1))
    assert run.manifest.config["batch_size"] == 4
    assert "begins again with 4" in caplog.text
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_a_dead_worker_is_named_and_forgiven_once(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fit, died = training.fit_fold, []

    def lose_worker(items: Any, setting: Any, **options: Any) -> Any:
        if len(died) < limit:
            died.append(1)
            raise RuntimeError("DataLoader worker (pid(s) 4711) exited unexpectedly")
        return fit(items, setting, **options)

    monkeypatch.setattr(training, "fit_fold", lose_worker)
    limit = 1
    run_training(configure(toy, tmp_path / "model", epochs=1))
    assert "4711" in caplog.text
    limit = 3
    with pytest.raises(RuntimeError, match="4711"):
        run_training(configure(toy, tmp_path / "model", epochs=1))


@pytest.mark.slow
def test_a_real_run_goes_on_after_kill_9(toy: Path, tmp_path: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    out = tmp_path / "model"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TOY.items()]
    command = [sys.executable, "-m", "maskfast", "train", str(toy), *flags, f"--out={out}"]
    child = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not (name_run_folder(out) / "checkpoint.pt").exists() and child.poll() is None:
        time.sleep(0.05)
    child.kill()
    child.wait()
    found = weights(resume_training(make_config({"out": out})))
    assert all(found[key].equal(value) for key, value in undisturbed.items())
