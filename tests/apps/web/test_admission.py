import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from maskfast.apps.web.admission import WaitingRoom
from maskfast.apps.web.answers import RefusalError


class Guests:
    """Requests that stay in the room until they are told to leave; `order` is who got a seat when."""

    def __init__(self, room: WaitingRoom) -> None:
        self.room = room
        self.order: list[str] = []
        self.refused: list[str] = []
        self.leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, weight: int = 1) -> None:
        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, weight))
        await asyncio.sleep(0.001)

    async def _stay(self, name: str, weight: int) -> None:
        try:
            async with self.room.seat(weight):
                self.order.append(name)
                await self.leave[name].wait()
        except RefusalError as refusal:
            if (refusal.status, refusal.retry_after) == (503, 1):
                self.refused.append(name)

    async def go(self, name: str) -> None:
        self.leave[name].set()
        await asyncio.sleep(0.001)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_who_came_first_goes_first_while_nobody_is_refused() -> None:
    async def scenario() -> None:
        guests = Guests(WaitingRoom(seats=1, places=5, patience=5))
        for name in "abc":
            await guests.come(name)
        for name in "abc":
            await guests.go(name)
        assert guests.order == ["a", "b", "c"]
        assert guests.room.working == guests.room.waiting == 0

    run(scenario())


def test_a_full_room_refuses_the_oldest_and_then_serves_the_newest() -> None:
    async def scenario() -> None:
        guests = Guests(WaitingRoom(seats=1, places=2, patience=5))
        for name in "abcd":
            await guests.come(name)
        assert guests.refused == ["b"]
        await guests.go("a")
        assert guests.order == ["a", "d"]
        await asyncio.sleep(0.15)
        assert guests.refused == ["b", "c"], "nobody waits long in an overloaded room"
        await guests.go("d")
        assert guests.room.working == guests.room.waiting == 0

    run(scenario())


def test_a_large_request_pushes_nobody_out() -> None:
    async def scenario() -> None:
        guests = Guests(WaitingRoom(seats=1, places=4, patience=5))
        for name in "abcd":
            await guests.come(name)
        await guests.come("large", 3)
        assert guests.refused == ["large"]
        for name in "abcd":
            await guests.go(name)

    run(scenario())


def test_an_overloaded_room_gives_out_fewer_seats() -> None:
    async def scenario() -> None:
        guests = Guests(WaitingRoom(seats=3, crowded_seats=1, places=1, patience=5))
        for name in "abc":
            await guests.come(name)
        assert guests.order == ["a", "b", "c"]
        for name in "de":
            await guests.come(name)
        assert guests.refused == ["d"]
        await guests.go("a")
        await guests.go("b")
        assert guests.order == ["a", "b", "c"]
        await guests.go("c")
        assert guests.order == ["a", "b", "c", "e"]
        await guests.go("e")

    run(scenario())


def test_the_door_is_shut_only_while_an_overloaded_room_has_enough_to_do() -> None:
    async def scenario() -> None:
        room = WaitingRoom(seats=1, crowded_seats=1, places=2, patience=5)
        guests = Guests(room)
        for name in "abc":
            await guests.come(name)
        room.check_door()
        await guests.come("d")
        with pytest.raises(RefusalError):
            room.check_door()
        await guests.go("a")
        await guests.go("d")
        await guests.go("c")
        assert guests.order == ["a", "d", "c"]
        room.check_door()

    run(scenario())


def test_patience_is_short_while_the_room_is_overloaded() -> None:
    async def scenario() -> None:
        room = WaitingRoom(seats=1, places=2, patience=5)
        room.crowded_patience = 0.02
        guests = Guests(room)
        for name in "abc":
            await guests.come(name)
        await asyncio.sleep(0.1)
        assert guests.refused == []
        await guests.come("d")
        await asyncio.sleep(0.1)
        assert guests.refused == ["b", "c", "d"]
        await guests.go("a")

    run(scenario())


def test_patience_ends_a_wait() -> None:
    async def scenario() -> None:
        guests = Guests(WaitingRoom(seats=1, places=2, patience=0.02))
        await guests.come("a")
        await guests.come("b")
        await asyncio.sleep(0.05)
        assert guests.refused == ["b"]
        await guests.go("a")

    run(scenario())


def test_a_request_larger_than_the_seats_works_alone() -> None:
    async def scenario() -> None:
        guests = Guests(WaitingRoom(seats=2, places=10, patience=5))
        for name, weight in (("a", 1), ("large", 5), ("c", 1)):
            await guests.come(name, weight)
        assert guests.order == ["a"]
        await guests.go("a")
        assert guests.order == ["a", "large"]
        assert guests.room.working == 5
        await guests.go("large")
        assert guests.order == ["a", "large", "c"]
        await guests.go("c")

    run(scenario())


@pytest.mark.parametrize("gone", ["a", "b"])
def test_who_goes_away_frees_the_place(gone: str) -> None:
    async def scenario() -> None:
        guests = Guests(WaitingRoom(seats=1, places=5, patience=5))
        for name in "abc":
            await guests.come(name)
        guests.tasks[gone].cancel()
        await asyncio.sleep(0.001)
        for name in "abc":
            await guests.go(name)
        assert guests.order == [name for name in "abc" if name != gone or gone == "a"]
        assert guests.room.working == guests.room.waiting == 0

    run(scenario())
