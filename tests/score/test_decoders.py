import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from serving import make_picture

import maskfast.score.decoders
from maskfast.core.errors import ImageError, MaskfastError
from maskfast.core.image import load_image
from maskfast.score.decoders import DecoderPool

NAUGHTY = """
import os, time
from maskfast.score import decode_worker
honest = decode_worker.decode
def decode(name, data, *options):
    if data == b"hang":
        time.sleep(60)
    if data == b"die":
        os._exit(1)
    return honest(name, data, *options)
decode_worker.decode = decode
decode_worker.serve(32, "squish", 10**6)
"""


def make_pool(program: str = "", *, seconds: float = 5) -> DecoderPool:
    pool = DecoderPool(32, "squish", seconds=seconds)
    pool.command = [sys.executable, "-c", program] if program else pool.command
    return pool


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def read_level(pool: DecoderPool, level: int) -> int:
    """The brightness of an even picture that came back."""
    answer = pool.decode(str(level), make_picture(level))
    assert not isinstance(answer, ImageError), answer
    return int(answer.max())


def test_workers_give_the_loaders_pixels_and_reasons_and_end_with_the_pool(picture_folder: Path) -> None:
    with DecoderPool(64, "pad") as pool:
        for path in picture_folder.iterdir():
            assert np.array_equal(pool.decode(path.name, path), load_image(path, 64, "pad"))
        refusal = pool.decode("junk", b"GIF89a nonsense")
        (worker,) = pool._all
    with pytest.raises(ImageError) as expected:
        load_image(b"GIF89a nonsense", 64, "pad")
    assert isinstance(refusal, ImageError)
    assert (refusal.name, refusal.reason) == ("junk", expected.value.reason)
    assert worker._process.poll() == 0


def test_a_picture_larger_than_allowed_is_refused() -> None:
    with DecoderPool(32, "squish", max_pixels=10) as pool:
        refusal = pool.decode("a", make_picture(9))
    assert isinstance(refusal, ImageError)
    assert "more than 10" in refusal.reason


def test_a_decoder_that_hangs_is_killed_and_replaced() -> None:
    with make_pool(NAUGHTY, seconds=1) as pool:
        pool.start(1)
        (pid,) = pool.list_pids()
        started = time.monotonic()
        refusal = pool.decode("a", b"hang")
        assert time.monotonic() - started < 3
        assert isinstance(refusal, ImageError)
        assert refusal.reason == "decoding took more than 1 seconds"
        assert read_level(pool, 9) == 9
        assert not is_running(pid)
        assert pool.replaced == 1


def test_a_picture_that_kills_two_decoders_is_refused() -> None:
    with make_pool(NAUGHTY) as pool:
        refusal = pool.decode("a", b"die")
        assert isinstance(refusal, ImageError)
        assert refusal.reason == "the decoder crashed on it (exit code 1)"
        assert pool.replaced == 2
        assert read_level(pool, 9) == 9


@pytest.mark.parametrize("pause", [0, 0.3])
def test_a_decoder_killed_from_outside_costs_no_picture(pause: float) -> None:
    with make_pool() as pool, ThreadPoolExecutor(2) as threads:
        pool.start(2)
        for pid in pool.list_pids():
            os.kill(pid, signal.SIGKILL)
        time.sleep(pause)
        assert list(threads.map(partial(read_level, pool), (5, 6))) == [5, 6]


def test_there_are_as_many_processes_as_threads_that_call() -> None:
    with make_pool() as pool, ThreadPoolExecutor(2) as threads:
        pool.start(2)
        pids = pool.list_pids()
        assert list(threads.map(partial(read_level, pool), range(20))) == list(range(20))
        assert pool.list_pids() == pids


def test_closing_ends_every_process() -> None:
    pool = make_pool()
    pool.start(2)
    pids = pool.list_pids()
    assert len(pids) == 2
    pool.close()
    assert not any(is_running(pid) for pid in pids)


@pytest.mark.parametrize("begin", [lambda pool: pool.start(1), lambda pool: pool.decode("a", make_picture(9))])
@pytest.mark.parametrize("program", ["raise SystemExit(3)", "import time; time.sleep(60)"], ids=["ends", "hangs"])
def test_a_process_that_does_not_start_is_an_error(
    monkeypatch: pytest.MonkeyPatch, program: str, begin: Callable[[DecoderPool], object]
) -> None:
    monkeypatch.setattr(maskfast.score.decoders, "START_SECONDS", 1.0 if "sleep" in program else 60.0)
    with make_pool(program) as pool:
        with pytest.raises(MaskfastError, match="cannot start a process"):
            begin(pool)
        assert pool.list_pids() == []
