"""Tokens: whose they are, and bearer tokens, which are made once, shown once and stored as a hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

PREFIX = "vo_"  # lets secret scanners find a leaked one


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """Whose an inbound token is and what it opens. `integration` is empty for what belongs to the enterprise itself."""

    enterprise: str
    integration: str
    purpose: str


def new_token() -> str:
    """256 random bits in a form that fits into a header."""
    return PREFIX + secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """What is stored. The token is random and long, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).digest()


def same(one: str, other: str) -> bool:
    """Comparison in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())
