"""Reports over a tenant's calls and deliveries, by the enterprise's own clock.

A period is local days, both included. Its bounds and its days are made from local midnights by PostgreSQL, so that the day on which
clocks change has 23 or 25 hours; hours are steps of real time, so that the hour that comes twice is two hours.

Days that are over are summed once (sql/, report_days) and read as sums; percentiles come from steps of 2 % and are within 1 % of the true ones,
all else is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from daemon.errors import VochidError
from daemon.model.steps import percentiles
from daemon.store.pool import Database

MAX_DAYS = 366
HOURLY_UP_TO_DAYS = 3
SUMMED_PARTS = ("calls", "callback", "told")


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


# $1 enterprise, $2 first day, $3 last day, $4 zone, $5 line or null. A day that was summed is read as it is kept; any other is counted now.
_DAYS = """
days as materialized (select * from local_days($2, $3, $4)),
kept as materialized (
  select d.day, s.part from days d join report_days s on s.enterprise_number = $1 and s.day = d.day and s.zone = $4 and s.since = d.since and s.until = d.until
  where s.day between $2 and $3),
fresh as materialized (
  select d.*, p.part from days d cross join (values ('calls'), ('callback'), ('told')) p (part)
  where d.since < now() and not exists (select from kept k where k.part = p.part and k.day = d.day))
"""

_CALLS = """
mine as materialized (
  select c.* from report_calls c
    where c.enterprise_number = $1 and c.day = any (array(select day from kept where part = 'calls')) and ($5::text is null or c.line = '=' || $5)
  union all
  select c.* from fresh f, count_calls($1, f.day, f.since, f.until, $4) c where f.part = 'calls' and ($5::text is null or c.line = '=' || $5)),
chosen as (select * from mine where line = case when $5::text is null then '' else '=' || $5 end),
hours as materialized (
  select m.day, m.line, h.answered, h.missed, h.outgoing, h.internal, (h.position - 1)::int as hour
  from mine m, unnest(m.answered, m.missed, m.outgoing, m.internal) with ordinality as h (answered, missed, outgoing, internal, position)),
whole as materialized (select * from hours where line = case when $5::text is null then '' else '=' || $5 end),
callbacks as materialized (
  select c.* from report_callbacks c
    where c.enterprise_number = $1 and c.day = any (array(select day from kept where part = 'callback')) and ($5::text is null or c.line = '=' || $5)
  union all
  select c.* from fresh f, count_callbacks($1, f.day, f.since, f.until) c where f.part = 'callback' and ($5::text is null or c.line = '=' || $5))
"""

_COUNTS = "sum(answered)::int as answered, sum(missed)::int as missed, sum(outgoing)::int as outgoing"

# Hours are of real time, so that the hour that comes twice is two: they are counted from the calls of a few days.
_BY_STEP = {
    "hour": """
      with points as (select d.day, at, least(d.until, at + interval '1 hour') as until
          from days d, generate_series(d.since, d.until - interval '1 second', interval '1 hour') at),
        counted as (
          select date_bin('1 hour', c.started_at, d.since) as at, count(*) filter (where direction = 'in' and not missed) as answered,
            count(*) filter (where missed) as missed, count(*) filter (where direction = 'out') as outgoing,
            count(*) filter (where direction = 'internal') as internal
          from days d join calls c on c.started_at >= d.since and c.started_at < d.until
          where c.enterprise_number = $1 and c.ended_at is not null and not c.consult and ($5::text is null or c.line = $5) group by 1)
      select extract(epoch from p.at)::bigint as at, to_char(p.at at time zone $4, 'YYYY-MM-DD"T"HH24:MI') as local,
        extract(epoch from p.until - p.at)::int as seconds, coalesce(c.answered, 0) as answered, coalesce(c.missed, 0) as missed,
        coalesce(c.outgoing, 0) as outgoing, coalesce(c.internal, 0) as internal
      from points p left join counted c using (at) order by at""",
    "day": """
      select extract(epoch from d.since)::bigint as at, to_char(d.since at time zone $4, 'YYYY-MM-DD"T"HH24:MI') as local,
        extract(epoch from d.until - d.since)::int as seconds, coalesce(sum(answered), 0) as answered, coalesce(sum(missed), 0) as missed,
        coalesce(sum(outgoing), 0) as outgoing, coalesce(sum(internal), 0) as internal
      from days d left join whole w using (day) group by d.since, d.until order by 1""",
}

# The parts of a report about calls. Those of one row are named in _SINGLE. Steps of a time: see step_of in sql/ and `Steps`.
_PARTS = {
    "totals": """
      select answered + missed + outgoing + internal as calls, n.*, round(t.talk::numeric, 3)::float8 as talk_seconds,
        round((t.talk / nullif(t.talked, 0))::numeric, 3)::float8 as average_talk_seconds
      from (select coalesce(sum(answered), 0)::int as answered, coalesce(sum(missed), 0)::int as missed, coalesce(sum(outgoing), 0)::int as outgoing,
          coalesce(sum(internal), 0)::int as internal from whole) n,
        (select coalesce(sum(talk_seconds + internal_talk_seconds), 0) as talk, coalesce(sum(talked), 0) as talked from chosen) t""",
    "timeline": "{step}",
    # The day's shape: calls by the hour that the local clock showed, every line by itself.
    "by_hour": f"""
      select h as hour, nullif(substr(line, 2), '') as line, coalesce(answered, 0) as answered, coalesce(missed, 0) as missed, coalesce(outgoing, 0) as outgoing
      from generate_series(0, 23) h left join (
        select hour, line, {_COUNTS} from hours where line <> '' and answered + missed + outgoing > 0 group by 1, 2) n on n.hour = h order by 1, 2""",
    "by_line": """
      select nullif(substr(n.key, 2), '') as line, answered + missed + outgoing as calls, answered, missed, outgoing, 0 as internal,
        round(talk::numeric, 3)::float8 as talk_seconds
      from (select line as key, {counts} from hours where line <> '' group by 1) n
        join (select line as key, sum(talk_seconds) as talk from mine where line <> '' group by 1) t using (key)
      where answered + missed + outgoing > 0 order by calls desc, line limit 100""".replace("{counts}", _COUNTS),
    # How long callers waited: those who were answered, and those who were not.
    "waiting": """
      select (select jsonb_agg(jsonb_build_array(step, calls)) from (
          select step, sum(calls) as calls from chosen, unnest(waited_steps, waited) as w (step, calls) group by 1) s) as answered,
        (select jsonb_agg(jsonb_build_array(step, calls)) from (
          select step, sum(calls) as calls from chosen, unnest(lost_steps, lost) as w (step, calls) group by 1) s) as missed,
        coalesce((select sum(within_20_s) from chosen), 0) as within_20_s, coalesce((select sum(answered + missed) from whole), 0) as calls""",
    # What each of ours did: incoming calls that rang at, were answered by; outgoing calls placed; seconds talked.
    "people": """
      select p.who as extension, sum(p.rang)::int as rang, sum(p.took)::int as answered, sum(p.placed)::int as placed,
        round(sum(p.talk)::numeric, 3)::float8 as talk_seconds
      from chosen c, unnest(c.extensions, c.rang, c.took, c.placed, c.talk) as p (who, rang, took, placed, talk)
      group by 1 order by sum(p.took) + sum(p.placed) desc, 1 limit 500""",
    # From a missed call's end to the first talk with the same customer, whoever called, within seven days.
    "callback": """
      select coalesce((select sum(missed) from callbacks), 0) as missed, coalesce(sum(n), 0) as reached, jsonb_agg(jsonb_build_array(step, n)) as seconds
      from (select step, sum(n) as n from callbacks c, unnest(c.steps, c.calls) as u (step, n) group by 1) s""",
}
_SINGLE = frozenset({"totals", "waiting", "callback"})

# From the commit to the CRM's answer, and what became of it, by integration and kind; attempts by local day.
_TOLD = f"""
with {_DAYS},
told as materialized (
  select t.* from report_told t where t.enterprise_number = $1 and t.day = any (array(select day from kept where part = 'told'))
  union all select t.* from fresh f, count_told($1, f.day, f.since, f.until) t where f.part = 'told'),
planned as (select * from told where kind <> ''),
steps as (select integration, kind, jsonb_agg(jsonb_build_array(step, n)) as seconds
  from (select integration, kind, step, sum(n) as n from planned p, unnest(p.steps, p.counts) as u (step, n) group by 1, 2, 3) s group by 1, 2)
select
  (select coalesce(jsonb_agg(x), '[]') from (
    select n.*, s.seconds from (
      select integration, kind, sum(deliveries) as total, coalesce(sum(deliveries) filter (where state = 'delivered'), 0) as delivered,
        coalesce(sum(deliveries) filter (where state = 'dead'), 0) as dead, coalesce(sum(deliveries) filter (where state = 'dropped'), 0) as dropped,
        coalesce(sum(deliveries) filter (where state in ('waiting', 'sending')), 0) as waiting
      from planned group by 1, 2) n left join steps s using (integration, kind) order by integration, kind) x) as deliveries,
  (select coalesce(jsonb_agg(x), '[]') from (
    select to_char(day, 'YYYY-MM-DD') as day, integration, sum(deliveries) as attempts, coalesce(sum(deliveries) filter (where state = 'failure'), 0) as failed
    from told where kind = '' group by told.day, 2 order by told.day, 2) x) as delivery_failures
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
            told = await connection.fetchrow(_TOLD, *days)
        assert row is not None  # neither has a from: there is always one
        assert told is not None
        found = {name: row[name][0] if name in _SINGLE else row[name] for name in _PARTS}
        for name, key in (("waiting", "answered"), ("waiting", "missed"), ("callback", "seconds")):
            found[name][key] = percentiles(found[name][key])
        deliveries = [{**one, "seconds": percentiles(one["seconds"])} for one in told["deliveries"]]
        return {
            "from": period.first.isoformat(), "to": period.last.isoformat(), "timezone": period.zone, "step": period.step, "line": period.line, **found,
            "deliveries": deliveries, "delivery_failures": told["delivery_failures"],
        }  # fmt: skip

    async def sum_days(self, enterprise: str, zone: str, most: int) -> int:
        """Sums at most so many days of every part that are over; gives how many were. 0: nothing is left to do, or another daemon is at it."""
        done = 0
        for part in SUMMED_PARTS:
            async with self._db.tenant(enterprise) as connection:
                done += await connection.fetchval("select sum_days($1, $2, $3, $4)", enterprise, part, zone, most)
        return done


def _statement(step: str) -> str:
    parts = (f"(select coalesce(jsonb_agg(x), '[]') from ({part.replace('{step}', _BY_STEP[step])}) x) as {name}" for name, part in _PARTS.items())
    return f"with {_DAYS}, {_CALLS} select {', '.join(parts)}"
