"""What a portal's events say: ONEXTERNALCALLSTART (a click on a number), ONEXTERNALCALLBACKSTART (the call-back form), and that a contact, a company,
a deal (ONCRM…) or a task (ONTASK…) was added, changed or deleted; these carry its id and nothing else. Pure.

A form with PHP's nested names, in any order; an outbound webhook and an application send different sets of them, and some were seen missing.
What is not known is ignored; a name that is sent twice with different values is refused, for nobody can tell which of them is meant.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_LENGTH = 500
CALL_START, CALLBACK_START = "ONEXTERNALCALLSTART", "ONEXTERNALCALLBACKSTART"
CALLBACK_CLICK = "callback:"
_ENTITY = re.compile(r"ON(?:CRM(CONTACT|COMPANY|DEAL)|(TASK))(?:ADD|UPDATE|DELETE)")
# A task has fields before and after the event, of which those that there are not are the word "undefined".
_IDS = ("DATA[FIELDS][ID]", "DATA[FIELDS_AFTER][ID]", "DATA[FIELDS_BEFORE][ID]")
TOKEN = "AUTH[APPLICATION_TOKEN]"  # noqa: S105

Pairs = Iterable[tuple[str, str]]


class BadInbound(ValueError):
    """The parameters make no sense; `field` is the one at fault."""

    def __init__(self, message: str, field: str, code: str = "bad_parameter") -> None:
        super().__init__(message)
        self.field = field
        self.code = code


@dataclass(frozen=True, slots=True)
class PortalEvent:
    """An event, nothing in it believed yet. `key` names it: the same event that comes again has the same.

    wants_call: somebody is to be called. `user_id`: who clicked; None for a call-back, where whoever looks after the customer calls.
    `call_id`: the portal's call, which it has registered itself. `entity`: contact, company, deal or task, and its id, of an event about one.
    """

    name: str
    key: str
    phone: str = ""
    user_id: str | None = None
    line: str | None = None
    call_id: str | None = None
    entity: tuple[str, int] | None = None

    @property
    def wants_call(self) -> bool:
        return self.name in (CALL_START, CALLBACK_START)


def token_of(pairs: Pairs) -> str:
    """The application token alone, empty when there is none or more than one: whose event it is, before anything else is read."""
    found = {value for name, value in pairs if name.upper() == TOKEN}
    return found.pop() if len(found) == 1 else ""


def read_event(pairs: Pairs) -> PortalEvent:
    """Reads the form. Raises BadInbound."""
    found = _read(pairs)
    name = found.get("EVENT", "").upper()
    if (about := _ENTITY.fullmatch(name)) is not None:
        place = "data[FIELDS_AFTER][ID]" if about[2] else "data[FIELDS][ID]"
        if (number := next((one for key in (_IDS[1:] if about[2] else _IDS[:1]) if (one := _id(found.get(key)))), None)) is None:
            raise BadInbound(f"{place} is missing: which one it is about", place, "missing_parameter")
        return PortalEvent(name, f"{name}:{number}", entity=((about[1] or about[2]).lower(), int(number)))
    if name not in (CALL_START, CALLBACK_START):
        return PortalEvent(name, "")
    phone = found.get("DATA[PHONE_NUMBER_INTERNATIONAL]") or found.get("DATA[PHONE_NUMBER]", "")
    if not phone:
        raise BadInbound("data[PHONE_NUMBER] is missing: the number to dial", "data[PHONE_NUMBER]", "missing_parameter")
    user, line = _id(found.get("DATA[USER_ID]")), found.get("DATA[LINE_NUMBER]") or None
    if name == CALLBACK_START:
        seed = "\0".join((phone, found.get("TS", ""), line or "", found.get("DATA[CRM_ENTITY_ID]", "")))
        return PortalEvent(name, CALLBACK_CLICK + hashlib.sha256(seed.encode()).hexdigest()[:32], phone, None, line)
    if user is None:
        raise BadInbound("data[USER_ID] is missing: who clicked", "data[USER_ID]", "missing_parameter")
    call_id = found.get("DATA[CALL_ID]") or None
    seed = "\0".join((phone, user, found.get("TS", "")))
    return PortalEvent(name, call_id or f"click:{hashlib.sha256(seed.encode()).hexdigest()[:32]}", phone, user, line, call_id)


def _read(pairs: Pairs) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        key = name.upper()
        if key not in ("EVENT", "TS") and not key.startswith("DATA["):
            continue
        if len(name) > MAX_LENGTH or len(value) > MAX_LENGTH:
            raise BadInbound(f"{name[:40]} is longer than {MAX_LENGTH} characters", name[:40])
        text = value.strip()
        if not text.isprintable():
            raise BadInbound(f"{name[:40]} contains characters that do not print", name[:40])
        if found.setdefault(key, text) != text:
            raise BadInbound(f"{name[:40]} is sent twice with different values", name[:40], "repeated_parameter")
    return found


def _id(value: str | None) -> str | None:
    return value if value and value.isascii() and value.isdecimal() and value != "0" and len(value) <= 12 else None
