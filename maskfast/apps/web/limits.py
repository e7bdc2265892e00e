"""Bounds on what clients send: a body's bytes and seconds, the memory of all bodies, requests a minute an address."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.requests import ClientDisconnect, Request

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


class Body:
    """One request's body; `ended` says whether all of it was read."""

    def __init__(self, request: Request, *, max_body: int, holding: Holding) -> None:
        self.request = request
        self.max_body = max_body
        self.holding = holding
        self.ended = False

    async def read(self) -> AsyncGenerator[bytes, None]:
        """Yield the chunks; RefusalError 413 past `max_body` bytes, whatever Content-Length says."""
        too_large = RefusalError(413, f"the body is larger than {self.max_body} bytes", close=True)
        if declare_length(self.request) > self.max_body:
            raise too_large
        total = 0
        while not self.ended:
            message = await self.request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            self.ended = not message.get("more_body", False)
            total += len(chunk)
            if total > self.max_body:
                raise too_large
            self.holding.add(len(chunk))
            yield chunk

    async def drain(self) -> None:
        """Read and throw away a bounded rest of the body, for at most DRAIN_SECONDS.

        Nothing is read where the client waits for a `100 Continue` that it will not get.
        """
        limit = 0 if "expect" in self.request.headers else 4 * self.max_body
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while limit > 0 and not self.ended:
                    message = await self.request.receive()
                    limit -= len(message.get("body", b""))
                    self.ended = not message.get("more_body", False)


def declare_length(request: Request) -> int:
    """The Content-Length header's bytes, 0 where there is none; RefusalError 400 for anything but digits."""
    text = request.headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise RefusalError(400, "Content-Length is not a number of bytes", close=True)
    return int(text)


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
