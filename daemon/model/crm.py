"""What vochid and a CRM say to each other besides calls: people, customers, clicks, registrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class CrmUser:
    """A manager as the CRM lists it. `extension`: what the CRM holds for it, or None."""

    id: str
    name: str
    active: bool = True
    extension: str | None = None


@dataclass(frozen=True, slots=True)
class Responsible:
    """What a CRM knows of a number: the customer's name and who looks after it. Each may be None; a CRM that does not know
    the number at all answers None instead of this. `extension`: when the CRM itself names one; it counts for a user whom the
    connection's user_extensions do not list."""

    user_id: str | None = None
    extension: str | None = None
    customer_name: str | None = None


class UserStatus(StrEnum):
    """A manager's own state in the CRM. Whoever is not free is not given calls by smart redirect."""

    FREE = "free"
    BUSY = "busy"
    DINNER = "dinner"
    BREAK = "break"


@dataclass(frozen=True, slots=True)
class Click:
    """A click on a number, as a CRM's webhook brings it: parsed, and nothing in it believed yet.

    `token` finds the tenant; `extension` wins over `user_id`; `line` is the own number to call from, or None.
    """

    token: str
    phone: str
    user_id: str | None = None
    extension: str | None = None
    line: str | None = None


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A manager changed the own state in the CRM."""

    token: str
    status: UserStatus
    user_id: str | None = None
    extension: str | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """What a CRM is told when vochid registers itself as its telephony.

    `base_url`: https address of this daemon; `cabinet_url`: the administrator's link with its token; `client_id`: what its
    webhooks will carry; `extensions`: CRM user id -> extension; `lines`: own numbers with their names.
    """

    base_url: str
    cabinet_url: str
    client_id: str
    active: bool = True
    extensions: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Registered:
    """How it went, with the CRM's words. `is_unclear`: not ok as far as is known, but the CRM may hold the new entry all the same. `proof`: with
    what the CRM will prove itself when it calls here, where it said so."""

    ok: bool
    detail: str = ""
    is_unclear: bool = False
    proof: str | None = None
