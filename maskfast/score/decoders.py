"""Pictures go in, square pixels or the reason why there are none come out of processes that may crash or hang."""

import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

import numpy as np

from maskfast.core.errors import ImageError, MaskfastError
from maskfast.core.image import ImageSource, Method, Pixels
from maskfast.score.decode_worker import (
    LENGTH,
    PIXELS,
    READY,
    Stored,
    make_command,
    make_environment,
    make_request,
)

DECODE_SECONDS = 30.0
"""One picture's time limit; the largest that is allowed takes a few seconds."""
ATTEMPTS = 2
"""A crash may have another cause than the picture (it was killed, another program took the memory), so the picture is
tried once more, in a new process."""
STOP_SECONDS = 0.5
PIPE_BYTES = 2**20


class DecoderPool:
    """Decodes in processes of its own; `decode` may be called from as many threads as there are workers."""

    def __init__(self, size: int, method: Method, *, seconds: float = DECODE_SECONDS) -> None:
        self._size, self._method, self._seconds = size, method, seconds
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._all: set[_Worker] = set()
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._stop_late_workers, daemon=True)
        self._watch.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed.set()
        self._watch.join()
        workers = list(self._all)
        for worker in workers:  # all are told before one is waited for
            worker.dismiss()
        for worker in workers:
            self._drop(worker)

    def decode(self, name: str, source: "ImageSource | Stored") -> "Pixels | ImageError":
        """Return the pixels (size, size, 3), or an ImageError for a refusal, a crash or a picture that takes too long.

        Raises MaskfastError where no worker can be started at all.
        """
        request = make_request(name, source)
        for attempt in range(ATTEMPTS):
            worker = self._start() if attempt else self._take()
            try:
                answer = worker.ask(name, request, self._seconds)
            except (OSError, EOFError):
                late, code = worker.is_late, self._drop(worker)
                if late:
                    return ImageError(name, f"decoding took more than {self._seconds:g} seconds")
                continue
            self._idle.put(worker)
            return answer
        return ImageError(name, f"the decoder crashed on it (exit code {code})")

    def _take(self) -> "_Worker":
        with suppress(queue.Empty):
            return self._idle.get_nowait()
        return self._start()

    def _start(self) -> "_Worker":
        try:
            worker = _Worker(self._size, self._method)
        except OSError as error:
            raise MaskfastError(f"{sys.executable}: cannot start a process that decodes: {error.strerror}") from error
        self._all.add(worker)
        return worker

    def _drop(self, worker: "_Worker") -> int:
        self._all.discard(worker)
        return worker.stop()

    def _stop_late_workers(self) -> None:
        while not self._closed.wait(min(0.25, self._seconds / 4)):
            for worker in list(self._all):
                worker.stop_if_late()


class _Worker:
    """One process and the two pipes to it."""

    def __init__(self, size: int, method: Method) -> None:
        self._size = size
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            make_command(size, method), stdin=pipe, stdout=pipe, env=make_environment(), start_new_session=True
        )
        assert self._process.stdin
        assert self._process.stdout
        self._requests: IO[bytes] = self._process.stdin
        self._replies: IO[bytes] = self._process.stdout
        _widen(self._replies)
        self._ready = False
        self._deadline = float("inf")
        self.is_late = False

    def ask(self, name: str, request: bytes, seconds: float) -> "Pixels | ImageError":
        """Return the worker's answer; raises OSError or EOFError where it ended instead."""
        self._wait_until_ready()
        self._deadline = time.monotonic() + seconds
        self._requests.write(request)
        self._requests.flush()
        status = self._read(1)
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        content = self._read(length)
        self._deadline = float("inf")
        if status != PIXELS:
            return ImageError(name, content.decode("utf-8", "replace"))
        return np.frombuffer(content, np.uint8).reshape(self._size, self._size, 3)

    def stop_if_late(self) -> None:
        """Kill the process where its answer is overdue; the thread that waits for it then reads an end of file."""
        if time.monotonic() > self._deadline:
            self.is_late = True
            self._process.kill()

    def dismiss(self) -> None:
        """Tell the process that nothing more will be asked; it then ends by itself."""
        with suppress(OSError):  # a request that the process never read
            self._requests.close()

    def stop(self) -> int:
        """End the process and return its exit code (minus the signal that ended it)."""
        self.dismiss()
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._replies.close()
        return code

    def _wait_until_ready(self) -> None:
        if self._ready:
            return
        if self._replies.read(1) != READY:
            raise MaskfastError(f"{sys.executable}: cannot start a process that decodes; see what it printed above")
        self._ready = True

    def _read(self, length: int) -> bytearray:
        content = bytearray(length)
        if self._replies.readinto(content) != length:  # type: ignore[attr-defined]
            raise EOFError
        return content


def _widen(pipe: IO[bytes]) -> None:
    """Let a whole picture fit into the pipe, where the system can (Linux), so that a worker need not wait for us."""
    try:
        import fcntl

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        return
