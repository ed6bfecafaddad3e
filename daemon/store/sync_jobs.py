"""Long syncs in PostgreSQL: one at a time per integration, worked on by one daemon at a time, taken over where it stopped."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from daemon.errors import NotFound, VochidError
from daemon.model.call import iso
from daemon.store.pool import Connection, Database

OWNED_S = 20.0
MAX_CLAIMED = 20
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class SyncJob:
    """`filters` and `cursor` are the runner's own."""

    enterprise: str
    id: str
    direction: str
    state: str
    filters: Mapping[str, Any]
    cursor: Mapping[str, Any]
    total: int | None
    done: int
    failed: int
    error: str | None
    created_at: float
    finished_at: float | None

    def shown(self) -> dict[str, Any]:
        """As people and programs see it."""
        return {
            "job": self.id, "direction": self.direction, "state": self.state, "total": self.total, "done": self.done, "failed": self.failed,
            "error": self.error, "created_at": iso(self.created_at), "finished_at": iso(self.finished_at) if self.finished_at else None,
        }  # fmt: skip


class SyncJobs:
    """`owner` names this process."""

    def __init__(self, db: Database, owner: str, integration: str) -> None:
        self._db = db
        self._owner = owner
        self._integration = integration

    async def start(self, enterprise: str, direction: str, filters: Mapping[str, Any]) -> str:
        """Gives the new job's id. Raises VochidError (wrong_state) while one runs."""
        try:
            async with self._db.tenant(enterprise) as connection:
                return str(
                    await connection.fetchval(
                        "insert into sync_jobs (enterprise_number, integration, direction, filters) values ($1, $2, $3, $4) returning id",
                        enterprise, self._integration, direction, dict(filters),
                    )
                )  # fmt: skip
        except asyncpg.UniqueViolationError:
            raise VochidError("a sync is running already: wait for its end", code="wrong_state") from None

    async def claim(self) -> list[tuple[str, str]]:
        """Takes jobs that nobody works on; (enterprise, id) of each."""
        rows = await self._db.fetch("select * from claim_sync_jobs($1, $2, $3)", self._owner, OWNED_S, MAX_CLAIMED)
        return [(row["enterprise_number"], str(row["id"])) for row in rows]

    async def get(self, enterprise: str, job: str) -> SyncJob:
        """Raises NotFound."""
        async with self._db.tenant(enterprise) as connection:
            return await self._get(connection, enterprise, job)

    async def last(self, enterprise: str) -> SyncJob | None:
        """The newest one."""
        return next(iter(await self.recent(enterprise, 1)), None)

    async def recent(self, enterprise: str, limit: int) -> list[SyncJob]:
        """The newest ones, the newest first."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select * from sync_jobs where enterprise_number = $1 and integration = $2 order by created_at desc limit $3",
                enterprise, self._integration, limit,
            )  # fmt: skip
        return [_job(row) for row in rows]

    async def held(self, connection: Connection, enterprise: str, job: str) -> SyncJob | None:
        """The job, locked and owned for a while longer; None when it is another daemon's by now, or over."""
        row = await connection.fetchrow(
            "update sync_jobs set owned_until = now() + make_interval(secs => $4) where enterprise_number = $1 and id = $2::text::uuid and owner = $3 "
            "and state = 'running' returning *",
            enterprise, job, self._owner, OWNED_S,
        )  # fmt: skip
        return _job(row) if row is not None else None

    async def advance(self, connection: Connection, job: SyncJob) -> None:
        """Stores how far it is, in the transaction that `held` it; a job that is over has nobody to work on it."""
        await connection.execute(
            """update sync_jobs set state = $3, cursor = $4, total = $5, done = $6, failed = $7, error = $8,
                 finished_at = case when $3 in ('done', 'failed') then now() end
               where enterprise_number = $1 and id = $2::text::uuid""",
            job.enterprise, job.id, job.state, dict(job.cursor), job.total, job.done, job.failed, job.error,
        )  # fmt: skip

    async def _get(self, connection: Connection, enterprise: str, job: str) -> SyncJob:
        row = None
        if _UUID.fullmatch(job):
            row = await connection.fetchrow(
                "select * from sync_jobs where enterprise_number = $1 and id = $2 and integration = $3", enterprise, uuid.UUID(job), self._integration
            )
        if row is None:
            raise NotFound("there is no such sync")
        return _job(row)


def _job(row: Any) -> SyncJob:
    return SyncJob(
        row["enterprise_number"], str(row["id"]), row["direction"], row["state"], row["filters"], row["cursor"], row["total"], row["done"], row["failed"],
        row["error"], row["created_at"].timestamp(), row["finished_at"].timestamp() if row["finished_at"] else None,
    )  # fmt: skip
