"""What RetailCRM's webhooks say: makeCallUrl and changeUserStatusUrl. Pure: parameters in, a value out.

Names: clientId, code, phone, userId, externalPhone, status; whether they come by GET or POST, in the query, a form or JSON is not
settled, so all are read. Parameters that are not known are ignored, for the CRM may add some; one that is sent twice with different
values is refused, for nobody can tell which of them is meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from daemon.model.crm import Click, StatusChange, UserStatus

MAX_LENGTH = 255
_KNOWN = frozenset({"clientId", "code", "phone", "userId", "externalPhone", "status"})

Pairs = Iterable[tuple[str, Any]]


class BadInbound(ValueError):
    """The parameters make no sense; `field` is the one at fault."""

    def __init__(self, message: str, field: str, code: str = "bad_parameter") -> None:
        super().__init__(message)
        self.field = field
        self.code = code


def token_of(pairs: Pairs) -> str:
    """The clientId alone, empty when there is none: whose webhook this is, before anything else is read. Raises BadInbound."""
    return _read((name, value) for name, value in pairs if name == "clientId").get("clientId", "")


def read_click(pairs: Pairs) -> Click:
    """A click on a number. Raises BadInbound."""
    found = _read(pairs)
    if not found.get("phone"):
        raise BadInbound("phone is missing: the number to dial", "phone", "missing_parameter")
    _want_somebody(found)
    return Click(found.get("clientId", ""), found["phone"], found.get("userId"), found.get("code"), found.get("externalPhone"))


def read_status(pairs: Pairs) -> StatusChange:
    """A manager's own status. Raises BadInbound."""
    found = _read(pairs)
    _want_somebody(found)
    try:
        status = UserStatus(found.get("status", ""))
    except ValueError:
        raise BadInbound(f"status is one of {', '.join(UserStatus)}", "status") from None
    return StatusChange(found.get("clientId", ""), status, found.get("userId"), found.get("code"))


def _want_somebody(found: dict[str, str]) -> None:
    if not found.get("code") and not found.get("userId"):
        raise BadInbound("userId or code is missing: which manager it is", "userId", "missing_parameter")


def _read(pairs: Pairs) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in _KNOWN:
            continue
        text = _text(name, value)
        if not text:
            continue
        if found.setdefault(name, text) != text:
            raise BadInbound(f"{name} is sent twice with different values", name, "repeated_parameter")
    return found


def _text(name: str, value: Any) -> str:
    """A parameter as text; JSON may bring whole numbers."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 10**20 else "x" * (MAX_LENGTH + 1)
    if not isinstance(value, str):
        raise BadInbound(f"{name} is not text", name)
    if len(value) > MAX_LENGTH:
        raise BadInbound(f"{name} is longer than {MAX_LENGTH} characters", name)
    if name != "phone" and not value.isprintable():  # a phone has its own, stricter guard
        raise BadInbound(f"{name} contains characters that do not print", name)
    return value if name == "phone" else value.strip()
