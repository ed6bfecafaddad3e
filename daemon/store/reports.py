"""Reports over a tenant's calls and deliveries, by the enterprise's own clock.

A period is local days, both included. Its bounds and its days are made from local midnights by PostgreSQL, so that the day on which
clocks change has 23 or 25 hours; hours are steps of real time, so that the hour that comes twice is two hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from daemon.errors import VochidError
from daemon.store.pool import Database

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


# $1 enterprise, $2 first day, $3 last day, $4 zone, $5 line or null. `told` is read once, for all parts.
_PERIOD = """
bounds as (
  select $2::date::timestamp at time zone $4 as since, ($3::date + 1)::timestamp at time zone $4 as until),
told as materialized (
  select c.started_at, c.ended_at, c.direction, c.missed, c.line, c.rang, c.answered_by, c.initiator, c.wait_seconds, c.talk_seconds, c.customer_reversed
  from calls c where c.enterprise_number = $1 and c.started_at >= $2::date::timestamp at time zone $4
    and c.started_at < ($3::date + 1)::timestamp at time zone $4 and c.ended_at is not null and not c.consult and ($5::text is null or c.line = $5))
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

_STEPS = {"hour": "date_bin('1 hour', started_at, bounds.since)", "day": "date_trunc('day', started_at, $4)"}

_COUNTS = """
count(*) filter (where direction = 'in' and not missed) as answered, count(*) filter (where missed) as missed,
count(*) filter (where direction = 'out') as outgoing, count(*) filter (where direction = 'internal') as internal
"""

_SHARES = "array[0.5, 0.9, 0.95, 0.99]"

# The parts of a report; each is a select over `told`. Those of one row are named in _SINGLE.
_PARTS = {
    "totals": f"select count(*) as calls, {_COUNTS}, round(coalesce(sum(talk_seconds), 0)::numeric, 3)::float8 as talk_seconds, "
    "round((avg(talk_seconds) filter (where talk_seconds > 0))::numeric, 3)::float8 as average_talk_seconds from told",
    "timeline": f"""
      with counted as (select {{step}} as at, {_COUNTS} from told, bounds group by 1)
      select extract(epoch from p.at)::bigint as at, to_char(p.at at time zone $4, 'YYYY-MM-DD"T"HH24:MI') as local,
        extract(epoch from p.until - p.at)::int as seconds, coalesce(c.answered, 0) as answered, coalesce(c.missed, 0) as missed,
        coalesce(c.outgoing, 0) as outgoing, coalesce(c.internal, 0) as internal
      from points p left join counted c on c.at = p.at order by p.at""",
    # The day's shape: calls by the hour that the local clock showed, every line by itself.
    "by_hour": f"""
      select hour, line, coalesce(n.answered, 0) as answered, coalesce(n.missed, 0) as missed, coalesce(n.outgoing, 0) as outgoing
      from generate_series(0, 23) hour left join (
        select extract(hour from started_at at time zone $4)::int as hour, line, {_COUNTS} from told where direction <> 'internal' group by 1, 2) n
      using (hour) order by hour, line""",
    "by_line": f"""
      select line, count(*) as calls, {_COUNTS}, round(coalesce(sum(talk_seconds), 0)::numeric, 3)::float8 as talk_seconds from told
      where direction <> 'internal' group by line order by calls desc, line limit 100""",
    # How long callers waited: those who were answered, and those who were not; seconds.
    "waiting": f"""
      select percentile_cont({_SHARES}) within group (order by wait_seconds) filter (where not missed) as answered,
        percentile_cont({_SHARES}) within group (order by wait_seconds) filter (where missed) as missed,
        count(*) filter (where not missed and wait_seconds <= 20) as within_20_s, count(*) as calls from told where direction = 'in'""",
    # What each of ours did: incoming calls that rang at, were answered by; outgoing calls placed; seconds talked.
    "people": """
      select who as extension, sum(rang)::int as rang, sum(answered)::int as answered, sum(placed)::int as placed,
        round(sum(talked)::numeric, 3)::float8 as talk_seconds
      from (select unnest(rang) as who, 1 as rang, 0 as answered, 0 as placed, 0::float8 as talked from told where direction = 'in'
            union all select answered_by, 0, 1, 0, talk_seconds from told where direction = 'in' and answered_by is not null
            union all select initiator, 0, 0, 1, talk_seconds from told where direction = 'out' and initiator is not null) did
      where who is not null group by who order by sum(answered) + sum(placed) desc, who limit 500""",
    # From a missed call's end to the first talk with the same customer, whoever called; seconds. Talks are read once: those of the period and after.
    "callback": f"""
      with lost as (select ended_at, started_at, customer_reversed from told where missed and customer_reversed is not null),
        talks as (
          select n.customer_reversed, n.started_at, n.answered_at from calls n
          where n.enterprise_number = $1 and n.started_at >= $2::date::timestamp at time zone $4
            and n.started_at < ($3::date + 1 + {MAX_CALLBACK_DAYS})::timestamp at time zone $4
            and n.answered_at is not null and n.direction <> 'internal' and n.customer_number is not null),
        reached as (
          select l.ended_at, min(t.answered_at) as reached_at from lost l left join talks t on t.customer_reversed = l.customer_reversed
            and t.started_at > l.started_at and t.started_at < l.started_at + interval '{MAX_CALLBACK_DAYS} days'
          group by l.customer_reversed, l.started_at, l.ended_at)
      select count(*) as missed, count(reached_at) as reached,
        percentile_cont({_SHARES}) within group (order by greatest(0, extract(epoch from reached_at - ended_at)))
          filter (where reached_at is not null) as seconds
      from reached""",
}
_SINGLE = frozenset({"totals", "waiting", "callback"})

# From the commit to the CRM's answer, and what became of it, by integration and kind; seconds.
_DELIVERIES = f"""
select integration, kind, count(*) as total, count(*) filter (where state = 'delivered') as delivered,
  count(*) filter (where state = 'dead') as dead, count(*) filter (where state = 'dropped') as dropped,
  count(*) filter (where state in ('waiting', 'sending')) as waiting,
  percentile_cont({_SHARES}) within group (order by extract(epoch from finished_at - created_at)) filter (where state = 'delivered') as seconds
from deliveries where enterprise_number = $1 and created_at >= $2::date::timestamp at time zone $4
  and created_at < ($3::date + 1)::timestamp at time zone $4 group by 1, 2 order by 1, 2
"""

# Attempts at telling a CRM by local day: how many were made, how many failed.
_FAILURES = """
select to_char(created_at at time zone $4, 'YYYY-MM-DD') as day, integration_type as integration, count(*) as attempts,
  count(*) filter (where status = 'error') as failed
from integration_logs where enterprise_number = $1 and created_at >= $2::date::timestamp at time zone $4
  and created_at < ($3::date + 1)::timestamp at time zone $4 group by 1, 2 order by 1, 2
"""


class ReportRepository:
    """Reads one tenant's figures. Those of a line are of its calls; deliveries are always of all lines."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def report(self, enterprise: str, period: Period) -> dict[str, Any]:
        """All reports of a period, as the page and the API show them."""
        days = (enterprise, period.first, period.last, period.zone)
        async with self._db.tenant(enterprise) as connection:
            row = await connection.fetchrow(_statement(period.step), *days, period.line)
            deliveries = await connection.fetch(_DELIVERIES, *days)
            failures = await connection.fetch(_FAILURES, *days)
        assert row is not None  # it has no from: there is always one
        found = {name: row[name][0] if name in _SINGLE else row[name] for name in _PARTS}
        for name, key in (("waiting", "answered"), ("waiting", "missed"), ("callback", "seconds")):
            found[name][key] = _percentiles(found[name][key])
        return {
            "from": period.first.isoformat(), "to": period.last.isoformat(), "timezone": period.zone, "step": period.step, "line": period.line, **found,
            "deliveries": [{**dict(one), "seconds": _percentiles(one["seconds"])} for one in deliveries], "delivery_failures": [dict(one) for one in failures],
        }  # fmt: skip


def _statement(step: str) -> str:
    parts = (f"(select coalesce(jsonb_agg(x), '[]') from ({part.replace('{step}', _STEPS[step])}) x) as {name}" for name, part in _PARTS.items())
    return f"with {_PERIOD}, {_HOURS if step == 'hour' else _DAYS} select {', '.join(parts)}"


def _percentiles(values: list[float] | None) -> dict[str, float] | None:
    return None if values is None else {name: round(float(value), 3) for name, value in zip(("p50", "p90", "p95", "p99"), values, strict=True)}
