"""What the outbox's statements read of a long queue: a few rows by an index, however many wait. Counted by PostgreSQL itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from adapters.bitrix24.limits import POLICY as BITRIX24
from adapters.retailcrm.limits import POLICY as RETAILCRM
from benchmarks.waiting import fill
from daemon.delivery.dispatcher import POPUPS
from daemon.model.delivery import Kind
from daemon.store.pool import Connection, Database

WAITING, CONNECTIONS, FIRST = 4_000, 20, "0000"
READ = "select seq_scan as scans, idx_tup_fetch as fetched from pg_stat_xact_user_tables where relname = 'deliveries'"
CLAIM = "select id, kind from claim_due($1, 'retailcrm', 'test', $2, $3, $4, '{}', 4, 30)"
SETTLED = [{"id": 1_000_000, "state": "delivered", "uncertain": False, "counted": True}]
LOOKS = {  # at most so many rows per connection
    "select * from due_connections()": 6, "select * from open_connections()": 4, "select * from connections_in_trouble(600)": 4,
    "select release_expired_claims()": 1, "select * from delivery_backlog(200)": 14,
}  # fmt: skip


@pytest.fixture
async def owner(db: Database, database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    await fill(connection, WAITING, one=False, connections=CONNECTIONS)
    await connection.execute(  # told long ago, and before everything that waits
        "insert into deliveries (id, enterprise_number, integration, call_id, kind, key, priority, payload, state, finished_at, created_at) "
        "overriding system value "
        "select -n, enterprise_number, integration, call_id, kind, 'told:' || n, priority, '{}', 'delivered', now(), now() - interval '1 day' from "
        "(select *, row_number() over () as n from deliveries) d"
    )
    await connection.execute("analyze deliveries")
    yield connection
    await connection.close()


@asynccontextmanager
async def reading_at_most(db: Database, rows: int) -> AsyncIterator[Connection]:
    """What is done on this connection reads no whole table, and at most so many rows by its indexes."""
    async with db.tenant(FIRST) as connection:
        before = await connection.fetchrow(READ)  # what was done on it before may not be put away yet
        yield connection
        after = await connection.fetchrow(READ)
        assert before is not None
        assert after is not None
        assert (after["scans"] - before["scans"], after["fetched"] - before["fetched"] <= rows) == (0, True), (dict(before), dict(after))


def claim_of(kinds: list[Kind], batch: dict[Kind, int]) -> tuple[list[str], list[str], list[int]]:
    """The arguments of a claim that say what is claimed."""
    return [str(kind) for kind in kinds if kind not in batch], [str(kind) for kind in kinds if kind in batch], [batch[kind] for kind in kinds if kind in batch]


async def test_a_claim_reads_what_it_takes_and_little_more(db: Database, owner: asyncpg.Connection) -> None:
    for policy in (RETAILCRM, BITRIX24):
        async with reading_at_most(db, 8 * sum(policy.batch.values()) + 100) as connection:
            assert await connection.fetch(CLAIM, FIRST, *claim_of(list(policy.deadline_s), dict(policy.batch)))


async def test_a_claim_of_popups_does_not_read_through_everything_else(db: Database, owner: asyncpg.Connection) -> None:
    await owner.execute("update deliveries set enterprise_number = $1 where id > 0", FIRST)
    await owner.execute("delete from deliveries where id > 0 and kind in ('popup', 'hangup')")
    async with reading_at_most(db, 4) as connection:
        assert not await connection.fetch(CLAIM, FIRST, *claim_of(list(POPUPS), {}))


async def test_popups_are_claimed_before_what_has_waited_longer(db: Database, owner: asyncpg.Connection) -> None:
    await owner.execute("update deliveries set due_at = now() - interval '1 day' where id > 0 and kind in ('journal', 'recording')")
    for kinds in (list(POPUPS), list(Kind)):
        async with db.tenant(FIRST) as connection:
            claimed = [row["kind"] for row in await connection.fetch(CLAIM, FIRST, *claim_of(kinds, {}))]
            assert len(claimed) == 4
            assert set(claimed) <= {"popup", "hangup"}


async def test_what_looks_at_everything_takes_a_few_steps_per_connection(db: Database, owner: asyncpg.Connection) -> None:
    for look, each in LOOKS.items():
        async with reading_at_most(db, each * CONNECTIONS) as connection:
            await connection.fetch(look)


async def test_a_settlement_finds_its_delivery_by_its_number(db: Database, owner: asyncpg.Connection) -> None:
    async with reading_at_most(db, 20) as connection:
        assert await connection.fetchval("select settle_deliveries($1, 'retailcrm', 'test', $2, '[]')", FIRST, SETTLED) is True


async def test_the_backlog_is_exact_until_its_bound_and_tells_the_oldest_beyond_it(db: Database, owner: asyncpg.Connection) -> None:
    await owner.execute("update deliveries set state = 'sending' where id in (select min(id) from deliveries where id > 0 group by enterprise_number)")
    expected = await owner.fetch(
        "select state, count(*) as count, max(extract(epoch from now() - created_at)) as oldest from deliveries where id > 0 group by 1 order by 1"
    )
    all_of_it = await db.fetch("select state, count, oldest_s from delivery_backlog($1) order by 1", 2 * WAITING)
    assert [float(row["oldest_s"]) for row in all_of_it] == [pytest.approx(float(max(row["oldest"] for row in expected)), abs=60)] * 2
    assert [(row["state"], row["count"]) for row in all_of_it] == [(row["state"], row["count"]) for row in expected]
    bounded = await db.fetch("select state, count, oldest_s from delivery_backlog($1) order by 1", CONNECTIONS * 20)
    assert [(row["state"], row["count"]) for row in bounded] == [("sending", CONNECTIONS), ("waiting", CONNECTIONS * 19)]


async def test_a_connection_whose_oldest_is_too_old_is_in_trouble_and_no_other(db: Database, owner: asyncpg.Connection) -> None:
    await owner.execute("update deliveries set created_at = now() where id > 0")
    await owner.execute(
        "update deliveries set created_at = now() - interval '1 hour' where id = (select min(id) from deliveries where id > 0 and enterprise_number = '0007')"
    )
    assert [(row["enterprise_number"], row["code"]) for row in await db.fetch("select * from connections_in_trouble(600)")] == [("0007", "old_deliveries")]
