"""The client of serving.py: a plan as JSON in, what became of the requests as JSON out; in a process of its own.

A plan holds port, path, kind (content type), pictures (paths), seconds, and either clients or rate.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

SETTLE_SECONDS = 1.0
MOST_REQUESTS = 20_000
MOST_OPEN = 400
"""Connections that the client opens at most."""
IDLE_SECONDS = 2.0
"""A connection unused for so long is opened anew: a server may be about to close it."""
ANSWER_SECONDS = 15.0
"""Every request of the overload must have its answer or its 503 by then."""


@dataclass
class Load:
    """What a client saw: answers by status, the times of those that were accepted, and the longest of all.

    `settled_p99_ms` leaves out what was asked in the first second, before the server can know that it is overloaded.
    """

    statuses: dict[str, int]
    per_second: float
    p50_ms: float
    p99_ms: float
    settled_p99_ms: float
    longest_ms: float
    seconds: float


class Connection:
    """A kept-alive HTTP/1.1 connection that posts pictures; just enough of the protocol, to cost little time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.used = 0.0

    async def post(self, path: str, kind: str, body: bytes) -> int:
        if time.perf_counter() - self.used > IDLE_SECONDS:
            self.close()
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        lower = answer.lower()
        length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        if b"connection: close" in lower:
            self.close()
        self.used = time.perf_counter()
        return int(answer.split(b" ", 2)[1])

    def close(self) -> None:
        if self.streams:
            self.streams[1].close()
            self.streams = None


class Client:
    """Sends pictures and remembers every answer's status and seconds."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.bodies = [Path(path).read_bytes() for path in plan["pictures"]]
        self.free = [Connection(plan["port"]) for _ in range(MOST_OPEN)]
        self.began = 0.0
        self.seen: list[tuple[str, float, float]] = []

    async def send(self, number: int, connection: Connection, began: float) -> None:
        body = self.bodies[number % len(self.bodies)]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status = str(await connection.post(self.plan["path"], self.plan["kind"], wrap(body, self.plan["kind"])))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            status = type(error).__name__
            connection.close()
        self.seen.append((status, began - self.began, time.perf_counter() - began))

    async def wait_each(self, clients: int) -> None:
        """So many clients, each of which waits for its answer before it asks again."""
        end = time.perf_counter() + self.plan["seconds"]

        async def repeat(start: int) -> None:
            number = start
            while time.perf_counter() < end and len(self.seen) < MOST_REQUESTS:
                await self.send(number, self.free[start], time.perf_counter())
                number += clients

        await asyncio.gather(*(repeat(start) for start in range(clients)))

    async def keep_rate(self, rate: float) -> None:
        """So many requests a second, whether or not the earlier ones were answered."""
        tasks: set[asyncio.Task[None]] = set()
        start = time.perf_counter()
        for number in range(min(MOST_REQUESTS, int(rate * self.plan["seconds"]))):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            while not self.free:
                await asyncio.sleep(0.001)
            connection = self.free.pop()
            task = asyncio.create_task(self.send(number, connection, due))
            tasks.add(task)
            task.add_done_callback(lambda done, connection=connection: self._finish(tasks, done, connection))
        await asyncio.gather(*tasks)

    def _finish(self, tasks: "set[asyncio.Task[None]]", task: "asyncio.Task[None]", connection: Connection) -> None:
        tasks.discard(task)
        self.free.append(connection)

    def run(self) -> Load:
        self.began = time.perf_counter()
        load = self.keep_rate(self.plan["rate"]) if "rate" in self.plan else self.wait_each(self.plan["clients"])
        asyncio.run(load)
        seconds = time.perf_counter() - self.began
        taken = [took * 1000 for status, _, took in self.seen if status == "200"]
        settled = [took * 1000 for status, start, took in self.seen if status == "200" and start > SETTLE_SECONDS]
        statuses = [status for status, _, _ in self.seen]
        return Load(
            statuses={status: statuses.count(status) for status in sorted(set(statuses))},
            per_second=round(len(taken) / seconds, 2),
            p50_ms=find_percentile(taken, 50),
            p99_ms=find_percentile(taken, 99),
            settled_p99_ms=find_percentile(settled, 99),
            longest_ms=round(max(took for _, _, took in self.seen) * 1000, 2),
            seconds=round(seconds, 2),
        )


def find_percentile(values: list[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 2) if values else float("nan")


def wrap(body: bytes, kind: str) -> bytes:
    if not kind.startswith("multipart"):
        return body
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    return head + body + b"\r\n--b--\r\n"


if __name__ == "__main__":
    print(json.dumps(asdict(Client(json.loads(sys.argv[1])).run())))
