"""The waiting room before decoding: requests in, at most so many pictures at work, the rest waiting or refused.

While everybody can be served, the one who came first goes first. Once somebody had to be refused, the newest goes first
and nobody waits long, until a second passes without a refusal: under overload an early 503 is worth more than a late
answer, and what is answered is answered fast (adaptive LIFO with a short deadline, as in Maurer, "Fail at Scale",
ACM Queue 13(8), 2015).
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from maskfast.apps.web.answers import RefusalError

OVERLOAD_SECONDS = 1.0
"""How long after a refusal the room counts as overloaded."""
CROWDED_PATIENCE = 0.05
"""Seconds that a request may wait while the room is overloaded, unless told otherwise."""


@dataclass(eq=False)
class Ticket:
    """One waiting request: its number of pictures, when it came, and the future that says it may go on."""

    weight: int
    future: "asyncio.Future[None]"
    arrived: float = field(default_factory=time.monotonic)


class WaitingRoom:
    """At most `seats` pictures at work (a larger request works alone) and `places` waiting, for `patience` seconds.

    Where a picture comes to a full room the oldest is refused; a request of several pictures is refused itself, so that
    it cannot push out many others. Under overload only `crowded_seats` are given out: fewer pictures at work are each
    done sooner; and nobody waits longer than `crowded_patience` seconds. Who is refused is told to come again after
    `retry_after` seconds.
    """

    def __init__(self, *, seats: int, places: int, patience: float, crowded_seats: int | None = None) -> None:
        self.seats = seats
        self.crowded_seats = crowded_seats or seats
        self.places = places
        self.patience = patience
        self.crowded_patience = CROWDED_PATIENCE
        self.retry_after = 1
        self.working = 0
        self.refused = 0
        self._queue: deque[Ticket] = deque()
        self._last_refusal = float("-inf")

    @property
    def waiting(self) -> int:
        """Pictures that wait for a seat."""
        return sum(ticket.weight for ticket in self._queue)

    @asynccontextmanager
    async def seat(self, weight: int) -> AsyncIterator[None]:
        """Hold seats for `weight` pictures; RefusalError 503 where the room is too full to wait for them."""
        await self._enter(weight)
        try:
            yield
        finally:
            self.working -= weight
            self._admit()

    def check_door(self) -> None:
        """RefusalError 503 where the room is overloaded and has enough to do: told before a body is read and parsed."""
        if self._overloaded() and self.waiting >= self.crowded_seats:
            self.refused += 1
            self._last_refusal = time.monotonic()
            raise make_refusal(self.retry_after)

    async def _enter(self, weight: int) -> None:
        if not self._queue and self._fits(weight):
            self.working += weight
            return
        ticket = Ticket(weight, asyncio.get_running_loop().create_future())
        self._queue.append(ticket)
        while self.waiting > self.places:
            self._refuse(self._queue[0] if weight == 1 else ticket)
        timer = asyncio.get_running_loop().call_later(self.patience, self._refuse, ticket)
        try:
            await ticket.future
        except asyncio.CancelledError:
            self._abandon(ticket)
            raise
        finally:
            timer.cancel()

    def _abandon(self, ticket: Ticket) -> None:
        if ticket in self._queue:
            self._queue.remove(ticket)
        elif ticket.future.done() and not ticket.future.cancelled() and ticket.future.exception() is None:
            self.working -= ticket.weight
        self._admit()

    def _refuse(self, ticket: Ticket) -> None:
        if ticket not in self._queue:
            return
        self._queue.remove(ticket)
        self.refused += 1
        if not self._overloaded():
            asyncio.get_running_loop().call_later(self.crowded_patience, self._sweep)
        self._last_refusal = time.monotonic()
        if not ticket.future.done():
            ticket.future.set_exception(make_refusal(self.retry_after))

    def _sweep(self) -> None:
        while self._queue and time.monotonic() - self._queue[0].arrived > self.crowded_patience and self._overloaded():
            self._refuse(self._queue[0])
        if self._overloaded():
            asyncio.get_running_loop().call_later(self.crowded_patience / 5, self._sweep)

    def _overloaded(self) -> bool:
        return time.monotonic() - self._last_refusal < OVERLOAD_SECONDS

    def _fits(self, weight: int) -> bool:
        seats = self.crowded_seats if self._overloaded() else self.seats
        return self.working == 0 or self.working + weight <= seats

    def _admit(self) -> None:
        while self._queue:
            ticket = self._queue[-1] if self._overloaded() else self._queue[0]
            if not self._fits(ticket.weight):
                return
            self._queue.remove(ticket)
            if not ticket.future.done():
                self.working += ticket.weight
                ticket.future.set_result(None)


def make_refusal(retry_after: int) -> RefusalError:
    """What somebody is told for whom there is no room."""
    return RefusalError(503, "too many pictures at once; try again", retry_after=retry_after)
