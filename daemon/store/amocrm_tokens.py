"""amoCRM's tokens in a table of their own, which others read too (contract section 8)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from daemon.store.connection_tokens import ConnectionTokens

INTEGRATION = "amocrm"


class AmoCrmTokens(ConnectionTokens):
    """The token store of one enterprise's amoCRM: domain, access_token, refresh_token, expires_at (Unix s), raw, redirect_uri, and,
    where they are so, exchanging and refused."""

    async def load(self) -> Mapping[str, Any] | None:
        async with self._db.tenant(self._enterprise) as connection:
            row = await connection.fetchrow("select * from amocrm_tokens")
        if row is None:
            return None
        tokens: dict[str, Any] = {"domain": row["domain"], "redirect_uri": row["redirect_uri"]}
        tokens |= {name: self._open(row[name], name) for name in ("access_token", "refresh_token")}
        tokens["raw"] = json.loads(self._open(row["raw"], "raw"))
        tokens["expires_at"] = row["expires_at"].timestamp() if row["expires_at"] else None
        return tokens | ({"exchanging": True} if row["exchanging"] else {}) | ({"refused": row["refused"]} if row["refused"] else {})

    async def save(self, tokens: Mapping[str, Any]) -> None:
        expires_at = tokens.get("expires_at")
        async with self._db.tenant(self._enterprise) as connection:
            await connection.execute(
                """insert into amocrm_tokens (enterprise_number, domain, access_token, refresh_token, expires_at, raw, redirect_uri, exchanging, refused)
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                   on conflict (enterprise_number) do update set domain = excluded.domain, access_token = excluded.access_token,
                     refresh_token = excluded.refresh_token, expires_at = excluded.expires_at, raw = excluded.raw,
                     redirect_uri = excluded.redirect_uri, exchanging = excluded.exchanging, refused = excluded.refused, updated_at = now()""",
                self._enterprise, str(tokens["domain"]), self._seal(str(tokens["access_token"]), "access_token"),
                self._seal(str(tokens["refresh_token"]), "refresh_token"), datetime.fromtimestamp(expires_at, UTC) if expires_at else None,
                self._seal(json.dumps(tokens.get("raw") or {}), "raw"), str(tokens.get("redirect_uri") or ""), bool(tokens.get("exchanging")),
                tokens.get("refused"),
            )  # fmt: skip

    def _seal(self, secret: str, name: str) -> str:
        return self._vault.seal(secret, self._enterprise, f"amocrm_tokens.{name}")

    def _open(self, sealed: str, name: str) -> str:
        return self._vault.open(sealed, self._enterprise, f"amocrm_tokens.{name}")
