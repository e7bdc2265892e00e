"""A run's folder beside its bundle: who holds it, what it was told, where it stands; and how it is interrupted."""

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from maskfast.core.config import TrainConfig, make_config
from maskfast.core.errors import ConfigError
from maskfast.core.files import write_whole
from maskfast.data.tables import select_usable
from maskfast.learn.checkpoint import load_checkpoint
from maskfast.learn.progress import log
from maskfast.learn.ranks import count_ranks

RUN, CHECKPOINT, LOCK = "run.json", "checkpoint.pt", "lock"


def name_run_folder(out: Path) -> Path:
    """The folder beside the bundle in which a run keeps what it needs to go on, until it is done."""
    return out.absolute().parent / f".{out.absolute().name}.training"


@contextmanager
def hold_run_folder(out: Path) -> Iterator[Path]:
    """Yield the run's folder, held by this process alone; ConfigError where another training holds it."""
    folder = name_run_folder(out)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(f"--out {out}: another training is writing there; wait for it, or name another") from error
    try:
        yield folder
    finally:
        lock.release()


def begin_run(folder: Path, config: TrainConfig) -> None:
    """Forget an older run in `folder`, and write what this one was told."""
    for entry in folder.iterdir():
        if entry.name != LOCK:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    write_whole(folder / RUN, config.model_dump_json(indent=2))


def read_run(out: Path) -> TrainConfig:
    """What the interrupted run into `out` was told; ConfigError where there is none."""
    path = name_run_folder(out) / RUN
    try:
        return make_config(json.loads(path.read_text()), origin=str(path))
    except FileNotFoundError as error:
        raise ConfigError(f"--resume: no interrupted training into {out}; leave the flag out to start one") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is damaged ({error}); leave --resume out to start anew") from error


def name_finished(folder: Path, fold: int) -> Path:
    """The file of a fold's state once it is trained."""
    return folder / f"fold-{fold}.pt"


def read_state(folder: Path, fold: int) -> dict[str, Any] | None:
    """The saved state of a fold: finished, in mid-run, or None where it was not begun."""
    finished = name_finished(folder, fold)
    if finished.is_file():
        return load_checkpoint(finished)
    if (folder / CHECKPOINT).is_file():
        state = load_checkpoint(folder / CHECKPOINT)
        return state if state["progress"]["fold"] == fold else None
    return None


def hash_items(items: pd.DataFrame) -> str:
    """A fingerprint of what is learned from: names, labels and lengths of the usable files, in order."""
    usable = select_usable(items)
    labels, sizes = usable["label"].astype(int).tolist(), [os.path.getsize(path) for path in usable["path"]]
    rows = [list(row) for row in zip(usable["image"], labels, sizes, strict=True)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@contextmanager
def watch_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a question: was the run asked to stop? Ctrl-C and SIGTERM ask first, and stop at once the second time.

    Several processes, which cannot all be asked after the same batch, stop at once; so does a thread.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread() or count_ranks() > 1:
        yield lambda: False
        return

    def ask(number: int, _frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        log.warning("stopping after this batch; once more stops at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
