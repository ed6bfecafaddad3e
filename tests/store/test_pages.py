"""What the pages ask of PostgreSQL: history, reports, deliveries; that it stays on its indexes, within its tenant, and right across DST."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from adapters.retailcrm.deliver import RetailCrm
from daemon.delivery.desk import Desk
from daemon.delivery.letters import DeliveryFilter
from daemon.model.call import Direction, Result
from daemon.model.signal import Ended
from daemon.store.call_query import CallFilter, calls_of_numbers, conditions, termed_calls
from daemon.store.calls import CallRepository
from daemon.store.pool import Database
from daemon.store.reports import Period, ReportRepository
from lab.seed import Plan, seed
from tests.rig import NUMBER, a_call, rig

SETTINGS = {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}
WARSAW = ZoneInfo("Europe/Warsaw")


async def insert(db: Database, *calls: Any) -> None:
    """Stores calls without a PBX behind them."""
    async with db.tenant(calls[0].enterprise) as connection:
        for call in calls:
            assert call.enterprise == calls[0].enterprise
            await connection.execute("insert into leases values ($1, 'main', 'test', 1, now() + interval '1 hour') on conflict do nothing", call.enterprise)
            await connection.fetch("select record_changes($1, 'main', 'test', 1, $2, '[]')", call.enterprise, [call.to_json()])


def at(zone: ZoneInfo, *when: int, fold: int = 0) -> float:
    return datetime(*when, tzinfo=zone, fold=fold).timestamp()  # type: ignore[arg-type,misc]


def missed(started_at: float, **more: Any) -> Any:
    return a_call(id=str(uuid.uuid4()), started_at=started_at, answered_at=None, ended_at=started_at + 20, result=Result.NO_ANSWER, talk_seconds=0.0,
                  answered_by=None, last_talked=None, **more)  # fmt: skip


def answered(started_at: float, **more: Any) -> Any:
    return a_call(
        **{"id": str(uuid.uuid4()), "started_at": started_at, "answered_at": started_at + 5, "ended_at": started_at + 65, "talk_seconds": 60.0, **more}
    )


# -- history -------------------------------------------------------------------------------------------------------------


async def test_history_is_found_by_the_end_of_a_number_by_a_name_and_by_who_took_part(db: Database) -> None:
    calls = CallRepository(db)
    await insert(
        db, a_call(started_at=1.0), answered(2.0, customer_number="+375291112233", customer_name="Ёлкина Софья"),
        answered(3.0, customer_number=None, customer_name=None, queue="sales"), answered(4.0, customer_number="151", customer_name="O'Neill & Сын \\ {x}"),
    )  # fmt: skip

    async def found(**asked: Any) -> list[float]:
        items, following = await calls.page(NUMBER, CallFilter(**asked))
        assert following is None
        return [datetime.fromisoformat(item["started_at"]).timestamp() for item in items]

    assert await found() == [4.0, 3.0, 2.0, 1.0]
    assert await found(search="4070") == [1.0]
    assert await found(search="8 029 625-40-70") == [1.0]
    assert await found(search="151") == [4.0]
    for name in ("елкина", "СОФ", "ёлк соф", "«Ёлкина»"):
        assert await found(search=name) == [2.0], name
    assert await found(search="o'neill") == [4.0]
    assert await found(search="восток") == [1.0]
    for nothing in ("осток", "%", "елкина восток", "' | '0367/", "\\", "0367/восток"):
        assert await found(search=nothing) == [], nothing
    assert await found(queue="sales") == [3.0]
    assert await found(extension="150") == [4.0, 3.0, 2.0, 1.0]
    assert await found(extension="15") == []
    assert await found(extension="151", search="соф") == [2.0]
    assert await found(number="нет") == []
    assert await found(search="восток", until=datetime(1970, 1, 1, tzinfo=UTC)) == []


async def test_a_name_is_found_in_the_asking_tenants_calls_alone(db: Database) -> None:
    await insert(db, a_call())
    await insert(db, a_call(id=str(uuid.uuid4()), enterprise="0400"))
    calls = CallRepository(db)
    for number in (NUMBER, "0400"):
        assert [c["enterprise"] for c in (await calls.page(number, CallFilter(search="восток")))[0]] == [number]
    assert (await calls.page("0500", CallFilter(search="восток")))[0] == []
    assert await db.fetch("select * from call_words") == []  # no tenant, no words


@pytest.mark.parametrize("turns", [(7, 1), (7, 20), (3, 2), (500, 1)])
async def test_pages_of_a_search_by_name_join_without_a_gap(db: Database, monkeypatch: pytest.MonkeyPatch, turns: tuple[int, int]) -> None:
    monkeypatch.setattr("daemon.store.calls.TERMED_AT_ONCE", turns[0])
    monkeypatch.setattr("daemon.store.calls.TERMED_TURNS", turns[1])
    monkeypatch.setattr("daemon.store.calls.EXPORT_PAGE", 3)
    await insert(db, *(answered(float(n), direction=Direction.OUT if n % 4 else Direction.IN) for n in range(1, 30)))
    calls, seen, cursor = CallRepository(db), [], None
    asked = CallFilter(search="восток", direction="in")
    for _ in range(20):
        items, cursor = await calls.page(NUMBER, asked, cursor=cursor, limit=3)
        seen += [item["id"] for item in items]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 7
    assert [call["id"] async for call in calls.each(NUMBER, asked, 100)] == seen
    assert [call["id"] async for call in calls.each(NUMBER, asked, 4)] == seen[:4]


async def test_history_stays_on_its_indexes_behind_the_walls(db: Database) -> None:
    await seed(db.url, Plan(3_000, tuple(f"{n:04d}" for n in range(1, 6)), deliveries=True))
    asked = {
        "calls_newest": CallFilter(), "calls_number": CallFilter(search="4070"), "calls_missed": CallFilter(missed=True),
    }  # fmt: skip
    async with db.tenant("0003") as connection:
        await connection.execute("set local enable_seqscan = off")
        for index, one in asked.items():
            where, arguments = conditions("0003", one)
            plan = await connection.fetch(f"explain select * from calls where {' and '.join(where)} order by started_at desc, id desc limit 51", *arguments)
            text = "\n".join(row[0] for row in plan)
            assert index in text, text
            assert "(enterprise_number = '0003'::text)" in text, text
            assert "Seq Scan" not in text
        call = await connection.fetchval("select call_id from deliveries limit 1")
        plan = await connection.fetch("explain select * from deliveries where enterprise_number = '0003' and call_id = $1 order by id limit 200", call)
        assert "deliveries_call" in "\n".join(row[0] for row in plan)
    async with db.tenant("0003") as connection:
        statement, arguments = termed_calls("0003", ["восток"], CallFilter(), None)
        plan = await connection.fetch(f"explain {statement} limit 10", *arguments)
        text = "\n".join(row[0] for row in plan)
        assert "call_words_pkey" in text, text
        assert "word >= 'восток'" in text, text
        statement, arguments = calls_of_numbers("0003", ["+375291112233", "+375296254070"], CallFilter(), None, 500)
        plan = await connection.fetch(f"explain {statement} limit 500", *arguments)
        assert "calls_number" in (text := "\n".join(row[0] for row in plan)), text
        statement, arguments = termed_calls("0003", [], CallFilter(extension="151"), None)
        plan = await connection.fetch(f"explain {statement} limit 10", *arguments)
        assert "Sort" not in (text := "\n".join(row[0] for row in plan)), text


async def test_the_words_of_a_name_follow_the_call(db: Database) -> None:
    call = a_call()
    await insert(db, call)
    calls = CallRepository(db)
    await insert(db, replace(call, customer_name="Мария Кот"))
    assert (await calls.page(NUMBER, CallFilter(search="восток")))[0] == []
    assert len((await calls.page(NUMBER, CallFilter(search="кот мар")))[0]) == 1
    await insert(db, replace(call, customer_name=None))
    async with db.tenant(NUMBER) as connection:
        assert {r["word"] for r in await connection.fetch("select word from call_words")} == {"#150", "#151"}
        await insert(db, call)
        await connection.execute("delete from calls where enterprise_number = $1", NUMBER)
        assert await connection.fetchval("select count(*) from call_words") == 0


# -- reports ---------------------------------------------------------------------------------------------------------------


async def test_the_day_on_which_clocks_go_back_has_25_hours_and_loses_no_call(db: Database) -> None:
    await insert(
        db, answered(at(WARSAW, 2026, 10, 25, 2, 30)), missed(at(WARSAW, 2026, 10, 25, 2, 30, fold=1)),
        answered(at(WARSAW, 2026, 10, 25, 0, 0)), answered(at(WARSAW, 2026, 10, 25, 23, 59)),
        answered(at(WARSAW, 2026, 10, 24, 23, 59)), answered(at(WARSAW, 2026, 10, 26, 0, 0)),
    )  # fmt: skip
    day = date(2026, 10, 25)
    report = await ReportRepository(db).report(NUMBER, Period(day, day, "Europe/Warsaw"))
    hours = report["timeline"]
    assert (report["step"], len(hours)) == ("hour", 25)
    assert [(h["answered"], h["missed"]) for h in hours if h["local"] == "2026-10-25T02:00"] == [(1, 0), (0, 1)]
    assert sum(h["answered"] + h["missed"] for h in hours) == report["totals"]["calls"] == 4
    assert sum(h["answered"] + h["missed"] for h in report["by_hour"]) == 4
    week = await ReportRepository(db).report(NUMBER, Period(day - timedelta(3), day + timedelta(3), "Europe/Warsaw"))
    assert [(p["local"], p["seconds"]) for p in week["timeline"] if p["seconds"] != 86_400] == [("2026-10-25T00:00", 90_000)]
    assert [p["answered"] + p["missed"] for p in week["timeline"]] == [0, 0, 1, 4, 1, 0, 0]


async def test_the_day_on_which_clocks_go_forward_has_23_hours(db: Database) -> None:
    await insert(db, answered(at(WARSAW, 2026, 3, 29, 1, 59)), answered(at(WARSAW, 2026, 3, 29, 3, 0)), answered(at(WARSAW, 2026, 3, 29, 23, 59)))
    day = date(2026, 3, 29)
    hours = (await ReportRepository(db).report(NUMBER, Period(day, day, "Europe/Warsaw")))["timeline"]
    assert len(hours) == 23
    assert "2026-03-29T02:00" not in {h["local"] for h in hours}
    assert {h["local"]: h["answered"] for h in hours if h["answered"]} == {"2026-03-29T01:00": 1, "2026-03-29T03:00": 1, "2026-03-29T23:00": 1}
    week = await ReportRepository(db).report(NUMBER, Period(day - timedelta(3), day + timedelta(3), "Europe/Warsaw"))
    assert [p["seconds"] for p in week["timeline"] if p["seconds"] != 86_400] == [82_800]


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia", "Africa/Cairo"])
async def test_no_call_is_lost_in_any_zone(db: Database, zone: str) -> None:
    local = ZoneInfo(zone)
    first = at(local, 2026, 4, 2)
    await insert(db, *(answered(first + n * 3_700) for n in range(90)))
    expected = sum(date(2026, 4, 2) <= datetime.fromtimestamp(first + n * 3_700, local).date() <= date(2026, 4, 4) for n in range(90))
    report = await ReportRepository(db).report(NUMBER, Period(date(2026, 4, 2), date(2026, 4, 4), zone))
    assert sum(p["answered"] for p in report["timeline"]) == report["totals"]["calls"] == expected


async def test_reports_count_what_happened_and_a_call_back_is_the_first_talk_with_the_same_customer(db: Database) -> None:
    noon = at(WARSAW, 2026, 11, 10, 12)
    await insert(
        db, missed(noon), missed(noon + 60, customer_number="+375290000001", rang=("152",)), answered(noon + 120, line="+375171112244", queue="sales"),
        answered(noon + 600, direction=Direction.OUT, initiator="150", answered_at=noon + 620, rang=(), answered_by="150"),
        answered(noon + 200, direction=Direction.INTERNAL, customer_number="151", line=None, initiator="150"),
        answered(noon + 300, consult=True),
    )  # fmt: skip
    await insert(db, answered(noon, enterprise="0400"))
    day = date(2026, 11, 10)
    report = await ReportRepository(db).report(NUMBER, Period(day, day, "Europe/Warsaw"))
    totals = {name: report["totals"][name] for name in ("calls", "answered", "missed", "outgoing", "internal")}
    assert totals == {"calls": 5, "answered": 1, "missed": 2, "outgoing": 1, "internal": 1}
    assert report["callback"]["missed"] == 2
    assert report["callback"]["reached"] == 1
    assert report["callback"]["seconds"]["p50"] == pytest.approx(105.0, rel=0.01)  # from noon + 20 to the other line's call at noon + 125
    assert report["waiting"]["answered"]["p50"] == pytest.approx(5.0, rel=0.01)
    assert report["waiting"]["within_20_s"] == 1
    people = {p["extension"]: (p["rang"], p["answered"], p["placed"]) for p in report["people"]}
    assert people == {"150": (2, 0, 1), "151": (2, 1, 0), "152": (1, 0, 0)}
    assert {row["line"]: row["calls"] for row in report["by_line"]} == {"+375171112233": 3, "+375171112244": 1}
    only = await ReportRepository(db).report(NUMBER, Period(day, day, "Europe/Warsaw", "+375171112244"))
    assert only["totals"]["calls"] == 1


# -- deliveries --------------------------------------------------------------------------------------------------------------


async def test_dead_letters_of_one_cause_are_retried_together_and_the_rest_stays(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        for _ in range(6):
            await r.record(a_call(id=str(uuid.uuid4())), Ended(()), wake=False)
        async with db.tenant(NUMBER) as connection:
            await connection.execute("update deliveries set state = 'dead', attempts = 11, last_error = 'HTTP 502 from 10' || id || '5555' where id % 2 = 0")
            await connection.execute(
                "update deliveries set state = 'dead', attempts = 1, last_error = 'phone +37529111' || id || '22 is not valid' where id % 2 = 1"
            )
        desk = Desk(db)
        causes = await desk.causes(NUMBER)
        assert [(c["count"], c["cause"]) for c in sorted(causes, key=lambda c: c["cause"])] == [(3, "HTTP 502 from …"), (3, "phone … is not valid")]
        [summary] = await desk.summary(NUMBER)
        assert (summary["dead"], summary["waiting"]) == (6, 0)
        assert await r.outbox.change_many("0400", DeliveryFilter(state="dead"), retry=True) == (0, 0, set())
        assert await r.outbox.change_many(NUMBER, DeliveryFilter(state="dead", cause="HTTP 502 from …"), retry=True) == (3, 0, {"retailcrm"})
        retried = await r.outbox.page(NUMBER, DeliveryFilter(state="waiting"))
        assert [d["attempts"] for d in retried] == [0, 0, 0]
        dead = await r.outbox.page(NUMBER, DeliveryFilter(state="dead"))
        assert await r.outbox.change_many(NUMBER, DeliveryFilter(ids=[dead[0]["id"], 999_999]), retry=False) == (1, 0, {"retailcrm"})
        assert len(await r.outbox.page(NUMBER, DeliveryFilter(state="dead"))) == 2


async def test_many_are_changed_in_portions_and_the_rest_is_counted(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.delivery.outbox.MAX_AT_ONCE", 2)
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        for _ in range(5):
            await r.record(a_call(id=str(uuid.uuid4())), Ended(()), wake=False)
        async with db.tenant(NUMBER) as connection:
            await connection.execute("update deliveries set state = 'dead'")
        left = [(await r.outbox.change_many(NUMBER, DeliveryFilter(state="dead"), retry=False))[:2] for _ in range(4)]
        assert left == [(2, 3), (2, 1), (1, 0), (0, 0)]


async def test_a_calls_deliveries_come_with_what_was_said(db: Database) -> None:
    await seed(db.url, Plan(50, (NUMBER,), days=5))
    calls, desk = CallRepository(db), Desk(db)
    told = [await desk.of_call(NUMBER, call["id"]) for call in (await calls.page(NUMBER, limit=50))[0]]
    delivered = [d for one in told for d in one if d["state"] == "delivered"]
    assert delivered
    assert all(d["exchanges"][0]["status"] == "success" for d in delivered)
    assert await desk.of_call("0400", (await calls.page(NUMBER))[0][0]["id"]) == []
