"""vochid as RetailCRM's telephony module: its entry there, and the managers whose extensions stand in that entry.

An edit replaces the whole entry, so whatever changes, all of it is sent. Sources: docs/adapters/retailcrm.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adapters.base import Connection, LookupFailed
from adapters.retailcrm.client import Accepted, RetailCrmClient
from adapters.retailcrm.config import RetailCrmSettings
from daemon.model.crm import CrmUser, Registered, Registration
from daemon.model.delivery import AuthExpired, Delivered, Outcome, Rejected, Throttled
from daemon.model.phone import digits_of

USERS_PER_PAGE = 100  # the largest that the method takes
MAX_PAGES = 100
LOGO_PATH = "/retailcrm/logo.svg"  # RetailCRM takes SVG only
MAKE_CALL_PATH = "/retailcrm/make-call"
STATUS_PATH = "/retailcrm/status"


def entry(settings: RetailCrmSettings, registration: Registration, external_phones: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """The module as integration-modules/{code}/edit takes it. Pure. `code` has to begin with `integrationCode`, so both are one."""
    base = registration.base_url
    return {
        "code": settings.module_code,
        "integrationCode": settings.module_code,
        "active": registration.active,
        "name": settings.module_name,
        "logo": base + LOGO_PATH,
        "clientId": registration.client_id,
        "baseUrl": base,
        "accountUrl": registration.cabinet_url,
        "integrations": {
            "telephony": {
                "makeCallUrl": base + MAKE_CALL_PATH,
                "changeUserStatusUrl": base + STATUS_PATH,
                "allowEdit": False,
                "inputEventSupported": settings.send.popup_in,
                "outputEventSupported": settings.send.popup_out,
                "hangupEventSupported": settings.send.hangup,
                "additionalCodes": [{"userId": int(user), "code": code} for user, code in registration.extensions.items() if user.isdecimal()],
                "externalPhones": [dict(phone) for phone in external_phones],
            }
        },
    }


async def register(connection: Connection, registration: Registration) -> Registered:
    """Makes or replaces the entry. When the answer is lost, the entry itself tells whether it was taken."""
    settings: RetailCrmSettings = connection.settings
    client = RetailCrmClient(settings, connection.http)
    phones, remark = await _external_phones(client, registration.lines)
    answer = await client.post(f"v5/integration-modules/{settings.module_code}/edit", integrationModule=entry(settings, registration, phones))
    if isinstance(answer, Accepted):
        return Registered(True, "; ".join(filter(None, [_remarks(answer.body), remark])))
    if isinstance(answer, (Rejected, AuthExpired, Throttled)):
        return Registered(False, _words(answer))
    return await _was_it_taken(client, settings, registration, _words(answer))


async def unregister(connection: Connection, registration: Registration) -> Registered:
    """Switches the entry off; nothing to do where there is none."""
    settings: RetailCrmSettings = connection.settings
    there = await _read(RetailCrmClient(settings, connection.http), settings)
    if there is None:
        return Registered(True, "the CRM has no such module")
    if not isinstance(there, Mapping):
        return Registered(False, _words(there), is_unclear=True)
    return await register(connection, replace(registration, active=False, extensions={}, lines={}))


async def managers(connection: Connection) -> Sequence[CrmUser]:
    """All users, page by page, with the extensions that the entry holds for them. Raises LookupFailed."""
    settings: RetailCrmSettings = connection.settings
    client = RetailCrmClient(settings, connection.http)
    there = await _read(client, settings)
    if there is not None and not isinstance(there, Mapping):
        raise _failed(there)
    codes = _codes(there or {})
    return [_user(user, codes) for user in await _all_users(client)]


async def set_extensions(connection: Connection, extensions: Mapping[str, str], registration: Registration | None) -> None:
    """The entry with other extensions. Before there is one, nothing holds them: they go along when it is made."""
    if registration is None:
        return
    done = await register(connection, replace(registration, extensions=extensions))
    if not done.ok:
        raise LookupFailed(done.detail, outage=done.is_unclear)


# -- users ---------------------------------------------------------------------------------------------------------------


async def _all_users(client: RetailCrmClient) -> list[Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for page in range(1, MAX_PAGES + 1):
        answer = await client.get("v5/users", limit=str(USERS_PER_PAGE), page=str(page))
        if not isinstance(answer, Accepted):
            raise _failed(answer)
        users = [user for user in answer.body.get("users") or [] if isinstance(user, Mapping) and user.get("id") is not None]
        found |= {str(user["id"]): user for user in users}
        pagination = answer.body.get("pagination") or {}
        if page >= _number(pagination.get("totalPageCount"), 1):
            if len(found) < _number(pagination.get("totalCount"), 0):
                raise LookupFailed("the list of users changed while it was read: try again", outage=False)
            return list(found.values())
    raise LookupFailed(f"the CRM lists more than {MAX_PAGES * USERS_PER_PAGE} users", outage=False)


def _user(user: Mapping[str, Any], codes: Mapping[str, str]) -> CrmUser:
    names = (user.get("firstName"), user.get("lastName"))
    name = " ".join(str(part).strip() for part in names if part) or str(user.get("email") or user["id"])
    return CrmUser(str(user["id"]), name[:200], user.get("active") is not False, codes.get(str(user["id"])))


def _codes(module: Mapping[str, Any]) -> dict[str, str]:
    """additionalCodes by user id; ids are numbers in one official client and text in another."""
    telephony = (module.get("integrations") or {}).get("telephony") or {}
    listed = [item for item in telephony.get("additionalCodes") or [] if isinstance(item, Mapping)]
    return {str(item["userId"]): str(item["code"]) for item in listed if item.get("userId") is not None and item.get("code")}


def _number(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


# -- the entry -----------------------------------------------------------------------------------------------------------


async def _read(client: RetailCrmClient, settings: RetailCrmSettings) -> Mapping[str, Any] | Outcome | None:
    """The entry, None when there is none, or what went wrong."""
    answer = await client.get(f"v5/integration-modules/{settings.module_code}")
    if isinstance(answer, Accepted):
        module = answer.body.get("integrationModule")
        return module if isinstance(module, Mapping) else {}
    return None if isinstance(answer, Rejected) and answer.reason.startswith("404") else answer


async def _was_it_taken(client: RetailCrmClient, settings: RetailCrmSettings, registration: Registration, why: str) -> Registered:
    there = await _read(client, settings)
    if isinstance(there, Mapping) and there.get("accountUrl") == registration.cabinet_url:
        return Registered(True, "the answer was lost, but the CRM has taken it")
    is_known = there is None or isinstance(there, Mapping)
    return Registered(False, why, is_unclear=not is_known)


async def _external_phones(client: RetailCrmClient, lines: Mapping[str, str]) -> tuple[list[dict[str, str]], str]:
    """Lines by shop: all belong to the only shop there is; of several, to the one whose code or name the line has as its name."""
    if not lines:
        return [], ""
    answer = await client.get("v5/reference/sites")
    if not isinstance(answer, Accepted):
        return [], f"lines were left out, the shops could not be read: {_words(answer)}"
    listed = answer.body.get("sites") or {}
    shops = {str(code): str(shop.get("name") or code) for code, shop in listed.items() if isinstance(shop, Mapping)} if isinstance(listed, Mapping) else {}
    by_name = {word.casefold(): code for code, name in shops.items() for word in (name, code)}
    only = next(iter(shops)) if len(shops) == 1 else None
    placed = {number: only or by_name.get(name.casefold()) for number, name in lines.items()}
    phones = [{"siteCode": code, "externalPhone": digits_of(number) or number} for number, code in placed.items() if code]
    left = [number for number, code in placed.items() if not code]
    return phones, f"lines that name no shop were left out: {', '.join(left[:10])}" if left else ""


def _remarks(body: Mapping[str, Any]) -> str:
    """`info` is an empty array when there is nothing to say, else an object. Codes of unknown users are dropped silently but for this."""
    info = body.get("info")
    if not isinstance(info, Mapping):
        return ""
    said = {"users that the CRM does not know": info.get("notExistUsersIds"), "shops that it does not know": info.get("notExistSiteCodes")}
    return "; ".join(f"{what}: {', '.join(map(str, ids[:20]))}" for what, ids in said.items() if isinstance(ids, list) and ids)


def _failed(answer: Outcome) -> LookupFailed:
    return LookupFailed(_words(answer), outage=not isinstance(answer, (Rejected, AuthExpired)))


def _words(answer: Accepted | Outcome) -> str:
    return "" if isinstance(answer, (Accepted, Delivered)) else answer.reason
