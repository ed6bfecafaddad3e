"""Messages between the daemons of one database, over LISTEN/NOTIFY. Thin shell.

What is said may be lost (a connection that breaks, a daemon that is alone): whatever must not be stands in a table. Nobody waits for a message to leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg
import structlog

from daemon.store.pool import Database, dump_json
from daemon.telemetry import metrics

CHANNEL = "vochid_nodes"
MAX_WAITING = 5_000  # messages; beyond, the oldest is lost
MAX_BYTES = 7_900  # PostgreSQL takes less than 8,000
AT_ONCE = 200
PULSE_S = 30.0
RETRY_S = 1.0

log = structlog.get_logger()
Handler = Callable[[str, Mapping[str, Any]], None]


class Post:
    """`owner` is this process. A handler is called with the sender and the body, synchronously; one that raises is logged."""

    def __init__(self, db: Database, owner: str) -> None:
        self._db = db
        self.owner = owner
        self._handlers: dict[str, Handler] = {}
        self._waiting: OrderedDict[object, str] = OrderedDict()
        self._news = asyncio.Event()
        self.on_connected: list[Callable[[], None]] = []  # what was said before may have been missed
        self.has_others: Callable[[], bool] = lambda: True
        self.connected = asyncio.Event()

    def on(self, kind: str, handler: Handler) -> None:
        """Who hears messages of one kind."""
        self._handlers[kind] = handler

    def say(self, kind: str, body: Mapping[str, Any], *, to: str | None = None, key: object = None) -> None:
        """Tells the others, or one of them. `key`: what waits under the same one is replaced. Nothing is said where nobody is."""
        if to is None and not self.has_others():
            return
        said = self.written(kind, body, to)
        if len(said.encode()) > MAX_BYTES:
            log.error("a message to other daemons is too long", kind=kind, size_bytes=len(said))
            return
        place = key if key is not None else object()
        self._waiting.pop(place, None)
        self._waiting[place] = said
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
            metrics.NODE_MESSAGES.labels("lost").inc()
        self._news.set()

    def written(self, kind: str, body: Mapping[str, Any], to: str | None = None) -> str:
        """A message as it is sent."""
        return dump_json({"kind": kind, "from": self.owner, "to": to, "body": body})

    async def send(self) -> None:
        """Sends what waits, many in one statement."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                batch = [self._waiting.popitem(last=False)[1] for _ in range(min(AT_ONCE, len(self._waiting)))]
                try:
                    await self._db.fetch("select pg_notify($1, said) from unnest($2::text[]) as said", CHANNEL, batch)
                    metrics.NODE_MESSAGES.labels("sent").inc(len(batch))
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                    metrics.NODE_MESSAGES.labels("lost").inc(len(batch))
                    log.warning("messages to other daemons were lost", count=len(batch), error=str(error)[:200])

    async def listen(self) -> None:
        """Hears the others; comes back when the connection is lost."""
        while True:
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("other daemons are not heard, tried again", error=str(error)[:200])
            await asyncio.sleep(RETRY_S)

    async def _listen(self) -> None:
        connection = await self._db.listen()
        gone = asyncio.Event()
        connection.add_termination_listener(lambda *_: gone.set())
        try:
            await connection.add_listener(CHANNEL, lambda *said: self._heard(str(said[-1])))
            self.connected.set()
            for listener in self.on_connected:
                listener()
            while not gone.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PULSE_S):
                        await gone.wait()
                    return
                await connection.fetchval("select true", timeout=PULSE_S)  # a line that only looks alive is found out
        finally:
            self.connected.clear()
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await connection.close(timeout=2)

    def _heard(self, said: str) -> None:
        try:
            message = json.loads(said)
            kind, sender, to, body = message["kind"], message["from"], message["to"], message["body"]
        except (ValueError, TypeError, KeyError, RecursionError):
            log.warning("a message that cannot be read", channel=CHANNEL, size_bytes=len(said))
            return
        if sender == self.owner or to not in (None, self.owner) or (handler := self._handlers.get(kind)) is None:
            return
        metrics.NODE_MESSAGES.labels("heard").inc()
        try:
            handler(sender, body)
        except Exception:
            log.error("a message from another daemon was not understood", kind=kind, exc_info=True)
