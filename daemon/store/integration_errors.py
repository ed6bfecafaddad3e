"""What an integration could not do for a record: one open error per record, until it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daemon.errors import NotFound
from daemon.model.call import iso
from daemon.store.pool import Connection, Database

TYPES = ("auth", "network", "validation", "limit")
MAX_MESSAGE = 1_000


@dataclass(frozen=True, slots=True)
class Failure:
    """`record`: the outbox's lane; `type`: one of TYPES; `next_in_s`: seconds until the next try, None when it waits for a person."""

    record: str
    operation: str
    type: str
    message: str
    attempts: int
    next_in_s: float | None
    local_type: str | None = None
    local_id: int | None = None
    remote_type: str | None = None
    remote_id: str | None = None


class IntegrationErrors:
    """Rows of integration_errors. Messages carry no secret: who writes them has masked them."""

    def __init__(self, db: Database, integration: str) -> None:
        self._db = db
        self._integration = integration

    async def note(self, connection: Connection, enterprise: str, failure: Failure) -> None:
        """Stores a failure, or renews the record's open one; in the caller's transaction of that tenant."""
        await connection.execute(
            """insert into integration_errors as e (enterprise_number, integration_type, operation, error_type, message, record, local_type, local_id,
                 remote_type, remote_id, attempts, next_try_at)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now() + make_interval(secs => $12::double precision))
               on conflict (enterprise_number, integration_type, record) where resolved_at is null do update
                 set operation = excluded.operation, error_type = excluded.error_type, message = excluded.message, attempts = excluded.attempts,
                   next_try_at = excluded.next_try_at, created_at = now()""",
            enterprise, self._integration, failure.operation, failure.type, failure.message[:MAX_MESSAGE], failure.record, failure.local_type,
            failure.local_id, failure.remote_type, failure.remote_id, failure.attempts, failure.next_in_s,
        )  # fmt: skip

    async def resolve(self, connection: Connection, enterprise: str, records: Sequence[str]) -> None:
        """They were done after all; in the caller's transaction of that tenant."""
        await connection.execute(
            "update integration_errors set resolved_at = now(), next_try_at = null "
            "where enterprise_number = $1 and integration_type = $2 and record = any ($3) and resolved_at is null",
            enterprise, self._integration, list(records),
        )  # fmt: skip

    async def record_of(self, connection: Connection, enterprise: str, error_id: int) -> str:
        """The record of an open error. Raises NotFound."""
        found = await connection.fetchval(
            "select record from integration_errors where enterprise_number = $1 and id = $2 and integration_type = $3 and resolved_at is null",
            enterprise, error_id, self._integration,
        )  # fmt: skip
        if found is None:
            raise NotFound(f"there is no open error {error_id}")
        return str(found)

    async def page(self, enterprise: str, *, page: int, limit: int) -> tuple[list[dict[str, Any]], int]:
        """A page from 1 on of the open ones, the newest first; and how many there are."""
        async with self._db.tenant(enterprise) as connection:
            total = await connection.fetchval("select count(*) from integration_errors where enterprise_number = $1 and resolved_at is null", enterprise)
            rows = await connection.fetch(
                "select * from integration_errors where enterprise_number = $1 and resolved_at is null order by id desc limit $2 offset $3",
                enterprise, limit, (page - 1) * limit,
            )  # fmt: skip
        return [_shown(row) for row in rows], int(total)

    async def stats(self, enterprise: str) -> dict[str, Any]:
        """How many are open, by type, and when the last one was."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select error_type, count(*) as count, max(created_at) as last from integration_errors "
                "where enterprise_number = $1 and resolved_at is null group by 1",
                enterprise,
            )  # fmt: skip
        counts = {row["error_type"]: row["count"] for row in rows}
        last = max((row["last"] for row in rows), default=None)
        by_type = {name: counts.get(name, 0) for name in TYPES}
        return {"total": sum(by_type.values()), "by_type": by_type, "last_error_at": iso(last.timestamp()) if last else None}


def _shown(row: Any) -> dict[str, Any]:
    names = ("id", "integration_type", "operation", "error_type", "message", "local_type", "local_id", "remote_type", "remote_id", "attempts")
    times = {name: iso(row[name].timestamp()) if row[name] else None for name in ("next_try_at", "created_at")}
    return {**{name: row[name] for name in names}, **times}
