"""What the store knows of a window: for matching CDR against what was seen live, and CRMs against what should have been told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daemon.model.call import Call
from daemon.store.calls import CallRepository, call_json
from daemon.store.pool import Database


@dataclass(frozen=True, slots=True)
class Seen:
    """Calls of a PBX in a window, with their legs."""

    calls: tuple[Call, ...]


class BackfillRepository:
    """Reads of one tenant."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def seen(self, enterprise: str, pbx: str, since: datetime, until: datetime) -> Seen:
        """Calls that started in the window."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select * from calls where enterprise_number = $1 and pbx = $2 and started_at >= $3 and started_at < $4 order by started_at",
                enterprise, pbx, since, until,
            )  # fmt: skip
            legs = await CallRepository.legs_of(connection, enterprise, [row["id"] for row in rows])
        return Seen(tuple(Call.from_json(call_json(row, legs.get(row["id"], []))) for row in rows))

    async def ended(self, enterprise: str, since: datetime, until: datetime, after: tuple[datetime, Any] | None, limit: int) -> list[Call]:
        """Calls that ended, by start, a page at a time."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select * from calls where enterprise_number = $1 and started_at >= $2 and started_at < $3 and ended_at is not null "
                "and ($4::timestamptz is null or (started_at, id) > ($4, $5::uuid)) order by started_at, id limit $6",
                enterprise, since, until, *(after or (None, None)), limit,
            )  # fmt: skip
        return [Call.from_json(call_json(row, [])) for row in rows]

    async def states(self, enterprise: str, integration: str, keys: Sequence[str]) -> dict[str, tuple[str, str | None]]:
        """State and last error of deliveries, by key."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select key, state, last_error from deliveries where enterprise_number = $1 and integration = $2 and key = any ($3)",
                enterprise, integration, list(keys),
            )  # fmt: skip
        return {row["key"]: (row["state"], row["last_error"]) for row in rows}
