"""The cabinet link: a JWT in the address that the CRM's "account" button opens, for one enterprise's page and nothing else.

It lives as long as a registration does, so it is revocable: its id is an inbound token, and the newest one alone counts.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Protocol

import jwt

from daemon.security.tokens import TokenOwner
from daemon.security.vault import Vault

LIFETIME_S = 365 * 86_400
MAX_LENGTH = 1_000  # ours have about 330 characters
ALGORITHM = "HS256"
PURPOSE = "cabinet"
INTEGRATION = "retailcrm"
CLOCK_TOLERANCE_S = 60  # between the daemons of one installation


class Ids(Protocol):
    """Where the ids of valid links are kept (daemon.store.inbound_tokens.InboundTokens)."""

    async def find(self, token: str, *purposes: str) -> TokenOwner | None: ...

    async def replace(self, owner: TokenOwner, token: str | None, *, overlap_s: float = 0) -> None: ...

    async def add(self, owner: TokenOwner, token: str) -> None: ...

    async def drop(self, owner: TokenOwner, token: str) -> None: ...


class CabinetLinks:
    """Makes, revokes and reads the tokens of cabinet links. `clock` gives Unix time in seconds."""

    def __init__(self, vault: Vault, inbound: Ids, clock: Callable[[], float]) -> None:
        self._keys = vault.derived_keys("cabinet link")
        self._inbound = inbound
        self._clock = clock

    async def issue(self, enterprise: str) -> str:
        """A new token; the former one ends here and now."""
        token = await self.issue_beside(enterprise)
        await self.keep_only(enterprise, token)
        return token

    async def issue_beside(self, enterprise: str) -> str:
        """A new token while the former one still counts: until `keep_only` or `withdraw`, when it is known which one the CRM holds."""
        now = int(self._clock())
        claims = {
            "iss": "vochid", "aud": PURPOSE, "source": INTEGRATION, "enterprise_number": enterprise, "jti": secrets.token_urlsafe(16),
            "iat": now, "exp": now + LIFETIME_S,
        }  # fmt: skip
        await self._inbound.add(_owner(enterprise), claims["jti"])  # type: ignore[arg-type]
        return jwt.encode(claims, self._keys[0], algorithm=ALGORITHM)

    async def keep_only(self, enterprise: str, token: str) -> None:
        """Ends every other token of this enterprise; `token` is one that was issued for it."""
        claims = self._claims(token)
        assert claims is not None, "a token of our own"
        await self._inbound.replace(_owner(enterprise), claims["jti"])

    async def withdraw(self, enterprise: str, token: str) -> None:
        """Ends this one token: the CRM surely does not hold it."""
        if claims := self._claims(token):
            await self._inbound.drop(_owner(enterprise), claims["jti"])

    async def revoke(self, enterprise: str) -> None:
        """Ends all tokens of this enterprise."""
        await self._inbound.replace(_owner(enterprise), None)

    async def find(self, token: str) -> str | None:
        """The enterprise whose page it opens; None for anything wrong, expired, revoked or made for something else."""
        claims = self._claims(token)
        if claims is None:
            return None
        owner = await self._inbound.find(claims["jti"], PURPOSE)
        return owner.enterprise if owner == _owner(claims["enterprise_number"]) else None

    def _claims(self, token: str) -> dict[str, Any] | None:
        """What a token says when one of our keys signed it, it is for this purpose and within its time."""
        if not 0 < len(token) <= MAX_LENGTH or not token.isascii():
            return None
        claims = next((found for key in self._keys if (found := _verified(token, key)) is not None), None)
        if claims is None or not all(isinstance(claims[name], str) for name in ("jti", "enterprise_number")):
            return None
        issued, expires, now = claims["iat"], claims["exp"], self._clock()
        if type(issued) is not int or type(expires) is not int or not issued - CLOCK_TOLERANCE_S <= now < expires:
            return None
        return claims if claims["source"] == INTEGRATION else None


def token_id(vault: Vault, token: str) -> str | None:
    """The id of a cabinet link's token, which is its inbound token; None for what none of our keys signed."""
    found = next((claims for key in vault.derived_keys("cabinet link") if (claims := _verified(token, key)) is not None), None)
    return str(found["jti"]) if found is not None else None


def signed_with_newest(vault: Vault, token: str) -> bool:
    """Whether the link outlives the older keys."""
    return _verified(token, vault.derived_keys("cabinet link")[0]) is not None


def _owner(enterprise: str) -> TokenOwner:
    return TokenOwner(enterprise, INTEGRATION, PURPOSE)


def _verified(token: str, key: bytes) -> dict[str, Any] | None:
    """The claims when `key` signed them with the one algorithm there is. Time is judged by the caller, whose clock is handed in."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token, key, algorithms=[ALGORITHM], audience=PURPOSE, issuer="vochid",
            options={"require": ["exp", "iat", "jti", "enterprise_number", "source"], "verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )  # fmt: skip
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return None
    return claims
