"""A pool of decoder processes: file bytes in, square uint8 arrays out; one that hangs or dies is replaced.

Unlike the pool of batches (`score.decoders`) it lives in the event loop: threads that wait for decoders would also wait
for the interpreter's lock, which refusing the requests of an overload holds, so that answers took ten times as long.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import numpy as np

from maskfast.apps.web.answers import RefusalError
from maskfast.core.errors import ImageError
from maskfast.score.decode_worker import LENGTH, PIXELS, READY, make_environment, make_request

logger = logging.getLogger(__name__)
STREAM_LIMIT = 1 << 20
"""Bytes an answer's pipe buffers: enough for a 512-pixel square."""
START_SECONDS = 60.0
"""For a decoder to start, and for a picture to get one."""
PIPE_ERRORS = (OSError, asyncio.IncompleteReadError, RuntimeError)
"""What a pipe to a process that died raises; RuntimeError is uvloop's for one that is closed already."""
ATTEMPTS = 2
"""A decoder may die of something else than the picture, which is therefore tried once more, in a new one."""
PAUSE = 1.0
"""Seconds before a decoder that did not start is tried again."""


class DecoderPool:
    """Decoder processes that take one picture at a time, started and warm before they count.

    `command` starts one (`decode_worker.make_command`); `size` is the side of the arrays they answer with; `seconds`
    bounds one picture.
    `replaced` counts the processes that had to be replaced.
    """

    def __init__(self, command: Sequence[str], *, size: int, count: int, seconds: float) -> None:
        self.command = command
        self.shape = (size, size, 3)
        self.count = count
        self.seconds = seconds
        self.replaced = 0
        self._idle: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue()
        self._processes: set[asyncio.subprocess.Process] = set()
        self._tasks: set[asyncio.Task[np.ndarray]] = set()
        self._replacements: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self) -> None:
        """Start the processes, twice one that ends instead: Ctrl-C reaches it before its session is its own."""
        for process in await asyncio.gather(*(self._spawn_first() for _ in range(self.count))):
            self._idle.put_nowait(process)

    async def stop(self) -> None:
        """Finish the pictures being decoded, then end the processes."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stopping = True
        await asyncio.gather(*self._replacements, return_exceptions=True)
        for process in list(self._processes):
            await self._end(process)

    def list_pids(self) -> list[int]:
        """The process ids of the decoders."""
        return sorted(process.pid for process in self._processes)

    async def decode(self, name: str, data: bytes) -> np.ndarray:
        """The picture as the model's square, uint8 (size, size, 3).

        Raises ImageError for bytes that are no usable picture, and for one that hangs or twice kills its decoder.
        A caller that goes away leaves the decoder to finish the picture.
        """
        task = asyncio.create_task(self._decode(name, data))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: "asyncio.Task[np.ndarray]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def _decode(self, name: str, data: bytes) -> np.ndarray:
        for attempt in range(ATTEMPTS):
            process = await (self._start_one() if attempt else self._take())
            try:
                kind, payload = await asyncio.wait_for(_ask(process, name, data), self.seconds)
            except TimeoutError as error:
                await self._drop(process, f"took longer than {self.seconds:g} s")
                self._keep_trying()
                raise ImageError(name, f"took longer than {self.seconds:g} s to decode") from error
            except PIPE_ERRORS:
                await self._drop(process, "died")
                continue
            self._idle.put_nowait(process)
            if kind == PIXELS:
                return np.frombuffer(payload, np.uint8).reshape(self.shape)
            raise ImageError(name, payload.decode())
        self._keep_trying()
        raise ImageError(name, "stops the decoder")

    async def _take(self) -> asyncio.subprocess.Process:
        """The next idle process; raises RefusalError where there is none for long."""
        try:
            return await asyncio.wait_for(self._idle.get(), START_SECONDS)
        except TimeoutError as error:
            raise _refuse() from error

    async def _start_one(self) -> asyncio.subprocess.Process:
        """A new process; raises RefusalError where it does not start, which is then tried on."""
        try:
            return await self._spawn()
        except (TimeoutError, *PIPE_ERRORS) as error:
            self._keep_trying()
            raise _refuse() from error

    async def _spawn_first(self) -> asyncio.subprocess.Process:
        try:
            return await self._spawn()
        except PIPE_ERRORS:
            return await self._spawn()

    async def _spawn(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *self.command, stdin=pipe, stdout=pipe, env=make_environment(), limit=STREAM_LIMIT, start_new_session=True
        )
        self._processes.add(process)
        try:
            await asyncio.wait_for(_wait_until_ready(process), START_SECONDS)
        except BaseException:
            await self._end(process)
            raise
        return process

    async def _drop(self, process: asyncio.subprocess.Process, why: str) -> None:
        logger.warning("a decoder %s; it is replaced", why)
        self.replaced += 1
        await self._end(process)

    def _keep_trying(self) -> None:
        """Start a process beside what goes on, however often that takes."""
        task = asyncio.create_task(self._start_idle())
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    async def _start_idle(self) -> None:
        while not self._stopping:
            try:
                self._idle.put_nowait(await self._spawn())
                return
            except (TimeoutError, *PIPE_ERRORS) as error:
                logger.error("a decoder does not start, it is tried again: %r", error)
                await asyncio.sleep(PAUSE)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._processes.discard(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _refuse() -> RefusalError:
    return RefusalError(503, "no decoder can be started; try again", retry_after=1)


async def _wait_until_ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    await process.stdout.readuntil(READY)


async def _ask(process: asyncio.subprocess.Process, name: str, data: bytes) -> tuple[bytes, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(make_request(name, data))
    await process.stdin.drain()
    head = await process.stdout.readexactly(1 + LENGTH.size)
    return head[:1], await process.stdout.readexactly(*LENGTH.unpack(head[1:]))
