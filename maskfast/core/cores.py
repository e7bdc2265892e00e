"""The process goes in, the number of processor cores that it may use comes out."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says how much time a container is given: https://docs.kernel.org/admin-guide/cgroup-v2.html and, before
that, https://docs.kernel.org/scheduler/sched-bwc.html."""


def count_cores() -> int:
    """Return how many cores this process may use, at least 1: those it may run on, as far as a container's limit goes.

    A limit of processor time, as by `docker run --cpus 1.5`, counts as so many cores, rounded up: more threads than
    that would use the time up early and then be held together.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _find_limit())))


def _find_limit() -> float:
    """Return how many cores' time the container is given; infinity where there is no limit, or none is told."""
    try:
        told = (CGROUP / "cpu.max").read_text().split()
    except OSError:
        told = _read_older_limit()
    try:
        quota, period = map(int, told)
    except ValueError:  # nothing is told, or "max"
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _read_older_limit() -> list[str]:
    try:
        return [(CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]
    except OSError:
        return []
