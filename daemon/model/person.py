"""A person of the admin and what they may do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Contract section 6: a super-admin everything, an admin one enterprise, a viewer reads it, a cabinet its RetailCRM page only."""

    SUPER = "super-admin"
    ADMIN = "admin"
    VIEWER = "viewer"
    CABINET = "cabinet"

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may. A cabinet is apart: nothing of the others is open to it."""
        order = (Role.VIEWER, Role.ADMIN, Role.SUPER)
        if Role.CABINET in (self, needed):
            return self is needed
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a login. `enterprise` is None for a super-admin."""

    id: int
    login: str
    name: str
    role: Role
    enterprise: str | None
    has_password: bool
    has_totp: bool
    created_at: float
    last_login_at: float | None
    disabled: bool


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody's stay: a person's, or a cabinet's (`user_id` None). `proved_s`: seconds since the password was given."""

    id: int
    user_id: int | None
    enterprise: str | None
    role: Role
    login: str
    name: str
    proved_s: float
    has_totp: bool
    csrf: str
