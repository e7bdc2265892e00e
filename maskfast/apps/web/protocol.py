"""uvicorn's HTTP/1.1 protocol with bounds on connections and on the time for a request's head; refusals are JSON."""

import asyncio
import http
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_HEAD = 16 << 10
"""Bytes of a request's line and headers."""


def make_protocol(*, head_seconds: float, max_connections: int) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn's `http` option."""
    return type(
        "BoundedProtocol",
        (_BoundedProtocol,),
        {"head_seconds": head_seconds, "max_connections": max_connections},
    )


class _BoundedProtocol(H11Protocol):
    head_seconds: float
    max_connections: int

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(503, "too many connections; try again", "Retry-After: 1\r\n")
        else:
            self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's name; its text is not ours
        self._refuse(400, "not a valid HTTP/1.1 request")

    def _watch_head(self) -> None:
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._stop_watching()
        elif self.head_timer is None:
            self.head_timer = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_watching(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def _give_up(self) -> None:
        self._refuse(408, f"the request's head took longer than {self.head_seconds:g} s")

    def _refuse(self, status: int, error: str, header: str = "") -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            body = json.dumps({"error": error})
            head = f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n{header}"
            close = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            self.transport.write(f"{head}{close}{body}".encode())
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
