"""Who changed what: rows are added and read, never changed. Secrets are masked before they come here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from daemon.model.call import iso
from daemon.security.redact import redact
from daemon.store.pool import Database


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it, and from where. `login` is a person's, or names the token or command."""

    login: str
    role: str
    address: str = ""


class AuditLog:
    """The append-only record of changes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def note(self, who: Actor, action: str, subject: str = "", *, enterprise: str | None = None, details: dict[str, Any] | None = None) -> None:
        """Adds a row. `details` may be any JSON; what looks like a secret is masked."""
        await self._db.fetch(
            "select note_audit($1, $2, $3, $4, $5, $6, $7)",
            enterprise, who.login, who.role, who.address, action, subject, redact(details or {}),
        )  # fmt: skip

    async def page(self, enterprise: str | None, *, before: int | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Newest first; enterprise None: of all, for a super-admin."""
        rows = await self._db.fetch("select * from read_audit($1, $2, $3)", enterprise, before, limit)
        return [{**dict(row), "at": iso(row["at"].timestamp())} for row in rows]
