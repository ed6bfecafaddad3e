"""What managers say of themselves in their CRM: free, busy, at dinner, on a break."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from daemon.errors import VochidError
from daemon.model.crm import UserStatus
from daemon.store.pool import Database

MAX_USERS = 10_000  # of one integration: its webhook's caller names the users


class UserStatuses:
    """One status per (enterprise, integration, CRM user)."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._listeners: list[Callable[[str, str], None]] = []

    def on_change(self, listener: Callable[[str, str], None]) -> None:
        """`listener(enterprise, integration)` is called after every change made here."""
        self._listeners.append(listener)

    async def set(self, enterprise: str, integration: str, user_id: str, status: UserStatus) -> None:
        """Remembers a user's status. Raises VochidError (too_many_users) beyond MAX_USERS."""
        async with self._db.tenant(enterprise) as connection:
            kept = await connection.fetchval(
                """insert into user_statuses as s (enterprise_number, integration, user_id, status)
                     select $1, $2, $3, $4
                     where (select count(*) from user_statuses where enterprise_number = $1 and integration = $2) < $5
                       or exists (select from user_statuses where enterprise_number = $1 and integration = $2 and user_id = $3)
                   on conflict (enterprise_number, integration, user_id) do update set status = excluded.status, updated_at = now()
                   returning true""",
                enterprise, integration, user_id, str(status), MAX_USERS,
            )  # fmt: skip
        if kept is None:
            raise VochidError(f"more than {MAX_USERS} users have a status already", code="too_many_users")
        for listener in self._listeners:
            listener(enterprise, integration)

    async def by_user(self, enterprise: str, integration: str) -> Mapping[str, UserStatus]:
        """Every status that is known, by CRM user id."""
        rows = await self._db.fetch("select * from statuses_of($1, $2)", enterprise, integration)
        return {row["user_id"]: UserStatus(row["status"]) for row in rows}
