"""Administrators on their way to a CRM's consent page and back (OAuth 2.0): who may come back, once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from daemon.security.vault import Vault
from daemon.store.audit import Actor
from daemon.store.pool import Database

LIVES_S = 600.0
MAX_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Sent:
    """What goes with the administrator: `state` through the CRM, `browser` as a cookie; None when the CRM itself brings the state."""

    state: str
    browser: str | None


@dataclass(frozen=True, slots=True)
class Returned:
    """Whose state came back, and who began."""

    enterprise: str
    actor: str
    role: str


class Consents:
    """States are kept as keyed hashes, as all that opens something."""

    def __init__(self, db: Database, vault: Vault) -> None:
        self._db = db
        self._vault = vault

    async def begin(self, enterprise: str, integration: str, actor: Actor, *, with_browser: bool = True) -> Sent:
        """A new state of ten minutes. `with_browser`: only the browser that gets the other half comes back with it."""
        sent = Sent(secrets.token_urlsafe(32), secrets.token_urlsafe(32) if with_browser else None)
        browser = self._vault.token_hashes(sent.browser)[0] if sent.browser else None
        async with self._db.tenant(enterprise) as connection:
            await connection.execute("delete from consent_states where enterprise_number = $1 and expires_at <= now()", enterprise)
            await connection.execute(
                """insert into consent_states (state_hash, enterprise_number, integration, browser_hash, actor, actor_role, expires_at)
                     values ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))""",
                self._vault.token_hashes(sent.state)[0], enterprise, integration, browser, actor.login, actor.role, LIVES_S,
            )  # fmt: skip
        return sent

    async def take(self, integration: str, state: str, browser: str | None) -> Returned | None:
        """Uses the state up; None for one that is unknown, used, expired, another integration's or another browser's."""
        if not 8 <= len(state) <= MAX_LENGTH or not state.isprintable():
            return None
        browsers = self._vault.token_hashes(browser) if browser and len(browser) <= MAX_LENGTH else []
        rows = await self._db.fetch("select * from take_consent($1, $2, $3)", self._vault.token_hashes(state), integration, browsers)
        return Returned(*rows[0]) if rows else None
