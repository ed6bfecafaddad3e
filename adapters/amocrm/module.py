"""amoCRM's people, and the webhook that tells us when a customer or a responsible user changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from adapters.amocrm.client import Accepted, AmoClient, Answer, Problem, as_outcome
from adapters.amocrm.limits import USERS_PER_PAGE
from adapters.base import LookupFailed
from daemon.model.crm import CrmUser, Registered, Registration
from daemon.model.delivery import AuthExpired, Delivered, Rejected

MAX_PAGES = 40
WEBHOOK_PATH = "/amocrm/webhook"
EVENTS = ("add_contact", "update_contact", "delete_contact", "responsible_contact", "add_lead", "update_lead", "status_lead", "responsible_lead", "delete_lead")


async def managers(client: AmoClient) -> Sequence[CrmUser]:
    """All users, page by page. amoCRM holds no extensions: they are the ones that are set here. Raises LookupFailed."""
    held = client.settings.user_extensions
    found: dict[str, CrmUser] = {}
    for page in range(1, MAX_PAGES + 1):
        answer = await client.get("api/v4/users", {"page": str(page), "limit": str(USERS_PER_PAGE)})
        if not isinstance(answer, Accepted):
            raise _failed(answer)
        users = [user for user in answer.listed("users") if user.get("id") is not None]
        found |= {str(user["id"]): _user(user, held) for user in users}
        links = answer.body.get("_links")
        if not users or not isinstance(links, Mapping) or "next" not in links:
            return list(found.values())
    raise LookupFailed(f"amoCRM lists more than {MAX_PAGES * USERS_PER_PAGE} users", outage=False)


async def register(client: AmoClient, registration: Registration) -> Registered:
    """Subscribes to changes; the address carries the client_id of this registration, for amoCRM signs nothing. Former ones of ours go."""
    destination = webhook_url(registration)
    former = await _former(client, registration)
    if not isinstance(former, list):
        return Registered(False, _words(former))
    answer = await client.post("api/v4/webhooks", {"destination": destination, "settings": list(EVENTS)})
    if not isinstance(answer, Accepted):
        return Registered(False, _words(answer), is_unclear=not isinstance(as_outcome(answer), (Rejected, AuthExpired)))
    return await _remove(client, [url for url in former if url != destination])


async def unregister(client: AmoClient, registration: Registration) -> Registered:
    """Takes all of our subscriptions away."""
    former = await _former(client, registration)
    return await _remove(client, former) if isinstance(former, list) else Registered(False, _words(former))


def webhook_url(registration: Registration) -> str:
    """Where amoCRM tells of changes. Pure."""
    return f"{registration.base_url}{WEBHOOK_PATH}?{urlencode({'clientId': registration.client_id})}"


async def _former(client: AmoClient, registration: Registration) -> list[str] | Answer:
    answer = await client.get("api/v4/webhooks")
    if not isinstance(answer, Accepted):
        return answer
    ours = f"{registration.base_url}{WEBHOOK_PATH}"
    return [url for item in answer.listed("webhooks") if (url := str(item.get("destination") or "")).startswith(ours)]


async def _remove(client: AmoClient, destinations: Sequence[str]) -> Registered:
    for destination in destinations:
        answer = await client.delete("api/v4/webhooks", {"destination": destination})
        if not isinstance(answer, Accepted):
            return Registered(True, f"a former subscription could not be taken away: {_words(answer)}")
    return Registered(True)


def _user(user: Mapping[str, Any], held: Mapping[str, str | None]) -> CrmUser:
    rights = user.get("rights")
    active = not isinstance(rights, Mapping) or rights.get("is_active") is not False
    number = str(user["id"])
    return CrmUser(number, str(user.get("name") or user.get("email") or number)[:200], active, held.get(number) or None)


def _failed(answer: Answer) -> LookupFailed:
    return LookupFailed(_words(answer), outage=not isinstance(answer, (Problem, AuthExpired)))


def _words(answer: Answer) -> str:
    if isinstance(answer, Accepted):
        return ""
    outcome = as_outcome(answer)
    return "" if isinstance(outcome, Delivered) else outcome.reason
