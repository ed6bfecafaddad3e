"""Customers who called and were not reached since: whom to call back first."""

from __future__ import annotations

from typing import Any

from daemon.model.call import iso
from daemon.store.calls import decode_cursor, encode_cursor
from daemon.store.pool import Database

DAYS = 14  # older than this, nobody waits any more
MAX_MISSED = 2_000


class MissedRepository:
    """Reads one tenant's missed calls, by customer."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(self, enterprise: str, *, cursor: str | None = None, limit: int = 100) -> tuple[list[dict[str, Any]], str | None]:
        """One item per customer who was not talked with since, the latest missed first, and the cursor of the next page."""
        after = decode_cursor(cursor) if cursor else (None, None)
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                f"""with lost as (
                      select * from calls where enterprise_number = $1 and missed and not consult and customer_number is not null
                        and started_at > now() - interval '{DAYS} days' order by started_at desc, id desc limit {MAX_MISSED}),
                    waiting as (
                      select l.* from lost l where not exists (
                        select from calls n where n.enterprise_number = $1 and n.customer_number is not null
                          and n.customer_reversed = l.customer_reversed and n.started_at > l.started_at
                          and n.answered_at is not null and n.direction <> 'internal')),
                    items as (
                      select (array_agg(id order by started_at desc))[1] as call_id, array_agg(id order by started_at desc) as calls, count(*) as count,
                        min(ended_at) as first_missed_at, max(ended_at) as last_missed_at
                      from waiting group by customer_number)
                    select i.*, c.customer_number, c.customer_name, c.line, c.rang, c.result, c.queue from items i
                    join waiting c on c.id = i.call_id
                    where ($2::timestamptz is null or (i.last_missed_at, i.call_id) < ($2, $3::uuid))
                    order by i.last_missed_at desc, i.call_id desc limit $4""",
                enterprise, *after, limit + 1,
            )  # fmt: skip
        following = encode_cursor(rows[limit - 1]["last_missed_at"], str(rows[limit - 1]["call_id"])) if len(rows) > limit else None
        return [_shown(row) for row in rows[:limit]], following


def _shown(row: Any) -> dict[str, Any]:
    return {
        "call": str(row["call_id"]),
        "calls": [str(call_id) for call_id in row["calls"]],
        **{key: row[key] for key in ("count", "customer_number", "customer_name", "line", "rang", "result", "queue")},
        "first_missed_at": iso(row["first_missed_at"].timestamp()),
        "last_missed_at": iso(row["last_missed_at"].timestamp()),
    }
