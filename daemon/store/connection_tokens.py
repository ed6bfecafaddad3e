"""Credentials that renew themselves, sealed, per connection; exchanged by one daemon at a time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from daemon.security.vault import Vault
from daemon.store.pool import Database

LOCK_WAIT_S = 5.0


class ConnectionTokens:
    """The token store of one (enterprise, integration). `slots`: how many of this process may hold a lock, and with it a connection
    of the database, while a CRM that answers slowly is asked."""

    def __init__(self, db: Database, vault: Vault, enterprise: str, integration: str, slots: asyncio.Semaphore | None = None) -> None:
        self._slots = slots or asyncio.Semaphore(1)
        self._db = db
        self._vault = vault
        self._enterprise = enterprise
        self._integration = integration

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Held by one daemon at a time, for as long as the exchange takes. Raises TimeoutError when there is no room for it."""
        await asyncio.wait_for(self._slots.acquire(), LOCK_WAIT_S)
        try:
            async with self._db.tenant(self._enterprise) as connection:
                await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 11))", f"{self._enterprise}/{self._integration}")
                yield
        finally:
            self._slots.release()

    async def load(self) -> Mapping[str, Any] | None:
        """The newest tokens, or None."""
        async with self._db.tenant(self._enterprise) as connection:
            sealed = await connection.fetchval("select tokens from connections where integration = $1", self._integration)
        if sealed is None:
            return None
        tokens: Mapping[str, Any] = json.loads(self._vault.open(sealed, self._enterprise, f"tokens.{self._integration}"))
        return tokens

    async def save(self, tokens: Mapping[str, Any]) -> None:
        """Stores new tokens durably, with the moment (`saved_at`, Unix seconds)."""
        sealed = self._vault.seal(json.dumps({**tokens, "saved_at": time.time()}), self._enterprise, f"tokens.{self._integration}")
        async with self._db.tenant(self._enterprise) as connection:
            await connection.execute(
                "insert into connections (enterprise_number, integration, state, tokens) values ($1, $2, 'ok', $3) "
                "on conflict (enterprise_number, integration) do update set tokens = excluded.tokens",
                self._enterprise, self._integration, sealed,
            )  # fmt: skip
