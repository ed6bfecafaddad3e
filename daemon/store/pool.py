"""Connections to PostgreSQL: as the application role, JSON both ways, one tenant per transaction."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from daemon.store.migrate import APP_ROLE

POOL_SIZE = 12
ACQUIRE_DEADLINE_S = 10.0
COMMAND_DEADLINE_S = 30.0
# A process that the server lost without a word holds its locks until then. The longest that a transaction of ours rests is an exchange of tokens.
ABANDONED_S = 60.0

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


class Database:
    """The daemon's pool. Everything it runs, runs as the application role and behind row-level security."""

    def __init__(self, pool: asyncpg.Pool, url: str) -> None:
        self._pool = pool
        self.url = url

    @classmethod
    async def open(cls, url: str, *, size: int = POOL_SIZE) -> Database:
        """Connects; `url` names the owner, which may become the application role."""
        pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            max_inactive_connection_lifetime=0,  # a new one knows no plans
            max_queries=2**31,
            command_timeout=COMMAND_DEADLINE_S,
            server_settings={
                "role": APP_ROLE,
                "application_name": "vochid",
                "jit": "off",
                "idle_in_transaction_session_timeout": f"{round(ABANDONED_S * 1000)}",
            },
            init=_json,
            reset=_leave_as_it_is,
        )
        return cls(pool, url)

    async def warm(self, count: int) -> None:
        """Opens `count` connections and makes the plans that calls need on each, so that no call waits for it."""
        async with AsyncExitStack() as held:
            for _ in range(min(count, self._pool.get_max_size())):
                connection = await held.enter_async_context(self._pool.acquire(timeout=ACQUIRE_DEADLINE_S))
                # The driver asks at length what an array is, once per connection and kind of array.
                await connection.fetch("select rehearse(), $1::text[], $2::int[], $3::uuid[], $4::bytea[]", [], [], [], [])

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def tenant(self, enterprise: str) -> AsyncIterator[Connection]:
        """A transaction in which only `enterprise` exists."""
        async with self._pool.acquire(timeout=ACQUIRE_DEADLINE_S) as connection, connection.transaction():
            await connection.execute("select set_config('vochid.enterprise', $1, true)", enterprise)
            yield connection

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Runs one statement outside any tenant: for the named functions that see all of them."""
        # Without a deadline of its own the pool would wait for ever for a connection whose server went without a word.
        async with self._pool.acquire(timeout=ACQUIRE_DEADLINE_S) as connection:
            return list(await connection.fetch(query, *arguments))

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        """As fetch, one value."""
        async with self._pool.acquire(timeout=ACQUIRE_DEADLINE_S) as connection:
            return await connection.fetchval(query, *arguments)

    async def listen(self) -> asyncpg.Connection:
        """A connection of its own for LISTEN; the caller adds listeners and closes it."""
        connection = await asyncpg.connect(self.url, timeout=10, server_settings={"role": APP_ROLE, "application_name": "vochid listen"})
        return connection


async def _json(connection: asyncpg.Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=dump_json, decoder=json.loads, schema="pg_catalog")


async def _leave_as_it_is(_: Connection) -> None:
    """Instead of a round trip after every use: all that is ever set on these connections is local to a transaction."""


def dump_json(value: Any) -> str:
    """Compact JSON that PostgreSQL takes: NUL cannot be stored, so it is left out."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("\\u0000", "") if "\\u0000" in text else text
