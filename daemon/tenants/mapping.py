"""Whose extension is whose: managers of a CRM and internal numbers. Pure.

A mapping is {CRM user id: extension or None}. What is set here wins over what the CRM holds; one extension belongs to one manager.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from daemon.errors import VochidError
from daemon.model.crm import CrmUser

Mapped = dict[str, str | None]

MAX_CHANGES = 10_000
_USER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_EXTENSION = re.compile(r"[0-9*#]{1,16}")


@dataclass(frozen=True, slots=True)
class Difference:
    """The CRM holds another extension for this user than we do."""

    user: str
    here: str | None
    there: str | None


def parse_changes(sent: Any) -> Mapped:
    """What somebody wants changed: {user id: extension, or null or "" for none}. Raises VochidError naming what is wrong."""
    if not isinstance(sent, Mapping) or len(sent) > MAX_CHANGES:
        raise _bad('must be an object like {"19": "150", "22": null}')
    changes: Mapped = {}
    for user, extension in sent.items():
        if isinstance(extension, int) and not isinstance(extension, bool):
            extension = str(extension)
        if not _USER.fullmatch(str(user)):
            raise _bad(f"{str(user)[:80]!r} is not a user's id")
        if extension is not None and not isinstance(extension, str):
            raise _bad(f"the extension of user {user} must be text or null")
        extension = (extension or "").strip() or None
        if extension is not None and not _EXTENSION.fullmatch(extension):
            raise _bad(f"{extension[:80]!r} is not an extension")
        changes[str(user)] = extension
    held = [extension for extension in changes.values() if extension]
    if doubled := next((extension for extension in sorted(held) if held.count(extension) > 1), None):
        raise _bad(f"extension {doubled} is given to two managers")
    return changes


def assign(current: Mapping[str, str | None], changes: Mapping[str, str | None]) -> Mapped:
    """The mapping with the changes; whoever held an extension that is given to somebody else has none then."""
    taken = {extension for extension in changes.values() if extension}
    kept = {user: None if extension in taken else extension for user, extension in current.items()}
    return {**kept, **changes}


def adopt(current: Mapping[str, str | None], users: Iterable[CrmUser]) -> Mapped:
    """The mapping with what the CRM holds for users of whom nothing is set here; a held extension stays where it is."""
    result: Mapped = dict(current)
    held = {extension for extension in current.values() if extension}
    for user in users:
        if user.id not in result and user.extension and user.extension not in held and _EXTENSION.fullmatch(user.extension) and _USER.fullmatch(user.id):
            result[user.id] = user.extension
            held.add(user.extension)
    return result


def differences(current: Mapping[str, str | None], users: Iterable[CrmUser]) -> list[Difference]:
    """Where the CRM is to be mended; of the users that it has."""
    return [Difference(user.id, current.get(user.id), user.extension) for user in users if (current.get(user.id) or None) != user.extension]


def gone(current: Mapping[str, str | None], users: Iterable[CrmUser]) -> list[str]:
    """Who holds an extension here and is not among the CRM's users: nothing is taken away before somebody says so."""
    there = {user.id for user in users}
    return sorted(user for user, extension in current.items() if extension and user not in there)


def alarms(
    current: Mapping[str, str | None], users: Iterable[CrmUser], names: Mapping[str, str], answering: Mapping[str, int], phones: Iterable[str]
) -> list[dict[str, Any]]:
    """What somebody should look at. `names`: of users as last seen; `answering`: extension -> calls it answered lately; `phones`: the
    enterprise's internal phones, when it lists them."""
    users, phones = list(users), set(phones)
    mapped = {extension for extension in current.values() if extension}
    found: list[dict[str, Any]] = [
        {"kind": "user_gone", "user": user, "name": names.get(user, user), "extension": current[user],
         "detail": f"{names.get(user, user)} is not among the CRM's users any more and keeps extension {current[user]} until you confirm"}
        for user in gone(current, users)
    ]  # fmt: skip
    found += [
        {"kind": "no_extension", "user": user.id, "name": user.name, "extension": None, "detail": f"{user.name} has no extension"}
        for user in users
        if user.active and not current.get(user.id)
    ]
    found += [
        {"kind": "unmapped", "user": None, "name": None, "extension": extension, "calls": calls,
         "detail": f"extension {extension} answered {calls} calls and belongs to nobody"}
        for extension, calls in sorted(answering.items())
        if extension not in mapped
    ]  # fmt: skip
    found += [
        {"kind": "unknown_phone", "user": user, "name": names.get(user, user), "extension": extension,
         "detail": f"extension {extension} of {names.get(user, user)} is not among the internal phones"}
        for user, extension in sorted(current.items())
        if phones and extension and extension not in phones
    ]  # fmt: skip
    return found


def _bad(message: str) -> VochidError:
    return VochidError(message, code="bad_parameter", field="extensions")
