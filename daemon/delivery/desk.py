"""The outbox as people look at it: how much waits, what failed and why, what one call's CRMs were told."""

from __future__ import annotations

import uuid
from typing import Any

from daemon.delivery.letters import CAUSE
from daemon.delivery.outbox import shown
from daemon.model.call import iso
from daemon.store.pool import Database

MAX_CAUSES = 50
MAX_OF_A_CALL = 200


class Desk:
    """Reads deliveries and the log of one tenant."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def summary(self, enterprise: str) -> list[dict[str, Any]]:
        """By integration: how many wait, are dead, were done in the last 24 hours; the oldest that waits; last success and failure."""
        async with self._db.tenant(enterprise) as connection:
            counts = await connection.fetch(
                """select integration, count(*) filter (where state = 'waiting') as waiting, count(*) filter (where state = 'sending') as sending,
                     count(*) filter (where state = 'dead') as dead, count(*) filter (where state = 'delivered') as delivered_24h,
                     count(*) filter (where state = 'observed') as observed_24h, count(*) filter (where state = 'dropped') as dropped_24h,
                     extract(epoch from now() - min(created_at) filter (where state in ('waiting', 'sending')))::float8 as oldest_s
                   from (select integration, state, created_at from deliveries where enterprise_number = $1 and state in ('waiting', 'sending')
                         union all select integration, state, created_at from deliveries where enterprise_number = $1 and state = 'dead'
                         union all select integration, state, created_at from deliveries where enterprise_number = $1
                           and created_at > now() - interval '1 day' and state in ('delivered', 'observed', 'dropped')) d
                   group by 1 order by 1""",
                enterprise,
            )
            lasts = {row["integration"]: await _lasts(connection, enterprise, row["integration"]) for row in counts}
        return [{**dict(row), **lasts[row["integration"]]} for row in counts]

    async def causes(self, enterprise: str) -> list[dict[str, Any]]:
        """Why things are dead or still wait after a failure, most frequent first. `cause` can be given back as a filter."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                f"""select integration, kind, state, {CAUSE} as cause, count(*) as count, max(last_error) as example, max(id) as newest,
                      min(created_at) as first_at, max(coalesce(finished_at, created_at)) as last_at
                    from (select * from deliveries where enterprise_number = $1 and state = 'dead'
                          union all select * from deliveries where enterprise_number = $1 and state = 'waiting' and last_error is not null) d
                    group by 1, 2, 3, 4 order by count desc, last_at desc limit {MAX_CAUSES}""",
                enterprise,
            )
        return [{**dict(row), "first_at": iso(row["first_at"].timestamp()), "last_at": iso(row["last_at"].timestamp())} for row in rows]

    async def of_call(self, enterprise: str, call_id: str) -> list[dict[str, Any]]:
        """What CRMs were told of a call, oldest first; `exchanges` of each: what was said and answered at every attempt."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                f"select * from deliveries where enterprise_number = $1 and call_id = $2 order by id limit {MAX_OF_A_CALL}", enterprise, uuid.UUID(call_id)
            )
            logs = await connection.fetch(
                "select * from integration_logs where enterprise_number = $1 and delivery_id = any ($2::bigint[]) order by created_at, id limit 1000",
                enterprise, [row["id"] for row in rows],
            )  # fmt: skip
        exchanges: dict[int, list[dict[str, Any]]] = {}
        for log in logs:
            said = {key: log[key] for key in ("request_data", "response_data", "status", "error_message")}
            exchanges.setdefault(log["delivery_id"], []).append({**said, "at": iso(log["created_at"].timestamp())})
        return [{**shown(row), "exchanges": exchanges.get(row["id"], [])} for row in rows]


async def _lasts(connection: Any, enterprise: str, integration: str) -> dict[str, Any]:
    """The newest success and failure within the log's last week."""
    found: dict[str, Any] = {"last_success_at": None, "last_failure_at": None, "last_failure": None}
    for status in ("success", "error"):
        row = await connection.fetchrow(
            "select created_at, error_message from integration_logs where enterprise_number = $1 and integration_type = $2 and status = $3 "
            "and created_at > now() - interval '7 days' order by created_at desc, id desc limit 1",
            enterprise, integration, status,
        )  # fmt: skip
        if row is not None and status == "success":
            found["last_success_at"] = iso(row["created_at"].timestamp())
        elif row is not None:
            found |= {"last_failure_at": iso(row["created_at"].timestamp()), "last_failure": row["error_message"]}
    return found
