import os
import subprocess
import sys

import pytest

import maskfast.core.cores
from maskfast.core.cores import count_cores


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """A folder in the place of the container's, on a machine of 8 cores."""
    monkeypatch.setattr(maskfast.core.cores, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("told", "cores"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("9900000 100000", 8), ("", 8)],
)
def test_a_containers_limit_counts_as_cores_rounded_up(cgroup, told, cores):
    (cgroup / "cpu.max").write_text(told + "\n")
    assert count_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [(-1, 8), (300_000, 3), (50_000, 1)])
def test_the_older_way_to_tell_the_limit_is_read_too(cgroup, quota, cores):
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert count_cores() == cores


@pytest.mark.usefixtures("cgroup")
def test_without_a_limit_all_cores_count():
    assert count_cores() == 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no process to some of its cores")
def test_cores_that_the_process_may_not_run_on_do_not_count():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from maskfast.core.cores import count_cores; print(count_cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "1"
