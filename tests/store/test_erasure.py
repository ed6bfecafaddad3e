"""Erasure by number and retention by age, on a database in which the number lies in every place that there is."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from adapters.retailcrm.deliver import RetailCrm
from daemon.erasure import Erasure
from daemon.errors import VochidError
from daemon.model.call import Call, Leg, LegKind, Result
from daemon.model.signal import Ended
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.audit import Actor, AuditLog
from daemon.store.crm_records import CrmRecordRepository
from daemon.store.erasure import ERASED, SPARED
from daemon.store.missed import MissedRepository
from daemon.store.pool import Database
from daemon.store.reports import ReportRepository
from daemon.tenants.service import Tenants
from daemon.wiring import retention
from daemon.wiring.retention import REMOVED_DAYS, keep_enterprises
from tests.rig import NUMBER, WITHIN_S, Rig, a_call, rig

PHONE, CORE = "+375296254070", "296254070"
SETTINGS = {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}
BY = Actor("anna", "admin")
DAY_S = 86_400.0
OTHERS = "+375291112233"


def over(**more: Any) -> Call:
    """A call that ended ten minutes ago."""
    end = time.time() - 600
    return replace(a_call(started_at=end - 60, answered_at=end - 50, ended_at=end, recordings=("2026/out-375296254070.wav",)), **more)


@pytest.fixture
async def house(db: Database, tmp_path: Path) -> AsyncIterator[tuple[Rig, asyncpg.Connection, Path]]:
    """The customer's own call, one of somebody else in which they were let ring, and their number in all that is told, logged and asked."""
    owner = await asyncpg.connect(db.url)
    await owner.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    (tmp_path / "2026").mkdir()
    (tmp_path / "2026/out-375296254070.mp3").write_bytes(b"x" * 100)
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        pbx = {"name": "main", "host": "127.0.0.1", "recordings": {"source": "directory", "path": str(tmp_path), "pbx_path": "/rec"}}
        document = {"number": NUMBER, "name": "Июнь", "pbxs": [pbx], "lines": [{"number": "+375171112233"}], "integrations": {"retailcrm": SETTINGS}}
        await r.tenants.put(NUMBER, document)
        mine = over(id=a_call().id, recordings=("/rec/2026/out-375296254070.wav",))
        missed = over(id=a_call().id, answered_at=None, answered_by=None, last_talked=None, result=Result.NO_ANSWER, recordings=(), talk_seconds=0.0)
        theirs = over(id=a_call().id, customer_number=OTHERS, customer_name="Другой", recordings=(), answered_by=PHONE, last_talked=PHONE, legs=(
            Leg("PJSIP/provider-7", OTHERS, LegKind.CUSTOMER, time.time() - 660),
            Leg("Local/80296254070@out-1;1", PHONE, LegKind.EXTERNAL, time.time() - 650)))  # fmt: skip
        alive = replace(over(id=a_call().id), ended_at=None, result=None)
        for call in (mine, missed, theirs, alive):
            await r.record(call, *((Ended(("151",)),) if call.ended_at else ()), wake=False)
        await _plant(owner, mine.id)
        yield r, owner, tmp_path
    await owner.close()


async def _plant(owner: asyncpg.Connection, call: str) -> None:
    said = {"text": "звонил +375 (29) 625-40-70 дважды", "n": 375296254070}
    await owner.execute(
        "update deliveries set last_error = 'no contact for 375296254070', state = 'dead', finished_at = now() where call_id = $1 and kind = 'journal'", call
    )
    delivery = await owner.fetchval("select min(id) from deliveries where call_id = $1", call)
    for about, phone in ((delivery, False), (None, True)):
        await owner.execute(
            "insert into integration_logs (enterprise_number, integration_type, event_type, request_data, response_data, status, error_message, delivery_id) "
            "values ($1, 'retailcrm', 'journal', $2, $3, 'error', $4, $5)",
            NUMBER, said if phone else {"customer": "ООО «Восток, север»"}, {}, "bad phone 80296254070" if phone else None, about,
        )  # fmt: skip
    await owner.execute("insert into lane_memory (enterprise_number, integration, lane, memory) values ($1, 'retailcrm', $2, $3)", NUMBER, call, said)
    packed = zlib.compress(b"Event: Newchannel\r\nCallerIDNum: 80296254070\r\n\r\n")
    for about_call in (call, a_call().id):
        await owner.execute(
            "insert into call_traces (enterprise_number, call_id, events, left_out, masked, raw, chunks, changes) values ($1, $2, 1, 0, false, $3, $4, $5)",
            NUMBER, about_call, packed, zlib.compress(b"[]"), zlib.compress(json.dumps([said]).encode()),
        )  # fmt: skip
    await owner.execute(
        "insert into originate_requests (enterprise_number, id, pbx, extension, phone, source, idempotency_key, state, reason, channel_id, other_channel_id, "
        "created_at) values ($1, gen_random_uuid(), 'main', '150', $2, 'api', $2, 'refused', 'not to 375296254070', 'a', 'b', now() - interval '1 hour')",
        NUMBER, PHONE,
    )  # fmt: skip
    await owner.execute("insert into amocrm_orders (enterprise_number, number, sent) values ($1, 'A1', $2)", NUMBER, said)
    for phone, subject in ((PHONE, "Сломалось"), (OTHERS, "Про 8 029 625-40-70")):
        ticket = await owner.fetchval(
            "insert into support_tickets (enterprise_number, external_id, subject, project, external_url, customer_phone, shared, status_by) "
            "values ($1, gen_random_uuid(), $2, 'tma', 'https://crm.example/375296254070', $3, true, 'crm') returning id",
            NUMBER, subject, phone,
        )  # fmt: skip
        message = await owner.fetchval(
            "insert into support_messages (enterprise_number, ticket_id, sender, body, attachments, sequence, author) "
            "values ($1, $2, 'tma', 'перезвоните на 296254070', $3, 1, '375296254070') returning id",
            NUMBER, ticket, [{"name": "375296254070.pdf"}],
        )  # fmt: skip
        await owner.execute(
            "insert into support_attachments (enterprise_number, message_id, position, name, mime, source_url) "
            "values ($1, $2, 0, '375296254070.pdf', 'application/pdf', 'https://crm.example/80296254070')",
            NUMBER, message,
        )  # fmt: skip
        await owner.execute(
            "insert into deliveries (enterprise_number, integration, record, kind, key, priority, payload) values ($1, 'tickets', $2, 'ticket', $2, 5, $3)",
            NUMBER, f"ticket/{ticket}", {"message_id": message, **said},
        )  # fmt: skip
    await owner.execute(
        "insert into connections (enterprise_number, integration, state, reason) values ($1, 'amocrm', 'paused', 'phone 375296254070 is wrong') "
        "on conflict (enterprise_number, integration) do update set reason = excluded.reason",
        NUMBER,
    )
    await _plant_records(owner)
    await owner.execute(
        "insert into report_calls values ($1, current_date, '', '{}', '{}', '{}', '{}', 0, 0, 0, 0, '{}', '{}', '{}', '{}', array[$2, '151'], "
        "'{0,1}', '{1,0}', '{0,0}', '{5,6}')",
        NUMBER, PHONE,
    )  # fmt: skip


async def _plant_records(owner: asyncpg.Connection) -> None:
    """The customer as a user, whom Bitrix24 has too; a company with the number; and records that only mention it."""
    user = await owner.fetchval(
        "insert into crm_users (enterprise_number, name, phone, email) values ($1, 'Восток', $2, 'v@example.com') returning id", NUMBER, PHONE
    )
    other = await owner.fetchval("insert into crm_users (enterprise_number, name) values ($1, 'Пётр, он же 80296254070') returning id", NUMBER)
    await owner.execute("insert into crm_companies (enterprise_number, name, phone) values ($1, 'Июнь', $2)", NUMBER, PHONE)
    await owner.execute("insert into crm_contracts (enterprise_number, number, idempotency_key) values ($1, '296254070', '375296254070')", NUMBER)
    await owner.execute("insert into crm_objects (enterprise_number, name, description) values ($1, 'Трактор', 'звонить +375 29 625 40 70')", NUMBER)
    for remote, record in enumerate((user, other), 1):
        await owner.execute(
            "insert into bitrix24_sync_mappings (tenant_id, local_type, local_id, bitrix24_type, bitrix24_id, sync_direction, agreed, conflicts, tasks) "
            "values ($1, 'user', $2, 'contact', $3, 'to', $4, $5, $6)",
            NUMBER, record, remote, {"phone": PHONE, "name": "Восток"} if record == user else {"name": "80296254070"},
            [{"field": "phone", "local": PHONE, "remote": None, "won": "local"}], [{"id": "1", "title": "Позвонить 296254070"}],
        )  # fmt: skip
        await owner.execute(
            "insert into integration_errors (enterprise_number, integration_type, operation, error_type, message, local_type, local_id) "
            "values ($1, 'bitrix24', 'sync_to', 'validation', 'PHONE 375296254070 is wrong', 'user', $2)",
            NUMBER, record,
        )  # fmt: skip


async def holding(owner: asyncpg.Connection) -> set[str]:
    """Every table, but for the call that is still alive, in which the number is to be read, be it backwards; traces opened."""
    found = set()
    tables = await owner.fetch("select relname from pg_class where relkind in ('r', 'p') and not relispartition and relnamespace = 'public'::regnamespace")
    alive = [str(row["id"]) for row in await owner.fetch("select id from calls where ended_at is null")]
    for table in (row["relname"] for row in tables):
        rows = [row["line"] for row in await owner.fetch(f"select t::text as line from {table} t")]
        lines = [line for line in rows if not any(one in line for one in alive)]
        bare = ["".join(c for c in line if c not in " -().") for line in lines]
        if any(CORE in line or CORE[::-1] in line for line in bare) or any("Восток" in line for line in lines):
            found.add(table)
    for row in await owner.fetch("select raw, changes from call_traces"):
        if any(CORE.encode() in zlib.decompress(row[part]) for part in ("raw", "changes")):
            found.add("call_traces")
    return found


async def erase(db: Database, r: Rig, phone: str = PHONE, *, dry_run: bool = False) -> dict[str, Any]:
    return await Erasure(db, r.tenants, AuditLog(db), CrmRecordRepository(db)).erase(NUMBER, phone, BY, dry_run=dry_run)


async def test_afterwards_the_number_is_nowhere_and_the_report_says_what_went(house: tuple[Rig, asyncpg.Connection, Path], db: Database) -> None:
    r, owner, directory = house
    planted = await holding(owner)
    assert planted >= set(ERASED) - {"lane_memory"}, "every place was planted"
    calls_before, sums_before = await owner.fetchval("select count(*) from calls"), await owner.fetchval("select count(*) from report_calls")
    would = await erase(db, r, "8 (029) 625-40-70", dry_run=True)
    assert await holding(owner) == planted
    assert (directory / "2026/out-375296254070.mp3").exists()
    done = await erase(db, r)
    assert {**would, "dry_run": False} == done, "the dry run told the same"
    assert await holding(owner) == set()
    assert not (directory / "2026/out-375296254070.mp3").exists()
    assert done["found"] == {
        "calls": 3, "legs": 4, "missed": 1, "traces": 2, "lane memories": 1, "deliveries": 4, "deliveries of others": 3, "log lines": 2, "tickets": 1,
        "mentions in other tickets": 7, "records": 2, "mentions in other records": 3, "clicks": 1, "orders": 1, "recordings": 1,
    }  # fmt: skip
    assert (done["still_live"], done["in_settings"], done["recordings_left"]) == (1, False, [])
    assert await owner.fetchval("select count(*) from calls") == calls_before, "calls stay, and count"
    assert await owner.fetchval("select count(*) from report_calls") == sums_before
    assert await owner.fetchval("select count(*) from deliveries where call_id is not null and state = 'waiting' and payload = '{\"erased\": true}'") == 0
    assert await owner.fetchval("select count(*) from calls where customer_number = $1", OTHERS) == 1, "the other customer keeps their history"
    [noted] = [row for row in await AuditLog(db).page(NUMBER) if row["action"] == "number erased"]
    assert CORE not in json.dumps(noted, default=str)
    assert noted["details"]["calls"] == 3


async def test_erasing_again_finds_nothing_and_what_is_asked_of_the_call_still_works(house: tuple[Rig, asyncpg.Connection, Path], db: Database) -> None:
    r, owner, _ = house
    await erase(db, r)
    again = await erase(db, r)
    assert not any(again["found"].values())
    assert again["still_live"] == 1
    assert (await MissedRepository(db).page(NUMBER))[0] == []
    for delivery in await r.outbox.list(NUMBER):
        assert delivery["state"] in ("discarded", "waiting")
    call = await owner.fetchval("select id::text from calls where erased_at is not null and missed is false limit 1")
    assert not await r.attach(NUMBER, call, "late-375296254070.wav"), "a name that CDR still knows does not come back"


async def test_a_number_of_the_enterprises_own_and_of_nobody_is_refused_and_another_tenant_keeps_its_own(
    house: tuple[Rig, asyncpg.Connection, Path], db: Database
) -> None:
    r, owner, _ = house
    for phone in ("+375171112233", "151", "nobody", ""):
        with pytest.raises(VochidError):
            await erase(db, r, phone)
    await owner.execute(
        "insert into calls (enterprise_number, id, pbx, linkedid, direction, customer_number, started_at, ended_at, wait_seconds, "
        "talk_seconds, missed, rang, transfers, click_to_call, consult, recordings, gap) select '0400', gen_random_uuid(), pbx, linkedid, "
        "direction, customer_number, started_at, "
        "ended_at, 1, 1, missed, rang, transfers, false, false, recordings, gap from calls where customer_number = $1 and ended_at is not null limit 1",
        PHONE,
    )
    await erase(db, r)
    assert await owner.fetchval("select count(*) from calls where enterprise_number = '0400' and customer_number = $1", PHONE) == 1


async def test_every_daemon_drops_what_it_remembers_of_that_enterprises_customers(house: tuple[Rig, asyncpg.Connection, Path], db: Database) -> None:
    r, _, _ = house
    heard: list[set[str]] = []
    other = Tenants(db, Vault(["k" * 40]), EgressPolicy(["127.0.0.0/8"]), {"retailcrm": RetailCrm.settings})
    other.on_erased(heard.append)
    running = asyncio.ensure_future(other.run())
    try:
        async with asyncio.timeout(WITHIN_S):
            while not heard:
                await erase(db, r)
                await asyncio.sleep(0.05)
        assert heard[0] == {NUMBER}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_rows_that_others_hold_are_waited_for_and_nobody_else_is_broken_off(house: tuple[Rig, asyncpg.Connection, Path], db: Database) -> None:
    r, owner, _ = house
    async with owner.transaction():
        await owner.execute("update calls set updated_at = now()")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("daemon.store.erasure.LOCK_S", 0.02)
            patch.setattr("daemon.store.erasure.TRIES", 2)
            with pytest.raises(VochidError, match="nothing was erased"):
                await erase(db, r)
    assert (await erase(db, r))["found"]["calls"] == 3


async def test_every_table_says_what_erasure_does_with_it(house: tuple[Rig, asyncpg.Connection, Path]) -> None:
    """A new table must be named in daemon/store/erasure.py: what goes from it, or why there is nobody's number in it."""
    _, owner, _ = house
    tables = await owner.fetch("select relname from pg_class where relkind in ('r', 'p') and not relispartition and relnamespace = 'public'::regnamespace")
    assert {row["relname"] for row in tables} == set(ERASED) | set(SPARED)
    assert not set(ERASED) & set(SPARED)
    telling = ("phone", "customer", "caller", "number", "body", "payload", "raw", "request", "response", "sent", "recording", "attachment")
    columns = await owner.fetch("select table_name, column_name from information_schema.columns where table_schema = 'public'")
    suspicious = {row["table_name"] for row in columns if any(word in row["column_name"].removeprefix("enterprise_number") for word in telling)}
    tables_of_ours = {row["relname"] for row in tables}
    known = {"asks", "enterprises", "user_internal_phones", "amocrm_tokens", "schema_migrations", "support_legacy"}  # settings, sealed answers, files, programs
    assert suspicious & tables_of_ours <= set(ERASED) | known, "a column that sounds like a customer's is not spared"


async def test_removing_and_purging_an_enterprise_leaves_nothing_of_it(house: tuple[Rig, asyncpg.Connection, Path]) -> None:
    r, owner, _ = house
    await r.tenants.remove(NUMBER, purge=True)
    left = set()
    for row in await owner.fetch("select table_name from information_schema.columns where table_schema = 'public' and column_name = 'enterprise_number'"):
        if await owner.fetchval(f"select count(*) from {row['table_name']} where enterprise_number = $1", NUMBER):
            left.add(row["table_name"])
    assert left <= {"leases", "audit"}, "a lease ends by itself, the audit stays"


# -- by age ---------------------------------------------------------------------------------------------------------------------------


async def test_retention_is_each_enterprises_own_and_sums_of_days_outlive_it(house: tuple[Rig, asyncpg.Connection, Path], db: Database) -> None:
    r, owner, _ = house
    at = datetime.fromtimestamp(time.time() - 100 * DAY_S, ZoneInfo("Europe/Minsk"))  # the day is the enterprise's
    old = over(id=a_call().id, started_at=at.timestamp(), answered_at=at.timestamp() + 5, ended_at=at.timestamp() + 60)
    await r.record(old, Ended(()), wake=False)
    reports = ReportRepository(db)
    while await reports.sum_days(NUMBER, "Europe/Minsk", 50):
        pass
    assert await owner.fetchval("select count(*) from report_days where part = 'calls' and day = $1", at.date()) == 1
    for table, column in {"deliveries": "finished_at", "integration_logs": "created_at", "call_traces": "stored_at"}.items():
        await owner.execute(f"update {table} set {column} = $1", at)
    await owner.execute("update deliveries set state = 'delivered'")
    await owner.execute("update support_tickets set status = 'closed', updated_at = $1 where customer_phone = $2", at, PHONE)
    assert not await keep_enterprises(db, r.tenants.all()), "nothing goes unless it is set"
    document, _ = await r.tenants.document(NUMBER)
    await r.tenants.put(NUMBER, {**document, "retention": {"calls_days": 90, "tickets_days": 60, "deliveries_days": 7, "logs_days": 7, "traces_days": 3}})
    gone = await keep_enterprises(db, r.tenants.all())
    assert {name: bool(gone[name]) for name in ("calls", "tickets", "deliveries", "logs", "traces")} == dict.fromkeys(gone, True)
    assert gone["calls"] == 1
    assert gone["tickets"] == 1
    assert await owner.fetchval("select count(*) from support_tickets") == 1, "an open ticket stays however old it is"
    assert await owner.fetchval("select count(*) from report_days where part = 'calls' and day = $1", at.date()) == 1, "the day's sum stands"
    assert not await keep_enterprises(db, r.tenants.all())


async def test_calls_and_tickets_of_removed_enterprises_go_after_a_year_in_bounded_pieces(
    house: tuple[Rig, asyncpg.Connection, Path], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    r, owner, _ = house
    at = datetime.fromtimestamp(time.time() - (REMOVED_DAYS + 1) * DAY_S, UTC)
    kept = await owner.fetchval("select count(*) from calls")
    await r.record(over(id=a_call().id, started_at=at.timestamp(), ended_at=at.timestamp() + 60), Ended(()), wake=False)
    await owner.execute("update support_tickets set updated_at = $1", at)
    assert not await keep_enterprises(db, r.tenants.all())
    await r.tenants.remove(NUMBER)
    sizes = []
    fetch = db.fetch

    async def noted(statement: str, *values: object) -> list[asyncpg.Record]:
        rows = await fetch(statement, *values)
        sizes.extend(row["gone"] for row in rows)
        return rows

    monkeypatch.setattr(db, "fetch", noted)
    monkeypatch.setattr(retention, "AT_ONCE", 1)
    assert await keep_enterprises(db, r.tenants.all()) == {"calls of removed enterprises": 1, "tickets of removed enterprises": 2}
    assert max(sizes) == 1
    assert await owner.fetchval("select count(*) from calls") == kept
    assert await owner.fetchval("select count(*) from support_tickets") == 0
