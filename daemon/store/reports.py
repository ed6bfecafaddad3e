"""Reports over a tenant's calls and deliveries, by the enterprise's own clock.

A period is local days, both included. Its bounds and its days are made from local midnights by PostgreSQL, so that the day on which
clocks change has 23 or 25 hours; hours are steps of real time, so that the hour that comes twice is two hours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from daemon.errors import VochidError
from daemon.store.pool import Connection, Database

MAX_DAYS = 366
HOURLY_UP_TO_DAYS = 3
MAX_CALLBACK_DAYS = 7  # later than this, a contact is no answer to the missed call


@dataclass(frozen=True, slots=True)
class Period:
    """Local days from `first` to `last`, both included, in the zone `zone`. `line`: only calls of this line of ours."""

    first: date
    last: date
    zone: str
    line: str | None = None

    @classmethod
    def parse(cls, first: str | None, last: str | None, zone: str, now: datetime, *, days: int = 7, line: str | None = None) -> Period:
        """From dates as text; without them the last `days` days up to today. Raises VochidError naming what is wrong."""
        today = now.astimezone(ZoneInfo(zone)).date()
        end = _date(last, "to") or max(today, _date(first, "from") or today)
        begin = _date(first, "from") or end - timedelta(days=days - 1)
        if begin > end:
            raise VochidError("the period ends before it begins", code="bad_parameter", field="to")
        if (end - begin).days >= MAX_DAYS:
            raise VochidError(f"a period has at most {MAX_DAYS} days", code="bad_parameter", field="from")
        return cls(begin, end, zone, line)

    @property
    def step(self) -> str:
        """What a plot's points stand for."""
        return "hour" if (self.last - self.first).days < HOURLY_UP_TO_DAYS else "day"


def _date(text: str | None, name: str) -> date | None:
    if text is None:
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or not 2000 <= found.year <= 2100:
        raise VochidError(f"{name} is a date, like 2026-11-21", code="bad_parameter", field=name)
    return found


# $1 enterprise, $2 first day, $3 last day, $4 zone, $5 line or null
_PERIOD = """
bounds as (
  select $2::date::timestamp at time zone $4 as since, ($3::date + 1)::timestamp at time zone $4 as until),
told as (
  select c.* from calls c, bounds where c.enterprise_number = $1 and c.started_at >= bounds.since and c.started_at < bounds.until
    and c.ended_at is not null and not c.consult and ($5::text is null or c.line = $5))
"""

_DAYS = """
points as (
  select day::timestamp at time zone $4 as at, (day + interval '1 day')::timestamp at time zone $4 as until
  from generate_series($2::date::timestamp, $3::date::timestamp, interval '1 day') day)
"""

_HOURS = """
points as (
  select at, at + interval '1 hour' as until from bounds, generate_series(bounds.since, bounds.until - interval '1 second', interval '1 hour') at)
"""

_COUNTS = """
count(*) filter (where direction = 'in' and not missed) as answered, count(*) filter (where missed) as missed,
count(*) filter (where direction = 'out') as outgoing, count(*) filter (where direction = 'internal') as internal
"""


class ReportRepository:
    """Reads one tenant's figures; each report is one statement."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def report(self, enterprise: str, period: Period) -> dict[str, Any]:
        """All reports of a period, as the page and the API show them."""
        parts: dict[str, Callable[[Connection, str, Period], Awaitable[Any]]] = {
            "totals": _totals, "timeline": _timeline, "by_hour": _by_hour, "by_line": _by_line, "waiting": _waiting, "people": _people,
            "callback": _callback, "deliveries": _deliveries, "delivery_failures": _failures,
        }  # fmt: skip
        async with self._db.tenant(enterprise) as connection:
            found = {name: await read(connection, enterprise, period) for name, read in parts.items()}
        return {"from": period.first.isoformat(), "to": period.last.isoformat(), "timezone": period.zone, "step": period.step, "line": period.line, **found}


def _arguments(enterprise: str, period: Period) -> tuple[Any, ...]:
    return enterprise, period.first, period.last, period.zone, period.line


async def _totals(connection: Connection, enterprise: str, period: Period) -> dict[str, Any]:
    row = await connection.fetchrow(
        f"with {_PERIOD} select count(*) as calls, {_COUNTS}, coalesce(sum(talk_seconds), 0) as talk_seconds, "
        "avg(talk_seconds) filter (where talk_seconds > 0) as average_talk_seconds from told",
        *_arguments(enterprise, period),
    )
    return _rounded(row)


async def _timeline(connection: Connection, enterprise: str, period: Period) -> list[dict[str, Any]]:
    points, step = (_HOURS, "date_bin('1 hour', started_at, bounds.since)") if period.step == "hour" else (_DAYS, "date_trunc('day', started_at, $4)")
    rows = await connection.fetch(
        f"with {_PERIOD}, {points}, counted as ("
        f"  select {step} as at, {_COUNTS} from told, bounds group by 1) "
        "select extract(epoch from p.at)::bigint as at, to_char(p.at at time zone $4, 'YYYY-MM-DD\"T\"HH24:MI') as local, "
        "extract(epoch from p.until - p.at)::int as seconds, coalesce(c.answered, 0) as answered, coalesce(c.missed, 0) as missed, "
        "coalesce(c.outgoing, 0) as outgoing, coalesce(c.internal, 0) as internal "
        "from points p left join counted c on c.at = p.at order by p.at",
        *_arguments(enterprise, period),
    )
    return [dict(row) for row in rows]


async def _by_hour(connection: Connection, enterprise: str, period: Period) -> list[dict[str, Any]]:
    """The day's shape: calls by the hour that the local clock showed, every line by itself."""
    rows = await connection.fetch(
        f"with {_PERIOD} select hour, line, coalesce(n.answered, 0) as answered, coalesce(n.missed, 0) as missed, coalesce(n.outgoing, 0) as outgoing "
        f"from generate_series(0, 23) hour left join ("
        f"  select extract(hour from started_at at time zone $4)::int as hour, line, {_COUNTS} from told where direction <> 'internal' group by 1, 2) n "
        "using (hour) order by hour, line",
        *_arguments(enterprise, period),
    )
    return [dict(row) for row in rows]


async def _by_line(connection: Connection, enterprise: str, period: Period) -> list[dict[str, Any]]:
    rows = await connection.fetch(
        f"with {_PERIOD} select line, count(*) as calls, {_COUNTS}, coalesce(sum(talk_seconds), 0) as talk_seconds from told "
        "where direction <> 'internal' group by line order by calls desc, line limit 100",
        *_arguments(enterprise, period),
    )
    return [_rounded(row) for row in rows]


async def _waiting(connection: Connection, enterprise: str, period: Period) -> dict[str, Any]:
    """How long callers waited: those who were answered, and those who were not; seconds."""
    row = await connection.fetchrow(
        f"with {_PERIOD} select "
        "percentile_cont(array[0.5, 0.9, 0.95, 0.99]) within group (order by wait_seconds) filter (where not missed) as answered, "
        "percentile_cont(array[0.5, 0.9, 0.95, 0.99]) within group (order by wait_seconds) filter (where missed) as missed, "
        "count(*) filter (where not missed and wait_seconds <= 20) as within_20_s, count(*) as calls from told where direction = 'in'",
        *_arguments(enterprise, period),
    )
    assert row is not None  # an aggregate always gives one
    return {"answered": _percentiles(row["answered"]), "missed": _percentiles(row["missed"]), "within_20_s": row["within_20_s"], "calls": row["calls"]}


async def _people(connection: Connection, enterprise: str, period: Period) -> list[dict[str, Any]]:
    """What each of ours did: incoming calls that rang at, were answered by; outgoing calls placed; seconds talked."""
    rows = await connection.fetch(
        f"""with {_PERIOD}, did as (
              select unnest(rang) as who, 1 as rang, 0 as answered, 0 as placed, 0::float8 as talked from told where direction = 'in'
              union all select answered_by, 0, 1, 0, talk_seconds from told where direction = 'in' and answered_by is not null
              union all select initiator, 0, 0, 1, talk_seconds from told where direction = 'out' and initiator is not null)
            select who as extension, sum(rang) as rang, sum(answered) as answered, sum(placed) as placed, sum(talked) as talk_seconds
            from did where who is not null group by who order by sum(answered) + sum(placed) desc, who limit 500""",
        *_arguments(enterprise, period),
    )
    return [_rounded(row) for row in rows]


async def _callback(connection: Connection, enterprise: str, period: Period) -> dict[str, Any]:
    """From a missed call's end to the first talk with the same customer, whoever called; seconds."""
    row = await connection.fetchrow(
        f"""with {_PERIOD}, lost as (
              select m.ended_at, (
                select n.answered_at from calls n where n.enterprise_number = $1 and n.customer_number is not null
                  and n.customer_reversed = m.customer_reversed and n.started_at > m.started_at
                  and n.started_at < m.started_at + interval '{MAX_CALLBACK_DAYS} days' and n.answered_at is not null and n.direction <> 'internal'
                order by n.started_at limit 1) as reached_at
              from told m where m.missed and m.customer_number is not null)
            select count(*) as missed, count(reached_at) as reached,
              percentile_cont(array[0.5, 0.9, 0.95, 0.99]) within group (order by greatest(0, extract(epoch from reached_at - ended_at)))
                filter (where reached_at is not null) as seconds
            from lost""",
        *_arguments(enterprise, period),
    )
    assert row is not None
    return {"missed": row["missed"], "reached": row["reached"], "seconds": _percentiles(row["seconds"])}


async def _deliveries(connection: Connection, enterprise: str, period: Period) -> list[dict[str, Any]]:
    """From the commit to the CRM's answer, and what became of it, by integration and kind; seconds."""
    rows = await connection.fetch(
        """select integration, kind, count(*) as total, count(*) filter (where state = 'delivered') as delivered,
             count(*) filter (where state = 'dead') as dead, count(*) filter (where state = 'dropped') as dropped,
             count(*) filter (where state in ('waiting', 'sending')) as waiting,
             percentile_cont(array[0.5, 0.9, 0.95, 0.99]) within group (order by extract(epoch from finished_at - created_at))
               filter (where state = 'delivered') as seconds
           from deliveries where enterprise_number = $1 and created_at >= $2::date::timestamp at time zone $4
             and created_at < ($3::date + 1)::timestamp at time zone $4 group by 1, 2 order by 1, 2""",
        *_arguments(enterprise, period)[:4],
    )
    return [{**dict(row), "seconds": _percentiles(row["seconds"])} for row in rows]


async def _failures(connection: Connection, enterprise: str, period: Period) -> list[dict[str, Any]]:
    """Attempts at telling a CRM by local day: how many were made, how many failed."""
    rows = await connection.fetch(
        """select to_char(created_at at time zone $4, 'YYYY-MM-DD') as day, integration_type as integration, count(*) as attempts,
             count(*) filter (where status = 'error') as failed
           from integration_logs where enterprise_number = $1 and created_at >= $2::date::timestamp at time zone $4
             and created_at < ($3::date + 1)::timestamp at time zone $4 group by 1, 2 order by 1, 2""",
        *_arguments(enterprise, period)[:4],
    )
    return [dict(row) for row in rows]


def _percentiles(values: list[float] | None) -> dict[str, float] | None:
    return None if values is None else {name: round(value, 3) for name, value in zip(("p50", "p90", "p95", "p99"), values, strict=True)}


def _rounded(row: Any) -> dict[str, Any]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
