"""What others prove themselves with when they call: RetailCRM's clientId, an enterprise's secret, a cabinet link's id."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

from daemon.errors import VochidError
from daemon.security.tokens import TokenOwner as TokenOwner
from daemon.security.vault import Vault
from daemon.store.pool import Connection, Database


class InboundTokens:
    """Stored as keyed hashes: nobody's token is ever decrypted to find whose it is."""

    def __init__(self, db: Database, vault: Vault) -> None:
        self._db = db
        self._vault = vault

    async def find(self, token: str, *purposes: str) -> TokenOwner | None:
        """Whose this token is among those of these purposes, or None. Safe with anything a stranger sends."""
        if not 8 <= len(token) <= 500 or not token.isprintable():
            return None
        rows = await self._db.fetch("select * from find_inbound_token($1, $2)", self._vault.token_hashes(token), list(purposes))
        return TokenOwner(*rows[0]) if rows else None

    async def holds(self, enterprise: str, integration: str) -> bool:
        """Whether anything is known by which this CRM could prove itself here."""
        async with self._db.tenant(enterprise) as connection:
            statement = (
                "select exists (select from inbound_tokens where enterprise_number = $1 and integration = $2 and coalesce(expires_at, 'infinity') > now())"
            )
            return bool(await connection.fetchval(statement, enterprise, integration))

    async def replace(self, owner: TokenOwner, token: str | None, *, overlap_s: float = 0) -> None:
        """Makes `token` the one of its owner and purpose; the former ones end after `overlap_s` seconds. None only revokes.

        Raises VochidError (token_taken) when somebody else has the same one.
        """
        async with self._db.tenant(owner.enterprise) as connection:
            await self.replace_within(connection, owner, token, overlap_s=overlap_s)

    async def add(self, owner: TokenOwner, token: str) -> None:
        """A further token of its owner and purpose; the former ones stay. For the time until it is known which one the other side holds."""
        async with self._db.tenant(owner.enterprise) as connection:
            await self._insert(connection, owner, token)

    async def drop(self, owner: TokenOwner, token: str) -> None:
        """Revokes this one token; the other ones of its owner and purpose stay."""
        async with self._db.tenant(owner.enterprise) as connection:
            await connection.execute(
                "delete from inbound_tokens where enterprise_number = $1 and integration = $2 and purpose = $3 and token_hash = any ($4)",
                owner.enterprise, owner.integration, owner.purpose, self._vault.token_hashes(token),
            )  # fmt: skip

    async def replace_within(self, connection: Connection, owner: TokenOwner, token: str | None, *, overlap_s: float = 0) -> None:
        """As `replace`, in the caller's transaction of that tenant."""
        key = owner.enterprise, owner.integration, owner.purpose
        hashes = self._vault.token_hashes(token) if token is not None else []
        await connection.execute(
            """delete from inbound_tokens where enterprise_number = $1 and integration = $2 and purpose = $3
                 and (($4::float8 <= 0 and not token_hash = any ($5)) or expires_at <= now())""",
            *key, overlap_s, hashes,
        )  # fmt: skip
        await connection.execute(
            """update inbound_tokens set expires_at = least(coalesce(expires_at, 'infinity'), now() + make_interval(secs => $4))
                 where enterprise_number = $1 and integration = $2 and purpose = $3 and not token_hash = any ($5)""",
            *key, overlap_s, hashes,
        )  # fmt: skip
        if token is not None:
            await self._insert(connection, owner, token)

    async def set_within(self, connection: Connection, owner: TokenOwner, tokens: Collection[str]) -> None:
        """Exactly these are its owner's for this purpose from now on, in the caller's transaction of that tenant. Raises VochidError (token_taken)."""
        key = owner.enterprise, owner.integration, owner.purpose
        hashes = {token: self._vault.token_hashes(token) for token in tokens}
        known = [hashed for hashes_of in hashes.values() for hashed in hashes_of]
        await connection.execute(
            "delete from inbound_tokens where enterprise_number = $1 and integration = $2 and purpose = $3 and not token_hash = any ($4)", *key, known
        )
        for token in tokens:
            await self._insert(connection, owner, token)

    async def _insert(self, connection: Connection, owner: TokenOwner, token: str) -> None:
        hashes = self._vault.token_hashes(token)
        try:
            async with connection.transaction():
                await connection.execute("delete from inbound_tokens where enterprise_number = $1 and token_hash = any ($2)", owner.enterprise, hashes)
                await connection.execute(
                    "insert into inbound_tokens (token_hash, enterprise_number, integration, purpose) values ($1, $2, $3, $4)",
                    hashes[0], owner.enterprise, owner.integration, owner.purpose,
                )  # fmt: skip
        except asyncpg.UniqueViolationError:
            raise VochidError("this token is in use elsewhere: choose another", code="token_taken") from None
