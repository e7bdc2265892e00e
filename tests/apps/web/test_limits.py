import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from maskfast.apps.web.answers import RefusalError
from maskfast.apps.web.limits import Body, MemoryBudget, RateLimiter, declare_length


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def count_allowed(limiter: RateLimiter, address: str, tries: int) -> int:
    allowed = 0
    for _ in range(tries):
        try:
            limiter.check(address)
            allowed += 1
        except RefusalError as refusal:
            if refusal.status != 429:
                raise
    return allowed


def test_a_minute_allows_so_many_requests_and_refills_evenly() -> None:
    clock = Clock()
    limiter = RateLimiter(30, clock=clock)
    assert count_allowed(limiter, "a", 50) == 30
    assert count_allowed(limiter, "b", 50) == 30, "every address has its own minute"
    clock.now = 10
    assert count_allowed(limiter, "a", 50) == 5
    clock.now = 1000
    assert count_allowed(limiter, "a", 50) == 30, "a bucket never holds more than a minute's requests"


def test_retry_after_is_when_the_next_request_is_allowed() -> None:
    clock = Clock()
    limiter = RateLimiter(2, clock=clock)
    assert count_allowed(limiter, "a", 2) == 2
    with pytest.raises(RefusalError) as caught:
        limiter.check("a")
    assert caught.value.retry_after == 31
    clock.now = 31
    limiter.check("a")


def test_only_so_many_addresses_are_remembered() -> None:
    limiter = RateLimiter(1, addresses=3, clock=Clock())
    for number in range(10):
        limiter.check(str(number))
    assert list(limiter.buckets) == ["7", "8", "9"]


def test_the_budget_is_given_back_whatever_happens() -> None:
    budget = MemoryBudget(100)
    with budget.hold() as first, budget.hold() as second:
        first.add(60)
        second.add(40)
        with pytest.raises(RefusalError) as caught:
            second.add(1)
        assert budget.used == 100
    assert (caught.value.status, caught.value.retry_after) == (503, 1)
    assert budget.used == 0


@pytest.mark.parametrize("text", ["-1", "1.5", "ten", "", "9" * 30, "٣"])
def test_a_content_length_that_is_no_number_is_400(text: str) -> None:
    scope = {"type": "http", "headers": [(b"content-length", text.encode("utf-8"))]}
    with pytest.raises(RefusalError) as caught:
        declare_length(Request(scope))
    assert caught.value.status == 400


def make_body(messages: list[dict[str, Any]], *, max_body: int = 10, length: int | None = None) -> Body:
    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    budget = MemoryBudget(1000)
    with budget.hold() as holding:
        return Body(Request({"type": "http", "headers": headers}, receive), max_body=max_body, holding=holding)


def read(body: Body) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in body.read()])

    return asyncio.run(collect())


def chunk(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


def test_a_body_up_to_the_bound_is_read_and_one_byte_more_is_not() -> None:
    assert read(make_body([chunk(b"01234", more=True), chunk(b"56789", more=False)])) == b"0123456789"
    with pytest.raises(RefusalError) as caught:
        read(make_body([chunk(b"01234", more=True), chunk(b"56789x", more=True)], length=3))
    assert caught.value.status == 413


def test_a_body_that_declares_too_much_is_refused_unread() -> None:
    messages = [chunk(b"0", more=False)]
    with pytest.raises(RefusalError):
        read(make_body(messages, length=11))
    assert len(messages) == 1


def test_a_client_that_leaves_is_noticed() -> None:
    with pytest.raises(ClientDisconnect):
        read(make_body([chunk(b"0", more=True), {"type": "http.disconnect"}]))


def test_what_is_drained_is_bounded() -> None:
    messages = [chunk(b"0123456789", more=True) for _ in range(20)]
    asyncio.run(make_body(messages).drain())
    assert len(messages) == 16, "four times the bound"
    messages = [chunk(b"0", more=True), chunk(b"1", more=False), chunk(b"next", more=False)]
    asyncio.run(make_body(messages).drain())
    assert len(messages) == 1
