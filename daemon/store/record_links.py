"""What of a record is in Bitrix24, as the sync wrote it down: read here for people to see."""

from __future__ import annotations

from typing import Any

from daemon.model.call import iso
from daemon.model.crm_record import RecordType
from daemon.store.pool import Database

MAX_ERRORS = 3


class RecordLinks:
    """Reads the mappings and open failures of one tenant."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of(self, enterprise: str, kind: RecordType, record_id: int) -> dict[str, Any] | None:
        """{type, id, direction, last_sync_at, conflicts, tasks, deleted}, or None where the record is not in Bitrix24."""
        async with self._db.tenant(enterprise) as connection:
            row = await connection.fetchrow(
                "select * from bitrix24_sync_mappings where tenant_id = $1 and local_type = $2 and local_id = $3", enterprise, str(kind), record_id
            )
        if row is None:
            return None
        return {
            "type": row["bitrix24_type"], "id": row["bitrix24_id"], "direction": row["sync_direction"],
            "last_sync_at": iso(row["last_sync_at"].timestamp()), "conflicts": row["conflicts"], "tasks": row["tasks"], "deleted": row["deleted"],
        }  # fmt: skip

    async def errors(self, enterprise: str, kind: RecordType, record_id: int) -> list[dict[str, Any]]:
        """What failed about the record and is not settled, the newest first."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select error_type, message, attempts, next_try_at, created_at from integration_errors "
                f"where enterprise_number = $1 and local_type = $2 and local_id = $3 and resolved_at is null order by id desc limit {MAX_ERRORS}",
                enterprise, str(kind), record_id,
            )  # fmt: skip
        return [dict(row) for row in rows]
