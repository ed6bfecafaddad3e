"""What is known of an integration besides its settings, and what was said to its CRM outside of deliveries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from daemon.errors import VochidError
from daemon.model.call import iso
from daemon.model.delivery import Exchange
from daemon.store.pool import Connection, Database


@dataclass(frozen=True, slots=True)
class IntegrationState:
    """`registered_as` is sealed; `users`: CRM user id -> name as last seen."""

    registered_at: datetime | None = None
    registered_as: str | None = None
    last_sync_at: datetime | None = None
    users: Mapping[str, str] = field(default_factory=dict)


class IntegrationStates:
    """One row per (enterprise, integration), and rows of integration_logs."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, enterprise: str, integration: str) -> IntegrationState:
        """The state; an empty one when nothing is known yet."""
        async with self._db.tenant(enterprise) as connection:
            row = await connection.fetchrow("select * from integration_state where enterprise_number = $1 and integration = $2", enterprise, integration)
        return IntegrationState(row["registered_at"], row["registered_as"], row["last_sync_at"], row["users"]) if row else IntegrationState()

    @asynccontextmanager
    async def alone(self, enterprise: str, integration: str) -> AsyncIterator[None]:
        """Held by one request of one daemon at a time, for as long as the CRM is being told. Raises VochidError (wrong_state) when it is held."""
        async with self._db.tenant(enterprise) as connection:
            if not await connection.fetchval("select pg_try_advisory_xact_lock(hashtextextended($1, 13))", f"{enterprise}/{integration}"):
                raise VochidError(f"{integration} is being told something else just now: try again in a moment", code="wrong_state")
            yield

    async def set_registered(self, enterprise: str, integration: str, sealed: str | None) -> None:
        """Notes what the CRM was told (sealed), or that it is registered no longer."""
        async with self._db.tenant(enterprise) as connection:
            await connection.execute(
                """insert into integration_state (enterprise_number, integration, registered_as, registered_at)
                     values ($1, $2, $3, case when $3::text is null then null else now() end)
                   on conflict (enterprise_number, integration) do update
                     set registered_as = excluded.registered_as, registered_at = excluded.registered_at""",
                enterprise, integration, sealed,
            )  # fmt: skip

    async def set_synced(self, enterprise: str, integration: str, users: Mapping[str, str]) -> None:
        """Notes whom the CRM listed, and that it was now."""
        async with self._db.tenant(enterprise) as connection:
            await connection.execute(
                """insert into integration_state (enterprise_number, integration, users, last_sync_at) values ($1, $2, $3, now())
                   on conflict (enterprise_number, integration) do update set users = excluded.users, last_sync_at = excluded.last_sync_at""",
                enterprise, integration, dict(users),
            )  # fmt: skip

    async def log(self, enterprise: str, integration: str, event_type: str, said: Exchange | None, error: str | None, **more: Any) -> None:
        """One row of integration_logs; `more` stands beside the request."""
        said = said or Exchange({}, {}, 0.0)
        async with self._db.tenant(enterprise) as connection:
            await connection.execute(
                """insert into integration_logs (enterprise_number, integration_type, event_type, request_data, response_data, status, error_message)
                     values ($1, $2, $3, $4, $5, $6, $7)""",
                enterprise, integration, event_type, {**said.request, **more}, {**said.response, "duration_ms": said.duration_ms},
                "success" if error is None else "error", error[:2_000] if error is not None else None,
            )  # fmt: skip

    async def answering_extensions(self, enterprise: str, days: int) -> dict[str, int]:
        """Extensions that answered customers in the last days, with the number of calls."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select answered_by, count(*) from calls where enterprise_number = $1 and started_at > now() - make_interval(days => $2) "
                "and direction <> 'internal' and answered_by is not null and answered_by not like '+%' group by 1",
                enterprise, days,
            )  # fmt: skip
        return {row["answered_by"]: row["count"] for row in rows}

    async def last_exchanges(self, enterprise: str, integrations: list[str]) -> dict[str, dict[str, Any]]:
        """By integration: the last success and the last failure, each or None."""
        found: dict[str, dict[str, Any]] = {}
        async with self._db.tenant(enterprise) as connection:
            for integration in integrations:
                found[integration] = {
                    name: await _last(connection, enterprise, integration, status) for name, status in (("last_success", "success"), ("last_failure", "error"))
                }
        return found


async def _last(connection: Connection, enterprise: str, integration: str, status: str) -> dict[str, Any] | None:
    row = await connection.fetchrow(
        """select event_type, error_message, created_at from integration_logs
             where enterprise_number = $1 and integration_type = $2 and status = $3 order by created_at desc limit 1""",
        enterprise, integration, status,
    )  # fmt: skip
    if row is None:
        return None
    return {"event_type": row["event_type"], "at": iso(row["created_at"].timestamp()), "error": row["error_message"]}
