"""An address, or none, goes in, a connected Ray comes out: an existing cluster, or this machine's cores alone."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from maskfast.core.cores import count_cores
from maskfast.core.errors import ConfigError
from maskfast.core.extras import import_extra

TCP_SECONDS = 4.0
PROBE_SECONDS = 20.0
"""Ray itself waits minutes for a cluster that is not there; both limits together stay below 30 seconds."""
_PROBE = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); ray.shutdown()"
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Set to 0, Ray takes 127.0.0.1 for this machine's address and listens there alone (ray._private.services:
get_node_ip_address), on Linux too; it is read when ray is imported."""
_SILENCE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_IGNORE_UNHANDLED_ERRORS": "1"}
"""No calls home, and no lines about lost results: a lost block is done again, which is logged."""


@contextmanager
def open_ray(address: str | None = None) -> Iterator[ModuleType]:
    """Yield the `ray` module, connected to the cluster at `address` ("auto": the one this machine belongs to).

    Without `address` and without RAY_ADDRESS: a Ray of this machine's cores, which listens on loopback only and ends
    with the block. A Ray that this process is connected to already is used as it is.
    Raises MissingExtraError without ray, ConfigError within 30 seconds for an address where no cluster answers.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    for name, value in (_SILENCE | ({} if address else {_LOOPBACK: "0"})).items():
        os.environ.setdefault(name, value)
    ray = import_extra("ray", "ray")
    if ray.is_initialized():
        yield ray
        return
    _connect(ray, address)
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        ray.init("local", num_cpus=count_cores(), include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        _check_loopback(ray)
        return
    check_address(address)
    ray.init(address, **quiet)


def _check_loopback(ray: Any) -> None:
    """Ray imported before the variable was set, or a Ray that reads another one, listens wherever it likes."""
    host = ray.nodes()[0]["NodeManagerAddress"]
    if host != "127.0.0.1" and os.environ[_LOOPBACK] == "0":
        ray.shutdown()
        raise ConfigError(f"Ray would listen on {host}: import it after {_LOOPBACK}=0 is set, or call ray.init first")


def check_address(address: str) -> None:
    """Raise ConfigError, soon, where no Ray cluster answers at `address` ("auto" or host:port)."""
    if address != "auto":
        _check_port(address)
    command = [sys.executable, "-c", _PROBE, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"--address {address}: no Ray cluster answers within {PROBE_SECONDS:g} seconds") from error
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ConfigError(f"--address {address}: cannot join a Ray cluster: {reason[0]}")


def _check_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ConfigError(f"--address {address}: give auto, or host:port of a Ray head, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), TCP_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--address {address}: nothing answers there ({error}); is the Ray head running?") from error
