"""An outbox with up to a million deliveries that wait: what one claim costs, and what looks at all connections every few seconds.

PostgreSQL alone, through the outbox's own statements, one after the other: the database's time and the round trip. Two shapes: even, as an outage
of the network leaves it (500 connections), and one connection that has all of it.
Every third lane waits behind a delivery that is not due yet: what stands behind it is passed over by every claim.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import asyncpg

from adapters.bitrix24.limits import POLICY as SHARED
from adapters.retailcrm.limits import POLICY
from daemon.delivery.dispatcher import POPUPS
from daemon.delivery.outbox import Outbox, Settled
from daemon.delivery.verdict import Verdict
from daemon.model.call import Call, Direction
from daemon.store.embedded import EmbeddedPostgres
from daemon.store.migrate import migrate
from daemon.store.pool import Database, dump_json
from lab.run import short_directory

SIZES = (10_000, 100_000, 1_000_000)
CONNECTIONS = 500
ROOM = 8
CLAIMS = 200
KINDS = list(POLICY.deadline_s)
BACKLOG_MOST = 20_000

_FILL = """
insert into deliveries (enterprise_number, integration, call_id, kind, key, priority, payload, due_at, created_at)
select to_char(case when $3 then 0 else n / 2 % $2 end, 'FM0000'), 'retailcrm', md5((n / 2)::text)::uuid, k.kind, 'bench:' || n, k.priority,
  jsonb_build_object('call', $4::jsonb || jsonb_build_object('id', md5((n / 2)::text)::uuid)),
  now() + case when n % 6 = 0 then interval '1 hour' else interval '0' end, now() - interval '1 hour' + n * interval '1 millisecond'
from generate_series(0, $1 - 1) n, lateral (select * from (values ('popup', 0), ('hangup', 0), ('journal', 1), ('recording', 2)) v (kind, priority)
  offset n % 7 % 4 limit 1) k
"""
CALL = Call(
    id="", enterprise="0000", pbx="main", linkedid="1.1", direction=Direction.IN, started_at=1_763_701_800.0, customer_number="+375296254070", rang=("150",),
)  # fmt: skip


@dataclass(frozen=True)
class Costs:
    """Milliseconds, sorted, of every statement that was asked again and again, by its name."""

    shape: str
    waiting: int
    took_ms: dict[str, list[float]]


async def measure(sizes: Sequence[int] = SIZES, claims: int = CLAIMS) -> list[Costs]:
    """Each size in both shapes, in a database of its own that is removed."""
    home = short_directory("vochid-bench-")
    server = EmbeddedPostgres(home)
    await server.start(own=True)
    try:
        await migrate(server.url)
        owner = await asyncpg.connect(server.url)
        db = await Database.open(server.url)
        found = []
        try:
            for size in sizes:
                for shape in ("even", "one"):
                    await fill(owner, size, one=shape == "one")
                    found.append(Costs(shape, size, await _costs(Outbox(db, "bench"), db, claims, one=shape == "one")))
        finally:
            await db.close()
            await owner.close()
        return found
    finally:
        await server.stop()
        shutil.rmtree(home, ignore_errors=True)


async def fill(owner: asyncpg.Connection, size: int, *, one: bool, connections: int = CONNECTIONS) -> None:
    """An outbox with `size` deliveries that wait, two to a lane; in every third lane the first is not due yet."""
    await owner.execute("truncate deliveries")
    await owner.execute("select set_config('vochid.enterprise', '', false)")
    await owner.execute(_FILL, size, connections, one, dump_json(CALL.to_json()), timeout=600)
    await owner.execute("vacuum analyze deliveries", timeout=600)


async def _costs(outbox: Outbox, db: Database, claims: int, *, one: bool) -> dict[str, list[float]]:
    chance, took = random.Random(1), dict[str, list[float]]()

    async def timed(name: str, work: Callable[[], Awaitable[object]]) -> object:
        at = time.perf_counter()
        result = await work()
        took.setdefault(name, []).append((time.perf_counter() - at) * 1000)
        return result

    for turn in range(claims):
        key = (f"{0 if one else chance.randrange(CONNECTIONS):04d}", "retailcrm")
        if turn < 3:
            await outbox.claim(*key, POLICY, KINDS, ROOM, 30.0)  # the driver learns the types
        else:
            got = await timed("claim", partial(outbox.claim, *key, POLICY, KINDS, ROOM, 30.0))
            settled = [Settled(c.delivery, Verdict("delivered")) for request in got.requests for c in request]  # type: ignore[attr-defined]
            await timed("settle", partial(outbox.settle, *key, settled, []))
            await timed("claim popups alone", partial(outbox.claim, *key, SHARED, list(POPUPS), 1, 30.0))
        if turn % 40 == 4:
            await timed("due connections", outbox.due)
            await timed("expired claims", outbox.release_expired)
            await timed("backlog", lambda: db.fetch("select * from delivery_backlog($1)", BACKLOG_MOST))
            await timed("troubles", lambda: db.fetch("select * from connections_in_trouble(600)"))
    return {name: sorted(values) for name, values in took.items()}


if __name__ == "__main__":
    for costs in asyncio.run(measure()):
        print(costs.shape, costs.waiting)
        for name, values in costs.took_ms.items():
            print(f"{name:>24} {values[len(values) // 2]:>9.2f} {values[int(len(values) * 0.99)]:>9.2f}")
