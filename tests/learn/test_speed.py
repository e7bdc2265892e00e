"""How many processes load pictures, by the time that was measured; and memory that is kept from step to step."""

import ctypes
from itertools import count
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from maskfast.core.errors import ImageError
from maskfast.learn import speed
from maskfast.score.backends import hold_threads
from maskfast.score.loading import load

BLOCK_BYTES = 256 * 2**20
PATHS = [f"{number}.jpg" for number in range(1000)]
needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library is not glibc 2.33 or newer"
)


class MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2: its ninth field, fordblks, is the bytes that the allocator holds and nobody uses."""

    _fields_ = [("fields", ctypes.c_size_t * 10)]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(speed, "time", made)
    monkeypatch.setattr(speed, "count_cores", lambda: 4)
    return made


@pytest.mark.parametrize(("seconds", "workers"), [(0.0001, 0), (0.02, 3)])
def test_processes_load_what_would_take_one_too_long(clock: Clock, seconds: float, workers: int) -> None:
    def load(_path: str) -> None:
        clock.now += seconds

    assert speed.measure_workers(PATHS, load) == workers


def test_a_few_pictures_spread_over_all_are_timed_and_broken_ones_are_no_error(clock: Clock) -> None:
    seen, numbers = [], count()

    def load(path: str) -> None:
        seen.append(path)
        clock.now += 0.02
        if next(numbers) % 2:
            raise ImageError(path, "truncated file")

    assert speed.measure_workers(PATHS, load) == 3
    assert len(seen) == speed.TIMED_PICTURES
    assert int(seen[-1].removesuffix(".jpg")) > 900


def test_no_pictures_need_no_processes(clock: Clock) -> None:
    assert speed.measure_workers([], lambda path: path) == 0
    assert clock.now == 0


@pytest.mark.parametrize(
    ("able", "precision"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx512_vnni": True}, "fp32"), ({}, "fp32")],
)
def test_bf16_is_used_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, toy_bundle: Path, able: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert speed.choose_machine(device="cpu").precision == precision
    if not torch.cuda.is_available():
        assert load(toy_bundle, backend="torch").backend.name == ("torch" if precision == "bf16" else "torch-fp32")


def test_a_network_computes_in_bf16_and_answers_in_float32_until_the_fit_ends() -> None:
    network, seen = make_watched_network()
    with speed.run_in_bf16(network, make_machine("bf16")):
        assert network(torch.ones(1, 2)).dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
    network(torch.ones(1, 2))

    assert seen == [torch.bfloat16, torch.float32]


def test_a_network_computes_in_float32_on_a_machine_without_bf16() -> None:
    network, seen = make_watched_network()
    with speed.run_in_bf16(network, make_machine("fp32")):
        network(torch.ones(1, 2))

    assert seen == [torch.float32]


def test_an_error_in_a_step_leaves_the_precision_as_it_was() -> None:
    network, seen = make_watched_network()
    with pytest.raises(RuntimeError, match="shapes"), speed.run_in_bf16(network, make_machine("bf16")):
        network(torch.ones(1, 3))
    assert not torch.is_autocast_enabled("cpu")
    network(torch.ones(1, 2))

    assert seen == [torch.float32]


@needs_glibc
def test_memory_that_a_step_frees_is_kept_for_the_next_one_until_the_fit_ends() -> None:
    with speed.keep_memory(torch.device("cpu")):
        kept = measure_memory_kept()

    assert kept > 0.9 * BLOCK_BYTES
    assert measure_memory_kept() < 0.1 * BLOCK_BYTES


@needs_glibc
def test_memory_is_given_back_where_a_fit_ends_in_an_error() -> None:
    with pytest.raises(MemoryError), speed.keep_memory(torch.device("cpu")):
        raise MemoryError

    assert measure_memory_kept() < 0.1 * BLOCK_BYTES


@needs_glibc
def test_the_processors_memory_is_left_as_it_is_where_another_device_trains() -> None:
    with speed.keep_memory(torch.device("cuda")):
        assert measure_memory_kept() < 0.1 * BLOCK_BYTES


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    with speed.keep_memory(torch.device("cpu")):
        pass  # and no error for the functions that it lacks


def make_machine(precision: Literal["fp32", "bf16"]) -> speed.Machine:
    return speed.Machine(torch.device("cpu"), precision, "as told", threads=1)


def make_watched_network() -> tuple[nn.Module, list[torch.dtype]]:
    """A network, and the types of what its one layer computes, to come."""
    network, seen = nn.Sequential(nn.Linear(2, 2)), list[torch.dtype]()
    network[0].register_forward_hook(lambda _layer, _inputs, output: seen.append(output.dtype))
    return network, seen


def measure_memory_kept() -> int:
    """By how many bytes the C library's own store of free memory grows when a large block comes and goes."""
    before = read_free_bytes()
    block = torch.ones(BLOCK_BYTES // 4)
    del block
    return read_free_bytes() - before


def read_free_bytes() -> int:
    allocator = ctypes.CDLL(None)
    allocator.mallinfo2.restype = MallocInfo
    return int(allocator.mallinfo2().fields[8])


def test_training_takes_no_more_threads_than_the_container_gives_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(speed, "count_cores", lambda: before)
    torch.set_num_threads(before + 1)
    try:
        threads = speed.choose_machine(device="cpu").threads
        with hold_threads(threads):
            assert torch.get_num_threads() == threads == before
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_fewer_threads_than_cores_are_left_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "count_cores", lambda: torch.get_num_threads() + 1)
    assert speed.choose_machine(device="cpu").threads == torch.get_num_threads()
