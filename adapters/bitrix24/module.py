"""vochid at the portal: external lines, the events it wants to hear, and the users whose inner phones (UF_PHONE_INNER) are the extensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adapters.base import Connection, LookupFailed
from adapters.bitrix24.client import Accepted, Answer, Command, Portal
from adapters.bitrix24.limits import MAX_BATCH, SYNC, USERS_PER_PAGE
from daemon.model.crm import CrmUser, Registered, Registration
from daemon.model.delivery import AuthExpired, Outcome, Rejected, Throttled

_WHAT = ("ADD", "UPDATE", "DELETE")
TASK_EVENTS = tuple(f"ONTASK{what}" for what in _WHAT)  # an application without the right `task` is not offered them, and goes without
EVENTS = ("ONEXTERNALCALLSTART", "ONEXTERNALCALLBACKSTART", *(f"ONCRM{kind}{what}" for kind in ("CONTACT", "COMPANY", "DEAL") for what in _WHAT), *TASK_EVENTS)
EVENTS_PATH = "/bitrix24/events"
MAX_PAGES = 200
_ALREADY = ("line already exists", "unable to set event handler", "could not find line")


async def register(connection: Connection, registration: Registration) -> Registered:
    """Makes the lines the portal's external lines and asks for its events. Both are an application's right: with a webhook alone, the outbound
    webhook is made at the portal by hand, and the lines are only named in calls."""
    portal = Portal(connection)
    handler = registration.base_url + EVENTS_PATH
    known = await _lines_there(portal)
    if not isinstance(known, Mapping):
        return _refused(known)
    commands = [
        Command(f"line{index}", f"telephony.externalLine.{'update' if number in known else 'add'}", {"NUMBER": number, "NAME": name, "CRM_AUTO_CREATE": "N"})
        for index, (number, name) in enumerate((number, name or number) for number, name in registration.lines.items())
        if known.get(number) != name
    ]  # fmt: skip
    commands += [
        Command(f"gone{index}", "telephony.externalLine.delete", {"NUMBER": number}) for index, number in enumerate(known.keys() - registration.lines.keys())
    ]
    commands += [Command(event.lower(), "event.bind", {"event": event, "handler": handler}) for event in EVENTS]
    done, refused = await _all(portal, commands)
    return replace(done, detail=f"{len(registration.lines)} lines, {len(EVENTS) - refused} events") if done.ok else done


async def unregister(connection: Connection, registration: Registration) -> Registered:
    """Takes lines and events away."""
    portal, handler = Portal(connection), registration.base_url + EVENTS_PATH
    numbers = await _lines_there(portal)
    if not isinstance(numbers, Mapping):
        return _refused(numbers)
    commands = [Command(f"gone{index}", "telephony.externalLine.delete", {"NUMBER": number}) for index, number in enumerate(numbers)]
    commands += [Command(event.lower(), "event.unbind", {"event": event, "handler": handler}) for event in EVENTS]
    return (await _all(portal, commands))[0]


async def lines(connection: Connection) -> Mapping[str, str]:
    """The portal's external lines of this application: number to name. Raises LookupFailed."""
    known = await _lines_there(Portal(connection))
    if not isinstance(known, Mapping):
        raise _failed(known)
    return known


async def managers(connection: Connection) -> Sequence[CrmUser]:
    """All employees, page by page. Raises LookupFailed."""
    return [_user(user) for user in await _all_users(Portal(connection))]


async def set_extensions(connection: Connection, extensions: Mapping[str, str]) -> None:
    """Sets the users' inner phones where they differ. They are the portal's own data: cleared is only what is given to somebody else, and first, so
    that no number is two people's at any moment, and whom the settings say to have none. Raises LookupFailed."""
    portal = Portal(connection)
    none = {user for user, extension in connection.settings.user_extensions.items() if not extension}
    held = {user.id: user.extension for user in map(_user, await _all_users(portal))}
    moved = {extension: user for user, extension in extensions.items()}
    cleared = [user for user, extension in held.items() if extension and (moved.get(extension, user) != user or user in none)]
    given = [(user, extension) for user, extension in extensions.items() if user in held and held[user] != extension]
    commands = [Command(f"clear{user}", "user.update", {"ID": user, "UF_PHONE_INNER": ""}) for user in cleared]
    commands += [Command(f"give{user}", "user.update", {"ID": user, "UF_PHONE_INNER": extension}) for user, extension in given]
    done, _ = await _all(portal, commands)
    if not done.ok:
        raise LookupFailed(done.detail, outage=done.is_unclear)


async def _lines_there(portal: Portal) -> dict[str, str] | Outcome:
    there = await portal.call("telephony.externalLine.get", {}, SYNC)
    if not isinstance(there, Accepted):
        return there
    return {str(line.get("NUMBER")): str(line.get("NAME") or "") for line in there.result or [] if isinstance(line, Mapping)}


# -- users ---------------------------------------------------------------------------------------------------------------


async def _all_users(portal: Portal) -> list[Mapping[str, Any]]:
    """The guard against partial lists: the total that the portal counts must be there in the end."""
    found: dict[str, Mapping[str, Any]] = {}
    start, total = 0, 0
    for _ in range(MAX_PAGES):
        wanted = {"sort": "ID", "order": "ASC", "FILTER": {"USER_TYPE": "employee"}, "start": start}
        answer = await portal.call("user.get", wanted, SYNC)
        if not isinstance(answer, Accepted):
            raise _failed(answer)
        if not isinstance(answer.result, list) or answer.total is None:
            raise LookupFailed("the portal's list of users has no total: nobody can tell whether it is whole", outage=False)
        found |= {str(user["ID"]): user for user in answer.result if isinstance(user, Mapping) and user.get("ID")}
        total = answer.total
        if answer.next is None:
            break
        if answer.next <= start:
            raise LookupFailed("the portal's list of users does not go on", outage=False)
        start = answer.next
    else:
        raise LookupFailed(f"the portal lists more than {MAX_PAGES * USERS_PER_PAGE} users", outage=False)
    if len(found) < total:
        raise LookupFailed(f"the portal listed {len(found)} of its {total} users: try again", outage=False)
    return list(found.values())


def _user(user: Mapping[str, Any]) -> CrmUser:
    name = " ".join(str(user[part]).strip() for part in ("NAME", "LAST_NAME") if user.get(part)) or str(user.get("EMAIL") or user["ID"])
    return CrmUser(str(user["ID"]), name[:200], user.get("ACTIVE") is not False, str(user.get("UF_PHONE_INNER") or "").strip() or None)


# -- answers -------------------------------------------------------------------------------------------------------------


async def _all(portal: Portal, commands: Sequence[Command]) -> tuple[Registered, int]:
    """Runs the commands; what is there already counts as done. Gives how many events of tasks the portal refused besides: it goes without them."""
    wrong: list[str] = []
    refused = 0
    for first in range(0, len(commands), MAX_BATCH):
        answers = await portal.run(commands[first : first + MAX_BATCH], SYNC)
        if not isinstance(answers, Mapping):
            return _refused(answers), refused
        for name, answer in answers.items():
            if isinstance(answer, Rejected) and name.upper() in TASK_EVENTS and not _is_done(answer):
                refused += 1
            elif not _is_done(answer):
                wrong.append(f"{name}: {answer.reason}")  # type: ignore[union-attr]
    return Registered(not wrong, "; ".join(wrong[:10])), refused


def _is_done(answer: Answer) -> bool:
    return isinstance(answer, Accepted) or (isinstance(answer, Rejected) and any(words in answer.reason.lower() for words in _ALREADY))


def _refused(answer: Answer) -> Registered:
    return Registered(False, getattr(answer, "reason", ""), is_unclear=not isinstance(answer, (Rejected, AuthExpired, Throttled)))


def _failed(answer: Outcome) -> LookupFailed:
    return LookupFailed(getattr(answer, "reason", ""), outage=not isinstance(answer, (Rejected, AuthExpired)))
