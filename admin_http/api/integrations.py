"""Integrations at work: registered, their managers, and how it last went."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web

from admin_http.api.bodies import object_field, read_object
from admin_http.api.routing import Ask, Route, answer
from admin_http.api.shapes import DONE
from daemon.model.call import iso
from daemon.tenants.managers import ManagerList, SavedExtensions


async def register(ask: Ask) -> web.StreamResponse:
    done = await ask.services.registrations.register(ask.enterprise, ask.part("crm"))
    return answer({"ok": done.ok, "detail": done.detail})


async def unregister(ask: Ask) -> web.StreamResponse:
    done = await ask.services.registrations.unregister(ask.enterprise, ask.part("crm"))
    return answer({"ok": done.ok, "detail": done.detail})


async def list_managers(ask: Ask) -> web.StreamResponse:
    return answer(shown(await ask.services.managers.fetch(ask.enterprise, ask.part("crm"))))


async def put_extensions(ask: Ask) -> web.StreamResponse:
    body = await read_object(ask.request)
    return answer(saved(await ask.services.managers.save(ask.enterprise, ask.part("crm"), object_field(body, "extensions"))))


async def diagnostics(ask: Ask) -> web.StreamResponse:
    """By integration: its state, the last success and the last failure, registration and sync."""
    document, _ = await ask.services.tenants.document(ask.enterprise)
    names = list(document["integrations"])
    states = await ask.services.outbox.connection_states(ask.enterprise)
    last = await ask.services.states.last_exchanges(ask.enterprise, names)
    items = []
    for name in names:
        known = await ask.services.states.get(ask.enterprise, name)
        items.append(
            {
                "integration": name,
                "enabled": bool(document["integrations"][name].get("enabled", True)),
                "state": states.get(name, {}).get("state", "ok"),
                "reason": states.get(name, {}).get("reason", ""),
                **last[name],
                "registered_at": known.registered_at and iso(known.registered_at.timestamp()),
                "last_sync": known.last_sync_at and iso(known.last_sync_at.timestamp()),
            }
        )
    return answer({"items": items, "next": None})


def shown(found: ManagerList) -> dict[str, Any]:
    """Managers as the API tells them."""
    return {
        "items": [asdict(manager) for manager in found.items],
        "next": None,
        "alarms": [dict(alarm) for alarm in found.alarms],
        "imported": found.imported,
        "differences": [asdict(difference) for difference in found.differences],
        "detail": found.mend_error or "",
        "last_sync": iso(found.last_sync.timestamp()) if found.last_sync else None,
    }


def saved(done: SavedExtensions) -> dict[str, Any]:
    """What was saved, in the predecessor's words."""
    assignments = done.assignments
    return {"success": True, "saved_extensions": len(assignments), "assignments": assignments, "detail": done.warning or ""}


_CRM = "/api/enterprises/{n}/integrations/{crm}"
_EXTENSIONS = {
    "type": "object",
    "required": ["extensions"],
    "properties": {"extensions": {"type": "object", "additionalProperties": {"type": ["string", "null"]}}},
}

ROUTES = (
    Route("POST", _CRM + "/register", register, "Make or renew vochid's entry at the CRM; a new clientId and cabinet link", gives=DONE),
    Route("POST", _CRM + "/unregister", unregister, "Switch vochid's entry at the CRM off; clientId and cabinet link end", gives=DONE),
    Route("GET", _CRM + "/managers", list_managers, "The CRM's people with their extensions; what differs there is mended"),
    Route("PUT", _CRM + "/extensions", put_extensions, "Give extensions to managers; others keep theirs", body=_EXTENSIONS),
    Route("GET", "/api/enterprises/{n}/diagnostics", diagnostics, "By integration: state, last success, last failure, registration, sync"),
)
