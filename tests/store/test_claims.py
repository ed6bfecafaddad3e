"""What one claim takes out of the outbox, and what a settlement says of the rest."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from adapters.retailcrm.deliver import RetailCrm
from daemon.delivery import dispatcher
from daemon.delivery.outbox import Settled
from daemon.delivery.verdict import Verdict
from daemon.model.delivery import Kind
from daemon.model.signal import Ended
from daemon.store.pool import Database
from tests.rig import NUMBER, WITHIN_S, Rig, a_call, rig

SETTINGS = {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}
POLICY = replace(RetailCrm().policy, batch={Kind.JOURNAL: 3})


async def _claimed(r: Rig, room: int) -> tuple[list[list[str]], bool]:
    claims = await r.outbox.claim(NUMBER, "retailcrm", POLICY, list(Kind), room, 30.0)
    return [[f"{c.delivery.kind} {c.delivery.attempt}" for c in request] for request in claims.requests], claims.is_all


async def test_a_claim_takes_what_there_is_room_for_new_journals_together_and_tried_ones_alone(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        for _ in range(6):
            await r.record(a_call(), Ended(()), wake=False)
        async with db.tenant(NUMBER) as connection:
            await connection.execute("update deliveries set attempts = 2 where id in (select id from deliveries order by id limit 2)")
        for _ in range(2):
            await r.record(a_call(), Ended(("150",)), wake=False)
        assert await _claimed(r, 1) == ([["hangup 1"]], False)
        assert await _claimed(r, 2) == ([["hangup 1"], ["journal 3"]], False)
        assert await _claimed(r, 3) == ([["journal 3"], ["journal 1"] * 3], False)
        assert await _claimed(r, 3) == ([["journal 1"]], True)
        assert await _claimed(r, 3) == ([], True)


async def test_an_attempt_that_could_outlive_its_claim_is_not_begun(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that stood still between claiming and sending: another one may have claimed it meanwhile."""
    monkeypatch.setattr(dispatcher, "CLAIM_MARGIN_S", -1.0)
    async with rig(db, RetailCrm(), SETTINGS) as r:
        await r.record(a_call(), Ended(()))
        async with asyncio.timeout(WITHIN_S):
            while (found := (await r.outbox.list(NUMBER))[0])["last_error"] is None:
                await asyncio.sleep(0.02)
    assert found["last_error"].startswith("the claim is too old")
    async with db.tenant(NUMBER) as connection:
        assert await connection.fetch("select * from integration_logs where request_data ? 'url'") == [], "nothing was sent"


async def test_tried_ones_do_not_crowd_out_what_is_told_alone(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        for _ in range(20):
            await r.record(a_call(), Ended(()), wake=False)
        async with db.tenant(NUMBER) as connection:
            await connection.execute("update deliveries set attempts = 1, due_at = now() - interval '1 hour', priority = 0")
        await r.record(a_call(), Ended(("150",)), wake=False)
        assert await _claimed(r, 2) == ([["journal 2"], ["hangup 1"]], False)


async def test_a_settlement_says_whether_something_is_due_now(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        await r.record(a_call(), Ended(("150",)), wake=False)  # a hangup and a journal entry: one lane
        said = []
        for verdict in (Verdict("waiting", due_in_s=0.0), Verdict("delivered"), Verdict("waiting", due_in_s=60.0)):
            [[claimed]] = (await r.outbox.claim(NUMBER, "retailcrm", POLICY, list(Kind), 8, 30.0)).requests
            said.append((claimed.delivery.kind, await r.outbox.settle(NUMBER, "retailcrm", [Settled(claimed.delivery, verdict)], [])))
        assert said == [(Kind.HANGUP, True), (Kind.HANGUP, True), (Kind.JOURNAL, False)]


async def test_a_rehearsal_goes_all_the_way_and_leaves_nothing_behind(db: Database, database_url: str) -> None:
    await db.warm(3)
    owner = await asyncpg.connect(database_url)
    try:
        before = await owner.fetchval("select last_value from deliveries_id_seq")
        await db.warm(1)
        assert await owner.fetchval("select last_value from deliveries_id_seq") == before + 1
        for table in ("calls", "legs", "call_words", "deliveries", "integration_logs", "originate_requests"):
            assert await owner.fetchval(f"select count(*) from {table}") == 0
    finally:
        await owner.close()


async def test_what_another_daemon_is_just_claiming_is_not_claimed_with_it(db: Database, database_url: str) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        for _ in range(6):
            await r.record(a_call(), Ended(()), wake=False)
        owner = await asyncpg.connect(database_url)
        try:
            async with owner.transaction():  # the other daemon's claim, not committed yet
                rows = await owner.fetch("select id from claim_due($1, 'retailcrm', 'other', '{}', '{journal}', '{3}', '{journal}', 1, 30)", NUMBER)
                mine = asyncio.ensure_future(r.outbox.claim(NUMBER, "retailcrm", POLICY, list(Kind), 1, 30.0))
                async with asyncio.timeout(WITHIN_S):
                    while not mine.done() and not await db.fetchval("select count(*) from pg_locks where not granted"):
                        await asyncio.sleep(0.01)
            held = [claimed.delivery.id for request in (await mine).requests for claimed in request]
        finally:
            await owner.close()
        assert len(rows) == 3
        assert held, "what nobody holds is claimed at once"
        assert not {row["id"] for row in rows}.intersection(held)
