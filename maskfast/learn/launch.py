"""A configuration goes in, one `maskfast train` a device runs together on this machine, one exit code comes out."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from maskfast.core.config import TrainConfig
from maskfast.core.cores import count_cores
from maskfast.core.errors import ConfigError
from maskfast.core.extras import import_extra

POLL_SECONDS = 0.1


def launch_training(config: TrainConfig, devices: int, *, flags: Sequence[str] = ()) -> int:
    """Run the training of `config` in `devices` processes that talk over loopback; return the first one's exit code.

    `flags` are further ones of `maskfast train`. One process that fails ends the others.
    Raises ConfigError for a number of devices that is not there.
    """
    _check_devices(config, devices)
    import_extra("accelerate", "distributed")
    with tempfile.TemporaryDirectory(prefix="maskfast-devices-") as folder:
        told = Path(folder) / "config.json"
        told.write_text(config.model_dump_json(exclude_unset=True))
        command = [sys.executable, "-m", "maskfast", "train", "--config", str(told), *flags]
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_find_port()), "WORLD_SIZE": str(devices)}
        threads = {"OMP_NUM_THREADS": str(max(1, count_cores() // devices))}
        news = [Path(folder) / f"{rank}.txt" for rank in range(devices)]
        processes = [_start(command, {**threads, **os.environ, **place}, rank, news[rank]) for rank in range(devices)]
        return _wait(processes, news)


def _start(command: list[str], env: dict[str, str], rank: int, news: Path) -> subprocess.Popen[bytes]:
    """Start one process; the first one's news are seen, the others' are kept for the case that they fail."""
    env = env | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    if rank == 0:
        return subprocess.Popen(command, env=env)
    with news.open("wb") as stream:
        return subprocess.Popen(command, env=env, stdout=stream, stderr=stream)


def _wait(processes: list[subprocess.Popen[bytes]], news: list[Path]) -> int:
    try:
        while any(process.poll() is None for process in processes):
            failed = [rank for rank, process in enumerate(processes) if process.poll() not in (None, 0, 1 - bool(rank))]
            if failed:
                return _tell_failure(processes[failed[0]].returncode, failed[0], news)
            time.sleep(POLL_SECONDS)
        return processes[0].returncode
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _tell_failure(code: int, rank: int, news: list[Path]) -> int:
    if rank:
        sys.stderr.write(news[rank].read_text(errors="replace"))
    return code if code > 0 else 2


def _check_devices(config: TrainConfig, devices: int) -> None:
    import torch

    there = torch.cuda.device_count()
    if config.device == "cpu" or (config.device == "auto" and not there):
        there = count_cores()
    if not 1 <= devices <= there:
        raise ConfigError(f"--devices {devices}: this machine has {there}; `maskfast doctor` lists them")


def _find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
