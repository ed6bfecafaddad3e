"""Days that are over are summed; whatever is read from sums is what counting every call gives."""

from __future__ import annotations

import math
import random
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model.call import Call, Direction, Result
from daemon.model.steps import SHARES, percentiles
from daemon.store.pool import Database
from daemon.store.report_keeper import ReportKeeper
from daemon.store.reports import SUMMED_PARTS, Period, ReportRepository
from tests.rig import NUMBER, a_call

PEOPLE = ("150", "151", "152")
LINES = ("+375171112233", "+375171112244", None)
# A zone, and the first local day of four on which calls are drawn: clocks change in most of them, or the offset is no whole hour.
PLACES = [
    ("Europe/Minsk", date(2026, 11, 2)), ("Europe/Warsaw", date(2026, 10, 23)), ("Asia/Kathmandu", date(2026, 11, 2)),
    ("Australia/Lord_Howe", date(2026, 10, 2)), ("America/St_Johns", date(2026, 10, 30)),
]  # fmt: skip


def drawn(chance: random.Random, zone: ZoneInfo, first: date) -> Call:
    """Any call of those days, by milliseconds."""
    started = datetime(first.year, first.month, first.day, tzinfo=zone).timestamp() + chance.randrange(4 * 86_400_000) / 1000
    direction, who, answered = chance.choice(list(Direction)), chance.choice(PEOPLE), chance.random() < 0.7
    wait, talk = chance.choice((0.0, 0.004, 20.0, 20.001, chance.random() * 90)), chance.random() * 300 if answered else 0.0
    return a_call(
        id=str(uuid.UUID(int=chance.getrandbits(128))), direction=direction, started_at=started, answered_at=started + wait if answered else None,
        ended_at=started + wait + talk, talk_seconds=round(talk, 3), result=Result.ANSWERED if answered else Result.NO_ANSWER, customer_name=None, legs=(),
        rang=tuple(chance.sample(PEOPLE, chance.randrange(3))) if direction is Direction.IN else (), answered_by=who if answered else None,
        last_talked=who if answered else None, initiator=None if direction is Direction.IN else chance.choice(PEOPLE),
        customer_number=chance.choice(("+375291110001", "+375291110002", None)), line=None if direction is Direction.INTERNAL else chance.choice(LINES),
        consult=chance.random() < 0.05,
    )  # fmt: skip


async def store(db: Database, *calls: Call) -> None:
    async with db.tenant(NUMBER) as connection:
        await connection.fetch("select store_changes($1, 'main', $2, '[]')", NUMBER, [call.to_json() for call in calls])


async def sum_all(db: Database, zone: str, most: int = 40) -> int:
    reports, total = ReportRepository(db), 0
    while done := await reports.sum_days(NUMBER, zone, most):
        total += done
    return total


def counted(calls: list[Call], zone: ZoneInfo, first: date, last: date, line: str | None) -> dict[str, Any]:
    """The report's figures, straight from the calls."""
    mine = [c for c in calls if c.ended_at and not c.consult and first <= datetime.fromtimestamp(c.started_at, zone).date() <= last and line in (None, c.line)]
    told = [c for c in mine if c.direction is not Direction.INTERNAL]
    incoming = [c for c in mine if c.direction is Direction.IN]
    people: dict[str, Counter[str]] = {}
    for call in mine:
        for who in call.rang if call.direction is Direction.IN else ():
            people.setdefault(who, Counter())["rang"] += 1
        who, what = (call.initiator, "placed") if call.direction is Direction.OUT else (call.answered_by, "answered")
        if who and call.direction is not Direction.INTERNAL:
            people.setdefault(who, Counter()).update({what: 1})

    def kind(call: Call) -> str:
        return {"out": "outgoing", "internal": "internal"}.get(call.direction) or ("missed" if call.missed else "answered")

    return {
        "totals": Counter(kind(c) for c in mine), "talk": sum(c.talk_seconds for c in mine), "calls": len(mine),
        "days": Counter((datetime.fromtimestamp(c.started_at, zone).date().isoformat(), kind(c)) for c in mine),
        "hours": Counter((datetime.fromtimestamp(c.started_at, zone).hour, c.line, kind(c)) for c in told),
        "lines": Counter((c.line, kind(c)) for c in told),
        "people": {who: (n["rang"], n["answered"], n["placed"]) for who, n in people.items()},
        "within": sum(not c.missed and c.wait_seconds <= 20 for c in incoming),
        "waited": sorted(c.wait_seconds for c in incoming if not c.missed), "lost": sorted(c.wait_seconds for c in incoming if c.missed),
    }  # fmt: skip


def exact(values: list[float], share: float) -> float:
    """As percentile_cont."""
    place = share * (len(values) - 1)
    below, above = values[int(place)], values[min(int(place) + 1, len(values) - 1)]
    return below + (above - below) * (place - int(place))


async def same_as_counted(db: Database, calls: list[Call], zone: str, first: date, last: date, line: str | None) -> None:
    report, true = await ReportRepository(db).report(NUMBER, Period(first, last, zone, line)), counted(calls, ZoneInfo(zone), first, last, line)
    names = ("answered", "missed", "outgoing", "internal")
    assert {name: report["totals"][name] for name in names if report["totals"][name]} == dict(true["totals"])
    assert report["totals"]["calls"] == true["calls"]
    assert report["totals"]["talk_seconds"] == pytest.approx(true["talk"], abs=0.002)
    assert (
        Counter({(p["local"][:10], n): sum(q[n] for q in report["timeline"] if q["local"][:10] == p["local"][:10]) for p in report["timeline"] for n in names})
        == true["days"]
    )
    assert Counter({(row["hour"], row["line"], n): row[n] for row in report["by_hour"] for n in names[:3]}) == true["hours"]
    assert Counter({(row["line"], n): row[n] for row in report["by_line"] for n in names}) == true["lines"]
    assert {p["extension"]: (p["rang"], p["answered"], p["placed"]) for p in report["people"]} == true["people"]
    assert report["waiting"]["within_20_s"] == true["within"]
    for name, values in (("answered", true["waited"]), ("missed", true["lost"])):
        told = report["waiting"][name]
        assert (told is None) == (not values)
        assert told is None or told == {key: pytest.approx(exact(values, share), rel=0.0105, abs=0.002) for key, share in SHARES.items()}


@pytest.mark.parametrize(("zone", "first"), PLACES)
async def test_what_sums_tell_is_what_counting_the_calls_tells(db: Database, zone: str, first: date) -> None:
    chance = random.Random(f"{zone} {first}")
    calls = [drawn(chance, ZoneInfo(zone), first) for _ in range(150)]
    periods = [(first, first, None), (first + timedelta(1), first + timedelta(4), None), (first - timedelta(20), first + timedelta(20), None),
               (first, first + timedelta(3), LINES[0])]  # fmt: skip
    await store(db, *calls[:100])
    for period in periods[1:]:
        await same_as_counted(db, calls[:100], zone, *period)  # nothing is summed yet
    assert await sum_all(db, zone) > 0
    for period in periods:
        await same_as_counted(db, calls[:100], zone, *period)
    # What is known later: calls that were not there, calls that were known in part, calls that go.
    changed = [replace(call, talk_seconds=call.talk_seconds + 7, line=LINES[0], customer_name="Late") for call in chance.sample(calls[:90], 10)]
    await store(db, *calls[100:], *changed)
    async with db.tenant(NUMBER) as connection:
        await connection.execute("delete from calls where id = $1", uuid.UUID(calls[99].id))
    known = {call.id: call for call in (*calls, *changed)}
    del known[calls[99].id]
    await same_as_counted(db, list(known.values()), zone, *periods[1])
    assert 0 < await sum_all(db, zone) <= 8
    for period in periods:
        await same_as_counted(db, list(known.values()), zone, *period)
    assert await sum_all(db, zone) == 0


async def test_an_enterprise_that_moves_to_another_zone_has_other_days(db: Database) -> None:
    chance = random.Random(1)
    calls = [drawn(chance, ZoneInfo("Europe/Minsk"), date(2026, 11, 2)) for _ in range(60)]
    await store(db, *calls)
    await sum_all(db, "Europe/Minsk")
    for _ in range(2):
        await same_as_counted(db, calls, "Asia/Kathmandu", date(2026, 11, 2), date(2026, 11, 6), None)
        await sum_all(db, "Asia/Kathmandu")


async def test_a_day_is_summed_once_it_is_over_and_read_from_its_sums(db: Database) -> None:
    now = datetime.now(UTC)
    calls = [replace(drawn(random.Random(n), ZoneInfo("UTC"), now.date()), started_at=now.timestamp() - n * 7_200) for n in range(24)]
    await store(db, *calls)
    rounds = ReportKeeper(ReportRepository(db), lambda: {NUMBER: "UTC", "0400": "UTC"})
    assert await rounds.round() > 0
    assert await rounds.round() == 0
    async with db.tenant(NUMBER) as connection:
        last = await connection.fetchval("select max(until) from report_days where part = 'calls'")
        assert timedelta(hours=2) <= datetime.now(UTC) - last <= timedelta(hours=26, seconds=60)
        await connection.execute("update report_calls set talked = 1, talk_seconds = 12345, internal_talk_seconds = 0 where line = '' and day = $1",
                                 last.date() - timedelta(1))  # fmt: skip
    day = last.date() - timedelta(1)
    assert (await ReportRepository(db).report(NUMBER, Period(day, day, "UTC")))["totals"]["talk_seconds"] == 12_345
    async with db.tenant("0400") as connection:
        assert await connection.fetchval("select count(*) from report_calls") == 0
    assert await db.fetch("select * from report_days") == []


async def test_deliveries_and_call_backs_of_a_day_that_is_over_are_counted_anew_when_they_change(db: Database) -> None:
    reports, day = ReportRepository(db), (datetime.now(UTC) - timedelta(days=20)).date()
    period = Period(day, day + timedelta(1), "UTC")
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()
    lost = a_call(started_at=noon, answered_at=None, ended_at=noon + 20, result=Result.NO_ANSWER, talk_seconds=0.0, answered_by=None, last_talked=None)
    await store(db, lost)
    async with db.tenant(NUMBER) as connection:
        await connection.execute(
            "insert into deliveries (enterprise_number, integration, call_id, kind, key, priority, payload, state, created_at, finished_at) "
            "select $1, 'retailcrm', $2, 'journal', 'k' || n, 1, '{}', 'delivered', to_timestamp($3), to_timestamp($3 + n / 10.0) from generate_series(1, 9) n",
            NUMBER, uuid.UUID(lost.id), noon,
        )  # fmt: skip
        await connection.execute(
            "insert into integration_logs (enterprise_number, integration_type, event_type, request_data, response_data, status, created_at) "
            "values ($1, 'retailcrm', 'journal', '{}', '{}', 'error', to_timestamp($2))", NUMBER, noon,
        )  # fmt: skip
    for summed in (False, True):
        if summed:
            assert await sum_all(db, "UTC") > 0
        report = await reports.report(NUMBER, period)
        [told] = report["deliveries"]
        assert (told["total"], told["delivered"], told["dead"]) == (9, 9, 0)
        assert told["seconds"]["p50"] == pytest.approx(0.5, rel=0.01)
        assert report["delivery_failures"] == [{"day": day.isoformat(), "integration": "retailcrm", "attempts": 1, "failed": 1}]
        assert (report["callback"]["missed"], report["callback"]["reached"]) == (1, 0)
    async with db.tenant(NUMBER) as connection:
        await connection.execute("update deliveries set state = 'dead' where key = 'k1'")
    await store(
        db, replace(lost, id=str(uuid.uuid4()), started_at=noon + 600, answered_at=noon + 620, ended_at=noon + 700, result=Result.ANSWERED, talk_seconds=80.0)
    )
    for _ in range(2):
        report = await reports.report(NUMBER, period)
        assert (report["deliveries"][0]["delivered"], report["deliveries"][0]["dead"]) == (8, 1)
        assert (report["callback"]["missed"], report["callback"]["reached"]) == (1, 1)
        assert report["callback"]["seconds"]["p99"] == pytest.approx(600.0, rel=0.01)
        await sum_all(db, "UTC")


async def test_a_change_that_is_under_way_keeps_its_day_from_being_summed(db: Database) -> None:
    chance, first = random.Random(5), date(2026, 11, 2)
    calls = [drawn(chance, ZoneInfo("UTC"), first) for _ in range(30)]
    await store(db, *calls[:20])
    async with db.tenant(NUMBER) as connection:
        await connection.fetch("select store_changes($1, 'main', $2, '[]')", NUMBER, [call.to_json() for call in calls[20:]])
        async with db.tenant(NUMBER) as other:
            assert await other.fetchval("select sum_days($1, 'calls', 'UTC', 9)", NUMBER) == 0
    await sum_all(db, "UTC")
    await same_as_counted(db, calls, "UTC", first, first + timedelta(4), None)
    assert len(SUMMED_PARTS) == 3


@given(st.lists(st.floats(min_value=0.0, max_value=600_000), min_size=1, max_size=60))
def test_percentiles_of_steps_are_within_one_percent(values: list[float]) -> None:
    steps = [max(-350, min(1200, round(math.log(max(value, 1e-5)) / math.log(1.02)))) for value in values]
    told = percentiles([(step, 1) for step in steps])
    assert told == {name: pytest.approx(exact(sorted(values), share), rel=0.0105, abs=0.002) for name, share in SHARES.items()}


def test_percentiles_of_nothing_are_none() -> None:
    assert percentiles(None) is None
    assert percentiles([]) is None
