import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from serving import make_picture

from maskfast.apps.web.decode import DecoderPool
from maskfast.core.errors import ImageError
from maskfast.core.image import load_image
from maskfast.score.decode_worker import make_command

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


async def make_pool(*, naughty: bool = False, count: int = 1, seconds: float = 5) -> DecoderPool:
    command = [sys.executable, "-c", NAUGHTY] if naughty else make_command(32, "squish")
    pool = DecoderPool(command, size=32, count=count, seconds=seconds)
    await pool.start()
    return pool


def test_a_decoder_gives_the_loaders_own_array_and_its_own_reason() -> None:
    picture = make_picture(77, kind="JPEG")

    async def scenario() -> tuple[np.ndarray, str]:
        pool = await make_pool()
        try:
            array = await pool.decode("a.jpg", picture)
            with pytest.raises(ImageError) as caught:
                await pool.decode("b.txt", b"hello")
            return array, caught.value.reason
        finally:
            await pool.stop()

    array, reason = asyncio.run(scenario())
    np.testing.assert_array_equal(array, load_image(picture, 32, "squish"))
    with pytest.raises(ImageError) as expected:
        load_image(b"hello", 32, "squish")
    assert reason == expected.value.reason


def test_a_decoder_that_hangs_is_killed_and_replaced() -> None:
    async def scenario() -> None:
        pool = await make_pool(naughty=True, seconds=1)
        try:
            (pid,) = pool.list_pids()
            started = time.monotonic()
            with pytest.raises(ImageError, match="took longer than 1 s"):
                await pool.decode("a", b"hang")
            assert time.monotonic() - started < 3
            assert (await pool.decode("b", make_picture(9))).max() == 9
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            assert pool.replaced == 1
        finally:
            await pool.stop()

    asyncio.run(scenario())


def test_a_picture_that_kills_two_decoders_is_refused() -> None:
    async def scenario() -> None:
        pool = await make_pool(naughty=True)
        try:
            with pytest.raises(ImageError, match="stops the decoder"):
                await pool.decode("a", b"die")
            assert pool.replaced == 2
            assert (await pool.decode("b", make_picture(9))).max() == 9
        finally:
            await pool.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("pause", [0, 0.3])
@pytest.mark.parametrize(("count", "levels"), [(2, [5, 6]), (3, [5])], ids=["a picture each", "one for all"])
def test_decoders_killed_from_outside_cost_no_picture(loop: str, pause: float, count: int, levels: list[int]) -> None:
    async def scenario() -> None:
        pool = await make_pool(count=count)
        try:
            for pid in pool.list_pids():
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(pause)
            arrays = await asyncio.gather(*(pool.decode(str(level), make_picture(level)) for level in levels))
            assert [int(array.max()) for array in arrays] == levels
        finally:
            await pool.stop()

    factory = pytest.importorskip(loop, reason="uvloop is not made for this system").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())


def test_a_caller_that_goes_away_leaves_the_decoder_usable() -> None:
    async def scenario() -> None:
        pool = await make_pool()
        try:
            task = asyncio.create_task(pool.decode("a", make_picture(3)))
            await asyncio.sleep(0)
            task.cancel()
            assert (await pool.decode("b", make_picture(4))).max() == 4
            assert pool.replaced == 0
        finally:
            await pool.stop()

    asyncio.run(scenario())


ONCE_KILLED = """
import os, signal, sys
try:
    os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL))
    os.kill(os.getpid(), signal.SIGINT)
except FileExistsError:
    os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_decoder_that_ctrl_c_ends_as_it_starts_is_started_again(tmp_path: Path) -> None:
    async def scenario(command: list[str]) -> np.ndarray:
        pool = DecoderPool(command, size=32, count=2, seconds=5)
        await pool.start()
        try:
            return await pool.decode("a.png", make_picture(64))
        finally:
            await pool.stop()

    command = [sys.executable, "-c", ONCE_KILLED, str(tmp_path / "killed"), *make_command(32, "squish")]
    assert asyncio.run(scenario(command)).shape == (32, 32, 3)
    assert (tmp_path / "killed").exists()


def test_a_pool_whose_decoders_never_start_does_not_either() -> None:
    pool = DecoderPool([sys.executable, "-c", ""], size=32, count=2, seconds=5)
    with pytest.raises(asyncio.IncompleteReadError):
        asyncio.run(pool.start())


def test_stopping_ends_every_process() -> None:
    async def scenario() -> list[int]:
        pool = await make_pool(count=2)
        pids = pool.list_pids()
        await pool.stop()
        return pids

    for pid in asyncio.run(scenario()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
