"""Missed calls and what became of them. They are opened and closed by store_changes, in the transaction of the call."""

from __future__ import annotations

import uuid
from typing import Any

from daemon.errors import NotFound
from daemon.model.call import Call, iso
from daemon.model.signal import CalledBack
from daemon.store.calls import CallRepository, call_json, decode_cursor, encode_cursor
from daemon.store.pool import Connection, Database

_ITEM = """
  select m.customer_number, (array_agg(m.call_id order by m.missed_at desc, m.call_id))[1] as call_id, array_agg(m.call_id order by m.missed_at desc) as calls,
    count(*) as count, min(m.missed_at) as first_missed_at, max(m.missed_at) as last_missed_at,
    max(m.closed_at) as closed_at, max(m.closed_how) as closed_how, max(m.closed_by) as closed_by, (array_agg(m.closed_by_call))[1] as closed_by_call
  from missed_calls m where m.enterprise_number = $1"""


# An open item is a customer: the newest of their open calls is its place in the list, found without grouping all who wait.
_OPEN = f"""
  from (
    select m.customer_number, m.call_id, m.missed_at from missed_calls m
    where m.enterprise_number = $1 and m.closed_at is null and not exists (
      select from missed_calls n where n.enterprise_number = $1 and n.customer_number = m.customer_number and n.closed_at is null
        and (n.missed_at > m.missed_at or n.missed_at = m.missed_at and n.call_id < m.call_id)) {{after}}
    order by m.missed_at desc, m.call_id desc limit $2) newest
  cross join lateral ({_ITEM} and m.closed_at is null and m.customer_number = newest.customer_number group by m.customer_number) i"""
# A closed one is what one answer closed.
_CLOSED = f"""
  from (
    select * from ({_ITEM} and m.closed_at is not null group by m.customer_number, m.closed_at, m.closed_by_call) m where true {{after}}
    order by m.last_missed_at desc, m.call_id desc limit $2) i"""


def _page(*, is_open: bool, is_first: bool) -> str:
    items, at = (_OPEN, "missed_at") if is_open else (_CLOSED, "last_missed_at")
    after = "" if is_first else f"and (m.{at}, m.call_id) < ($3, $4::uuid)"
    return (
        f"select i.*, c.customer_name, c.line, c.rang, c.result, c.queue {items.format(after=after)} join calls c "
        "on c.enterprise_number = $1 and c.id = i.call_id order by i.last_missed_at desc, i.call_id desc"
    )


class MissedRepository:
    """Missed calls of one tenant: one item per customer and call back, however often they called before it."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(self, enterprise: str, *, is_open: bool = True, cursor: str | None = None, limit: int = 100) -> tuple[list[dict[str, Any]], str | None]:
        """Open or closed items, the latest missed first, and the cursor of the next page."""
        place = decode_cursor(cursor) if cursor else ()
        statement = _page(is_open=is_open, is_first=not place)
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(statement, enterprise, limit + 1, *place)
        items = [_shown(row) for row in rows[:limit]]
        following = encode_cursor(rows[limit - 1]["last_missed_at"], str(rows[limit - 1]["call_id"])) if len(rows) > limit else None
        return items, following

    async def count_open(self, enterprise: str) -> int:
        """How many customers wait for a call back."""
        async with self._db.tenant(enterprise) as connection:
            return int(
                await connection.fetchval(
                    "select count(distinct customer_number) from missed_calls where enterprise_number = $1 and closed_at is null", enterprise
                )
            )

    async def done(self, enterprise: str, call_id: str, by: str | None) -> dict[str, Any]:
        """Somebody says that this customer needs no call back; closes all that is open of them. Doing it twice changes nothing.

        Raises NotFound for a call that was not missed.
        """
        try:
            key = uuid.UUID(call_id)
        except ValueError:
            raise NotFound("there is no such missed call") from None
        async with self._db.tenant(enterprise) as connection:
            customer = await connection.fetchval("select customer_number from missed_calls where enterprise_number = $1 and call_id = $2", enterprise, key)
            if customer is None:
                raise NotFound("there is no such missed call")
            await connection.execute(
                "update missed_calls set closed_at = now(), closed_how = 'done', closed_by = $3 "
                "where enterprise_number = $1 and customer_number = $2 and closed_at is null",
                enterprise, customer, by,
            )  # fmt: skip
            row = await connection.fetchrow(
                f"with mine as (select closed_at, closed_by_call from missed_calls where enterprise_number = $1 and call_id = $2), items as ({_ITEM} "
                "and m.customer_number = $3 and m.closed_at = (select closed_at from mine) group by m.customer_number) "
                "select i.*, c.customer_name, c.line, c.rang, c.result, c.queue from items i join calls c on c.enterprise_number = $1 and c.id = i.call_id",
                enterprise, key, customer,
            )  # fmt: skip
        return _shown(row)


async def take_untold(connection: Connection, enterprise: str) -> list[tuple[Call, CalledBack]]:
    """Missed calls that were closed since the last time, oldest first, as CRMs are to be told; marks them told in the same transaction."""
    rows = await connection.fetch(
        """with untold as (select call_id from missed_calls where enterprise_number = $1 and closed_at is not null and told_at is null
                           order by missed_at limit 200 for update skip locked),
           marked as (update missed_calls m set told_at = now() from untold u where m.enterprise_number = $1 and m.call_id = u.call_id returning m.*)
           select c.*, k.closed_at, k.closed_how, k.closed_by, k.closed_by_call from marked k
           join calls c on c.enterprise_number = $1 and c.id = k.call_id order by k.missed_at""",
        enterprise,
    )
    legs = await CallRepository.legs_of(connection, enterprise, [row["id"] for row in rows])
    return [
        (
            Call.from_json(call_json(row, legs.get(row["id"], []))),
            CalledBack(row["closed_how"], row["closed_at"].timestamp(), row["closed_by"], str(row["closed_by_call"]) if row["closed_by_call"] else None),
        )
        for row in rows
    ]


def _shown(row: Any) -> dict[str, Any]:
    closed_at = row["closed_at"]
    return {
        "call": str(row["call_id"]),
        "calls": [str(call_id) for call_id in row["calls"]],
        **{key: row[key] for key in ("count", "customer_number", "customer_name", "line", "rang", "result", "queue")},
        "first_missed_at": iso(row["first_missed_at"].timestamp()),
        "last_missed_at": iso(row["last_missed_at"].timestamp()),
        "closed_at": iso(closed_at.timestamp()) if closed_at else None,
        "closed_how": row["closed_how"],
        "closed_by": row["closed_by"],
        "closed_by_call": str(row["closed_by_call"]) if row["closed_by_call"] else None,
        "took_seconds": round((closed_at - row["first_missed_at"]).total_seconds(), 3) if closed_at else None,
    }
