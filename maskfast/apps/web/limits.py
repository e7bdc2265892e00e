"""Bounds on what clients send: a body's bytes and seconds, the memory of all bodies, requests a minute an address."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from starlette.requests import Request

from maskfast.apps.web.answers import RefusalError

DRAIN_SECONDS = 1.0
"""How long an overlong body is read and thrown away, so that a client that only writes still sees the answer."""


class MemoryBudget:
    """Bytes of request bodies held at once, over all requests."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @contextmanager
    def hold(self) -> Iterator["Holding"]:
        """What one request takes of the budget; given back when the request ends."""
        holding = Holding(self)
        try:
            yield holding
        finally:
            self.used -= holding.bytes


class Holding:
    """One request's part of a MemoryBudget."""

    def __init__(self, budget: MemoryBudget) -> None:
        self.budget = budget
        self.bytes = 0

    def add(self, count: int) -> None:
        """Take `count` bytes more; RefusalError 503 where the budget is used up."""
        if self.budget.used + count > self.budget.limit:
            raise RefusalError(503, "the server holds too many pictures; try again", retry_after=1, close=True)
        self.bytes += count
        self.budget.used += count


async def read_body(
    request: Request, *, max_body: int, seconds: float, holding: Holding
) -> AsyncGenerator[bytes, None]:
    """Yield the body's chunks.

    Raises RefusalError 413 past `max_body` bytes, whatever Content-Length says, and 408 past `seconds`.
    """
    too_large = RefusalError(413, f"the body is larger than {max_body} bytes", close=True)
    if declare_length(request) > max_body:
        if "expect" not in request.headers:
            await drain_body(request, limit=4 * max_body)
        raise too_large
    total = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                total += len(chunk)
                if total > max_body:
                    break
                holding.add(len(chunk))
                yield chunk
    except TimeoutError as error:
        raise RefusalError(408, f"the body took longer than {seconds:g} s", close=True) from error
    if total > max_body:
        await drain_body(request, limit=4 * max_body)
        raise too_large


def declare_length(request: Request) -> int:
    """The Content-Length header's bytes, 0 where there is none; RefusalError 400 for anything but digits."""
    text = request.headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise RefusalError(400, "Content-Length is not a number of bytes", close=True)
    return int(text)


async def drain_body(request: Request, *, limit: int) -> None:
    """Read and throw away at most `limit` bytes of the body's rest, for at most DRAIN_SECONDS."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while limit > 0:
                message = await request.receive()
                limit -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


class RateLimiter:
    """Requests a minute from one address, as a bucket that refills evenly; remembers the last `addresses` seen."""

    def __init__(
        self, per_minute: int, *, addresses: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_minute = per_minute
        self.addresses = addresses
        self.clock = clock
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Count one request of `address`; RefusalError 429 when its minute is used up."""
        if not self.per_minute:
            return
        now = self.clock()
        tokens, seen = self.buckets.pop(address, (float(self.per_minute), now))
        tokens = min(self.per_minute, tokens + (now - seen) * self.per_minute / 60)
        self.buckets[address] = (tokens - 1 if tokens >= 1 else tokens, now)
        while len(self.buckets) > self.addresses:
            self.buckets.popitem(last=False)
        if tokens < 1:
            wait = int((1 - tokens) * 60 / self.per_minute) + 1
            raise RefusalError(429, f"more than {self.per_minute} requests a minute", retry_after=wait, close=True)
