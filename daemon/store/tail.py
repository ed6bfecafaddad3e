"""Calls as they change, read from the database: works wherever the daemon runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from daemon.store.calls import CallRepository
from daemon.store.pool import Database

POLL_S = 0.5


async def follow(db: Database, enterprise: str | None, began: Callable[[], None] = lambda: None) -> AsyncIterator[dict[str, Any]]:
    """Every change of a call from now on, of one enterprise or of all; never ends. `began` is called once nothing is missed any more."""
    since = await db.fetchval("select clock_timestamp()")
    began()
    calls = CallRepository(db)
    while True:
        newest = since
        numbers = [enterprise] if enterprise else [row["number"] for row in await db.fetch("select number from all_enterprises()")]
        for number in numbers:
            async with db.tenant(number) as connection:
                rows = await connection.fetch(
                    "select id, updated_at from calls where enterprise_number = $1 and updated_at > $2 "
                    "and started_at > now() - interval '1 day' order by updated_at",
                    number, since,
                )  # fmt: skip
            for row in rows:
                newest = max(newest, row["updated_at"])
                yield await calls.get(number, str(row["id"]))
        since = newest
        await asyncio.sleep(POLL_S)
