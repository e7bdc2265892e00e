"""The HTTP endpoints: each reads a request within its bounds, asks the scoring service and answers JSON."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from maskfast.apps.web.answers import (
    FailedRows,
    Health,
    RefusalError,
    Row,
    Rows,
    answer_model,
)
from maskfast.apps.web.limits import Body, MemoryBudget, RateLimiter
from maskfast.apps.web.service import Scorer
from maskfast.apps.web.uploads import Upload, read_uploads

T = TypeVar("T")
GONE = 499
"""The status that is counted for a client that went away; nobody receives it."""
NONE_USABLE = "no picture of the request can be used"


class Api:
    """The endpoints over one scoring service."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.settings = scorer.settings
        self.memory = MemoryBudget(self.settings.max_memory)
        self.rate = RateLimiter(self.settings.rate)
        scorer.metrics.held.set_function(lambda: self.memory.used)

    async def predict(self, request: Request) -> Response:
        """POST /api/predict: rows for the pictures of a form, or for one raw body."""
        self.scorer.room.check_door()
        try:
            async with self._receive(request) as uploads:
                rows = await wait_while_connected(request, self.scorer.score(uploads))
        except ClientDisconnect:
            return Response(status_code=GONE)
        return answer_rows(rows)

    async def explain(self, request: Request) -> Response:
        """POST /api/explain: one picture's row and heat map."""
        try:
            async with self._receive(request) as uploads:
                if len(uploads) > 1:
                    raise RefusalError(422, "send one picture at a time to be explained")
                explanation = await wait_while_connected(request, self.scorer.explain(uploads[0]))
        except ClientDisconnect:
            return Response(status_code=GONE)
        return answer_rows([explanation]) if isinstance(explanation, Row) else answer_model(explanation)

    async def model(self, _: Request) -> Response:
        """GET /api/model: what answers, and the bounds to keep."""
        return answer_model(self.scorer.describe())

    async def health(self, _: Request) -> Response:
        """GET /health: whether the server answers."""
        return answer_model(Health())

    async def metrics(self, _: Request) -> Response:
        """GET /metrics: numbers for Prometheus."""
        return Response(self.scorer.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @asynccontextmanager
    async def _receive(self, request: Request) -> AsyncIterator[list[Upload]]:
        with self.memory.hold() as holding:
            body = Body(request, max_body=self.settings.max_body, holding=holding)
            try:
                uploads = await self._read(request, body)
            except RefusalError as refusal:
                if refusal.close and refusal.status != 408:
                    await body.drain()
                raise
            yield uploads

    async def _read(self, request: Request, body: Body) -> list[Upload]:
        self.rate.check(request.client.host if request.client else "")
        seconds = self.settings.body_seconds
        try:
            async with asyncio.timeout(seconds):
                return await read_uploads(request, body.read(), max_files=self.settings.max_files)
        except TimeoutError as error:
            raise RefusalError(408, f"the body took longer than {seconds:g} s", close=True) from error


def answer_rows(rows: list[Row]) -> Response:
    """200 with the rows, or 422 with the rows and an error where none could be used."""
    if any(row.status == "ok" for row in rows):
        return answer_model(Rows(results=rows))
    return answer_model(FailedRows(error=NONE_USABLE, results=rows), status=422)


async def wait_while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; cancels it and raises ClientDisconnect when the client goes away first."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_wait_until_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        gone.cancel()
        task.cancel()


def _wait_until_gone(request: Request) -> Awaitable[Any]:
    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            continue

    return wait()
