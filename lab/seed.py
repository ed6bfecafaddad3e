"""Believable history for looking at pages and for benchmarks: `python -m lab.seed --url URL [--calls N] [--enterprises N]`.

Rows are made inside PostgreSQL from a running number and a hash of it, so that the same numbers give the same calls and five
million of them take minutes. Customers, people and companies are invented.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass

import asyncpg

CHUNK = 100_000
BULK = 200_000
LINES = ("+375171112233", "+375171112244", "+375447770011")
EXTENSIONS = ("150", "151", "152", "153", "154", "155")
OWNERS = ("Приёмная", "Анна Ковальчук", "Пётр Лис", "Ольга Савич", "Максим Жук", "Елена Мороз")
NAMES = (
    "Иван Семёнов", "ООО «Восток, север»", "Мария Кот", "ЧУП «Ромашка»", "Алексей Гнедич", "Наталья Ярош", "ИП Дроздов", "Светлана Мазур",
    "Ёлкина Софья", "ООО «Лес и поле»", "Дмитрий Чайка", "Вера Одинец", "Юлия Тур", "Kate O'Neill", "ОАО «Берёзка плюс»", "Тимофей Щука",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How much, for whom, over how many days back from now.

    deliveries: every so-manieth call was told to a CRM; 0: none. skewed: the first enterprise has a twentieth of all calls. today: there are
    calls of this day too, as many as its hour allows; without it the newest are yesterday's.
    """

    calls: int
    enterprises: tuple[str, ...]
    days: int = 30
    deliveries: int = 1
    skewed: bool = False
    today: bool = False


# r: a number of 31 bits from n and a salt. The day's shape: working hours get most, the night little.
_PREPARE = """
create or replace function pg_temp.r(n bigint, salt int) returns bigint language sql immutable as
  $$ select (hashint8extended(n, salt) & 2147483647) $$;
create or replace function pg_temp.pick(items text[], of bigint) returns text language sql immutable as
  $$ select items[1 + (of % array_length(items, 1))] $$;
"""

# What a chunk made goes into `fresh` too: its legs and deliveries are made from there.
_CALLS = """
with made as (insert into calls (enterprise_number, id, pbx, linkedid, direction, customer_number, customer_name, line, started_at, answered_at, ended_at,
  wait_seconds, talk_seconds, result, missed, rang, answered_by, last_talked, initiator, transfers, queue, click_to_call, consult, recordings, gap)
select enterprise, id, 'main', extract(epoch from started_at)::bigint || '.' || n, direction, customer,
  case when pg_temp.r(customer_no, 7) % 10 < 6 then pg_temp.pick($5, pg_temp.r(customer_no, 8)) end,
  case when direction <> 'internal' then pg_temp.pick($6, line_no) end, started_at,
  case when answered then started_at + wait * interval '1 second' end,
  started_at + (wait + talk) * interval '1 second',
  wait, talk, result, direction = 'in' and not answered,
  case when direction = 'in' and result <> 'cancelled' then case when transferred or queued then array[first, second] else array[first] end else '{}' end,
  case when answered then first end, case when answered then case when transferred then second else first end end,
  case when direction <> 'in' then first end,
  case when transferred then jsonb_build_array(jsonb_build_object('kind', case when n % 3 = 0 then 'attended' else 'blind' end, 'from', first, 'to', second,
    'completed', true)) else '[]' end,
  case when queued then 'sales' end, direction = 'out' and n % 4 = 0, false,
  case when answered and n % 10 < 8 and direction <> 'internal'
    then array[to_char(started_at, 'YYYYMMDD-HH24MISS') || '-' || n || '.wav'] else '{}' end, n % 997 = 0
from (
  select made.*, direction = 'in' and pg_temp.r(n, 20) % 3 = 0 as queued, answered and direction = 'in' and pg_temp.r(n, 21) % 9 = 0 as transferred
  from (
    select drawn.*, result = 'answered' as answered, (2 + pg_temp.r(n, 5) % 38 + (pg_temp.r(n, 6) % 1000) / 1000.0)::float8 as wait,
      case when result = 'answered' then (8 + pg_temp.r(n, 9) % 120 + (pg_temp.r(n, 10) % 1000) * (pg_temp.r(n, 11) % 100) / 300.0)::float8 else 0 end as talk
    from (
      select n, pg_temp.pick($3, case when $8 and pg_temp.r(n, 30) % 20 = 0 then 0 else pg_temp.r(n, 1) end) as enterprise,
        md5('call ' || n)::uuid as id,
        drawn_at - case when pg_temp.r(n, 2) % $4 = 0 and not ($10 and drawn_at < now() - interval '10 minutes') then interval '1 day' else interval '0' end
          as started_at,
        (array['in', 'in', 'in', 'in', 'in', 'in', 'out', 'out', 'out', 'internal'])[1 + pg_temp.r(n, 13) % 10] as direction,
        case when pg_temp.r(n, 31) % 5 < 4 then 'answered' when pg_temp.r(n, 13) % 10 < 6
          then (array['cancelled', 'cancelled', 'no_answer', 'no_answer', 'busy', 'unavailable', 'voicemail'])[1 + pg_temp.r(n, 14) % 7]
          else (array['cancelled', 'no_answer', 'no_answer', 'busy', 'rejected', 'unavailable'])[1 + pg_temp.r(n, 14) % 6] end as result,
        pg_temp.r(n, 15) % $9 as customer_no, pg_temp.r(n, 16) as line_no,
        case when pg_temp.r(n, 13) % 10 = 9 then pg_temp.pick($7, pg_temp.r(n, 19))
             when pg_temp.r(n, 17) % 60 = 0 then null
             else '+37529' || lpad((pg_temp.r(pg_temp.r(n, 15) % $9, 18) % 10000000)::text, 7, '0') end as customer,
        pg_temp.pick($7, pg_temp.r(n, 22)) as first, pg_temp.pick($7, pg_temp.r(n, 22) + 1 + pg_temp.r(n, 23) % 4) as second
      from generate_series($1::bigint, $2::bigint) n
      cross join lateral (select date_trunc('day', now()) - ((pg_temp.r(n, 2) % $4) || ' days')::interval
          + ((case when pg_temp.r(n, 3) % 20 = 0 then pg_temp.r(n, 4) % 86400
              else 21600 + (pg_temp.r(n, 4) % 18000) + (pg_temp.r(n, 12) % 18000) end) || ' seconds')::interval
          + ((n % 1000) || ' milliseconds')::interval as drawn_at) day) drawn) made) shaped
on conflict do nothing returning *)
insert into fresh select made.*, split_part(linkedid, '.', 2)::bigint from made
"""

_LEGS = """
insert into legs (enterprise_number, call_id, position, channel, number, kind, started_at, answered_at, ended_at, cause)
select c.enterprise_number, c.id, leg.position, leg.channel, leg.number, leg.kind, leg.started_at, leg.answered_at, leg.ended_at, leg.cause
from fresh c
cross join lateral (
  select 1 as position, 'PJSIP/provider-' || lpad(to_hex(c.n), 8, '0') as channel, c.customer_number as number, 'customer' as kind, c.started_at,
    case when c.direction = 'in' then c.started_at + interval '0.4 s' else c.answered_at end as answered_at, c.ended_at,
    case c.result when 'busy' then 17 when 'no_answer' then 19 when 'rejected' then 21 when 'unavailable' then 20 else 16 end as cause
  union all
  select 2, 'PJSIP/' || coalesce(c.initiator, c.rang[1], '150') || '-' || lpad(to_hex(c.n), 8, 'a'), coalesce(c.initiator, c.rang[1]), 'internal',
    c.started_at + interval '0.7 s', case when c.direction = 'in' then c.answered_at else c.started_at + interval '0.8 s' end,
    case when jsonb_array_length(c.transfers) > 0 then c.answered_at + 0.4 * (c.ended_at - c.answered_at) else c.ended_at end, 16
    where c.initiator is not null or cardinality(c.rang) > 0
  union all
  select 3, 'PJSIP/' || c.rang[2] || '-' || lpad(to_hex(c.n), 8, 'b'), c.rang[2], 'internal',
    case when jsonb_array_length(c.transfers) > 0 then c.answered_at + 0.35 * (c.ended_at - c.answered_at) else c.started_at + interval '0.7 s' end,
    case when jsonb_array_length(c.transfers) > 0 then c.answered_at + 0.4 * (c.ended_at - c.answered_at) end,
    case when jsonb_array_length(c.transfers) > 0 then c.ended_at else c.answered_at end, case when jsonb_array_length(c.transfers) > 0 then 16 else 26 end
    where cardinality(c.rang) > 1) leg
on conflict do nothing
"""

_WORDS = """
insert into call_words
select c.enterprise_number, term, c.started_at, c.id from fresh f join calls c on c.enterprise_number = f.enterprise_number and c.id = f.id, terms_of(c) as term
on conflict do nothing
"""

_DELIVERIES = """
insert into deliveries (enterprise_number, integration, call_id, kind, key, priority, payload, state, attempts, due_at, last_error, created_at, finished_at)
select c.enterprise_number, 'retailcrm', c.id, kind, kind || ':' || c.id, case kind when 'popup' then 0 else 1 end,
  case kind when 'popup' then jsonb_build_object('type', c.direction, 'codes', c.rang) else '{}' end, state,
  case state when 'waiting' then 2 else 1 + n % 2 end,
  now() + interval '20 minutes', case state when 'dead' then pg_temp.pick(array['Telephony not enabled', 'the CRM did not take the call: phone is not valid',
    'given up after 11 tries: HTTP 502 Bad Gateway'], n) when 'waiting' then 'HTTP 503 Service Unavailable' when 'dropped' then 'too late to be shown' end,
  at, case when state <> 'waiting' then at + ((40 + pg_temp.r(n, 40) % 400 + case when n % 50 = 0 then 20000 else 0 end) || ' ms')::interval end
from fresh c
cross join lateral (values ('popup', c.started_at + interval '0.8 s'), ('journal', c.ended_at + interval '0.1 s')) as told (kind, at)
cross join lateral (select case when pg_temp.r(n, 41) % 60 = 0 and kind = 'journal' then 'dead' when pg_temp.r(n, 42) % 80 = 0 and kind = 'popup' then 'dropped'
  when n % 211 = 0 and kind = 'journal' then 'waiting' else 'delivered' end as state) s
where c.direction <> 'internal' and c.n % $1 = 0
on conflict do nothing
"""

_LOGS = """
insert into integration_logs (enterprise_number, integration_type, event_type, request_data, response_data, status, error_message, delivery_id, created_at)
select d.enterprise_number, d.integration, d.kind, jsonb_build_object('method', 'POST', 'url', 'https://example.retailcrm.ru/api/v5/telephony/call/event',
    'attempt', d.attempts, 'call', d.call_id, 'body', jsonb_build_object('apiKey', '***', 'type', d.kind)),
  case when d.state in ('delivered') then '{"status": 200, "body": {"success": true}, "duration_ms": 84.2}'::jsonb
    else jsonb_build_object('status', 400, 'body', jsonb_build_object('success', false, 'errorMsg', d.last_error), 'duration_ms', 91.7) end,
  case when d.state = 'delivered' then 'success' else 'error' end,
  case when d.state <> 'delivered' then d.last_error end, d.id, coalesce(d.finished_at, d.created_at)
from fresh c join deliveries d on d.enterprise_number = c.enterprise_number and d.call_id = c.id where d.state <> 'dropped'
"""


_MISSED = """
insert into missed_calls (enterprise_number, call_id, customer_number, line, missed_at, closed_at, closed_how, closed_by, closed_by_call, told_at)
select c.enterprise_number, c.id, c.customer_number, c.line, c.ended_at, n.answered_at,
  case when n.direction = 'out' then 'called_back' when n.direction = 'in' then 'got_through' end, n.answered_by, n.id, n.answered_at
from calls c left join lateral (
  select * from calls t where t.enterprise_number = c.enterprise_number and t.customer_number = c.customer_number and t.started_at > c.started_at
    and t.answered_at is not null and t.direction <> 'internal' order by t.started_at limit 1) n on true
where c.enterprise_number = any ($1) and c.missed and c.customer_number is not null
on conflict do nothing
"""


async def seed(url: str, plan: Plan) -> None:
    """Fills the database behind the owner's `url`. What is there already stays; the same plan again adds nothing."""
    connection = await asyncpg.connect(url, command_timeout=3_600)
    try:
        await connection.execute(_PREPARE + "create temp table fresh (like calls); alter table fresh add n bigint; set synchronous_commit = off")
        await connection.execute("alter table calls disable trigger calls_words_new")  # a trigger per call is slower than all words at once
        mend = await _put_indexes_away(connection) if plan.calls > BULK else []
        enterprises = list(plan.enterprises)
        customers = max(50, plan.calls // 12)
        for first in range(1, plan.calls + 1, CHUNK):
            last = min(first + CHUNK - 1, plan.calls)
            await connection.execute("truncate fresh")
            await connection.execute(
                _CALLS, first, last, enterprises, plan.days, list(NAMES), list(LINES), list(EXTENSIONS), plan.skewed, customers, plan.today
            )
            await connection.execute(_LEGS)
            await connection.execute(_WORDS)
            if plan.deliveries:
                await connection.execute(_DELIVERIES, plan.deliveries)
                await connection.execute(_LOGS)
            print(f"{last:>10} calls", flush=True)
        for statement in mend:
            print(statement[:100], flush=True)
            await connection.execute(statement)
        await connection.execute("alter table calls enable trigger calls_words_new")
        await connection.execute("analyze calls")
        await connection.execute(_MISSED, enterprises)
        for table in ("calls", "missed_calls", "call_words", "legs", "deliveries", "integration_logs"):
            await connection.execute(f"vacuum analyze {table}")
    finally:
        await connection.close()


async def _put_indexes_away(connection: asyncpg.Connection) -> list[str]:
    """Drops what is built faster at the end, and gives the statements that build it."""
    legs = await connection.fetchrow(
        "select conname, pg_get_constraintdef(oid) as definition from pg_constraint where conrelid = 'legs'::regclass and contype = 'f'"
    )
    indexes = await connection.fetch(
        """select c.relname, pg_get_indexdef(i.indexrelid) as definition from pg_index i join pg_class c on c.oid = i.indexrelid
           where i.indrelid in ('calls'::regclass, 'deliveries'::regclass, 'integration_logs'::regclass)
             and not exists (select from pg_constraint k where k.conindid = i.indexrelid)"""
    )
    assert legs is not None
    await connection.execute(f"alter table legs drop constraint {legs['conname']}")
    for index in indexes:
        await connection.execute(f"drop index {index['relname']}")
    # The definition of a partitioned table's index speaks of the table ONLY: its partitions need theirs too.
    return [*(index["definition"].replace(" ON ONLY ", " ON ") for index in indexes), f"alter table legs add constraint {legs['conname']} {legs['definition']}"]


def document(number: str, name: str = "Июнь") -> dict[str, object]:
    """An enterprise that fits the calls: its lines, its phones with their owners."""
    return {
        "number": number, "name": name, "pbxs": [],
        "lines": [{"number": line, "name": title} for line, title in zip(LINES, ("Продажи", "Поддержка", "Доставка"), strict=True)],
        "internal_phones": [{"number": n, "owner": owner} for n, owner in zip(EXTENSIONS, OWNERS, strict=True)],
    }  # fmt: skip


def main() -> None:
    """Command line."""
    options = argparse.ArgumentParser(prog="python -m lab.seed", description=__doc__)
    options.add_argument("--url", required=True, help="postgresql://… of the owner")
    options.add_argument("--calls", type=int, default=5_000)
    options.add_argument("--enterprise", default="0367", help="the one enterprise, when --enterprises is 1")
    options.add_argument("--enterprises", type=int, default=1)
    options.add_argument("--days", type=int, default=30)
    chosen = options.parse_args()
    numbers = (chosen.enterprise,) if chosen.enterprises == 1 else tuple(f"{n:04d}" for n in range(1, chosen.enterprises + 1))
    asyncio.run(seed(chosen.url, Plan(chosen.calls, numbers, chosen.days, skewed=chosen.enterprises > 1)))


if __name__ == "__main__":
    main()
