"""API tokens of enterprises: made, listed, revoked, found by their hash."""

from __future__ import annotations

from typing import Any

import asyncpg

from daemon.errors import NotFound
from daemon.model.call import iso
from daemon.security.tokens import new_token, token_hash
from daemon.store.pool import Database


class TokenRepository:
    """Tokens of one tenant; `find` alone sees all."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, enterprise: str, name: str) -> tuple[int, str]:
        """A new token: (id, the token itself, which is not stored)."""
        token = new_token()
        async with self._db.tenant(enterprise) as connection:
            try:
                token_id = await connection.fetchval(
                    "insert into api_tokens (enterprise_number, name, token_hash) values ($1, $2, $3) returning id", enterprise, name, token_hash(token)
                )
            except asyncpg.ForeignKeyViolationError:
                raise NotFound(f"there is no enterprise {enterprise}") from None
        return int(token_id), token

    async def list(self, enterprise: str) -> list[dict[str, Any]]:
        """All that were not revoked, without their secret."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch("select * from api_tokens where revoked_at is null order by id desc")
        return [
            {
                "id": row["id"],
                "name": row["name"],
                "created_at": iso(row["created_at"].timestamp()),
                "last_used_at": iso(row["last_used_at"].timestamp()) if row["last_used_at"] else None,
            }
            for row in rows
        ]

    async def revoke(self, enterprise: str, token_id: int) -> None:
        """Makes a token useless at once. Raises NotFound."""
        async with self._db.tenant(enterprise) as connection:
            done = await connection.fetchval("update api_tokens set revoked_at = now() where id = $1 and revoked_at is null returning id", token_id)
        if done is None:
            raise NotFound(f"there is no token {token_id}")

    async def find(self, token: str) -> str | None:
        """The enterprise that a token stands for, or None."""
        found = await self._db.fetchval("select find_token($1)", token_hash(token))
        return None if found is None else str(found)
