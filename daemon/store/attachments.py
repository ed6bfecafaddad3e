"""Copies of attachments of one tenant; what is due is found over all tenants by a named function."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from daemon.store.pool import Database


@dataclass(frozen=True, slots=True)
class Due:
    """A copy that is to be fetched now. `attempts` counts this one."""

    enterprise: str
    message_id: int
    position: int
    name: str
    mime: str
    url: str
    attempts: int


class AttachmentRepository:
    """Rows of support_attachments."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def claim(self, limit: int, claim_s: float) -> list[Due]:
        """What is due, of all tenants; nobody else gets it for `claim_s` seconds."""
        rows = await self._db.fetch("select * from claim_attachments($1, $2)", limit, claim_s)
        return [
            Due(row["enterprise_number"], row["message_id"], row["position"], row["name"], row["mime"], row["source_url"] or "", row["attempts"])
            for row in rows
        ]  # fmt: skip

    async def stored(self, due: Due, data: bytes) -> None:
        async with self._db.tenant(due.enterprise) as connection:
            await connection.execute(
                "update support_attachments set state = 'stored', data = $4, size = $5, error = null "
                "where enterprise_number = $1 and message_id = $2 and position = $3",
                due.enterprise, due.message_id, due.position, data, len(data),
            )  # fmt: skip

    async def failed(self, due: Due, reason: str, again_s: float | None) -> None:
        """Tried again after `again_s` seconds; None: never."""
        async with self._db.tenant(due.enterprise) as connection:
            await connection.execute(
                "update support_attachments set state = case when $5::float8 is null then 'failed' else 'waiting' end, error = $4, "
                "due_at = now() + make_interval(secs => coalesce($5, 0)) where enterprise_number = $1 and message_id = $2 and position = $3",
                due.enterprise, due.message_id, due.position, reason[:500], again_s,
            )  # fmt: skip

    async def find(self, enterprise: str, message_id: int, position: int) -> Any | None:
        """A copy's row without its bytes."""
        async with self._db.tenant(enterprise) as connection:
            return await connection.fetchrow(
                "select id, name, mime, state, size from support_attachments where enterprise_number = $1 and message_id = $2 and position = $3",
                enterprise, message_id, position,
            )  # fmt: skip

    async def by_id(self, enterprise: str, copy_id: str, epoch: int) -> dict[str, Any] | None:
        """A copy's row without its bytes, while links of this epoch are good."""
        async with self._db.tenant(enterprise) as connection:
            row = await connection.fetchrow(
                "select a.id, a.name, a.mime, a.state, a.size from support_attachments a join enterprises e on e.number = a.enterprise_number "
                "where a.enterprise_number = $1 and a.id = $2 and e.recordings_epoch = $3",
                enterprise, uuid.UUID(copy_id), epoch,
            )  # fmt: skip
        return dict(row) if row is not None else None

    async def part(self, enterprise: str, copy_id: str, start: int, count: int) -> bytes:
        """`count` bytes from `start`."""
        async with self._db.tenant(enterprise) as connection:
            found = await connection.fetchval(
                "select substring(data from $3 for $4) from support_attachments where enterprise_number = $1 and id = $2",
                enterprise, uuid.UUID(copy_id), start + 1, count,
            )  # fmt: skip
        return bytes(found or b"")

    async def expire(self, enterprise: str, days: int) -> None:
        """Drops the bytes of what is older."""
        async with self._db.tenant(enterprise) as connection:
            await connection.execute(
                "update support_attachments set state = 'expired', data = null where enterprise_number = $1 and state = 'stored' "
                "and created_at < now() - make_interval(days => $2)",
                enterprise, days,
            )  # fmt: skip
