"""Paths of the predecessor's RetailCRM service: settings, registration, extensions. JSON or form bodies."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from aiohttp import web

from admin_http.api.bodies import object_field, read_object
from admin_http.api.integrations import saved
from admin_http.api.routing import Ask, Route, answer
from daemon.errors import NotFound, VochidError
from daemon.model.call import iso

CRM = "retailcrm"
LOGO_PATH = "/retailcrm/logo.svg"
_NOT_SETTINGS = ("last_sync", "version", "next")  # the predecessor kept them among its settings
_LOGO = (files("admin_http") / "static/vochid.svg").read_bytes()


async def get_config(ask: Ask) -> web.StreamResponse:
    """The settings, secrets shown as set or not."""
    return answer({"enterprise_number": ask.enterprise, "config": await _config(ask)})


async def put_config(ask: Ask) -> web.StreamResponse:
    """Changes what is sent and keeps the rest; {"config": {…}} or the settings themselves."""
    await _change_config(ask, await read_object(ask.request))
    return answer({"enterprise_number": ask.enterprise, "config": await _config(ask)})


async def delete_config(ask: Ask) -> web.StreamResponse:
    """Switches the module off at the CRM and removes the integration here."""
    done = await ask.services.registrations.remove(ask.enterprise, CRM)
    return answer({"success": True, "detail": "" if done.ok else f"removed here; RetailCRM says: {done.detail}"})


async def register(ask: Ask) -> web.StreamResponse:
    """Saves what is sent and registers."""
    await _change_config(ask, await read_object(ask.request))
    done = await ask.services.registrations.register(ask.enterprise, CRM)
    if not done.ok:
        raise VochidError(done.detail or "RetailCRM refused the registration", code="registration_failed")
    return answer({"success": True, "result": {"detail": done.detail}})


async def internal_phones(ask: Ask) -> web.StreamResponse:
    """The enterprise's internal phones with their owners and who holds them at the CRM."""
    document, _ = await ask.services.tenants.document(ask.enterprise)
    held = {code: user for user, code in (document["integrations"].get(CRM, {}).get("user_extensions") or {}).items() if code}
    phones = [{"phone_number": phone["number"], "owner": phone["owner"] or None, "user_id": held.get(phone["number"])} for phone in document["internal_phones"]]
    return answer({"success": True, "phones": phones, "total": len(phones)})


async def user_extensions(ask: Ask) -> web.StreamResponse:
    """The mapping as it is set here; the CRM is not asked."""
    extensions = dict(ask.services.managers.extensions(ask.enterprise, CRM))
    return answer({"success": True, "user_extensions": extensions, "total": len(extensions)})


async def save_extensions(ask: Ask) -> web.StreamResponse:
    body = await read_object(ask.request)
    return answer(saved(await ask.services.managers.save(ask.enterprise, CRM, object_field(body, "extensions"))))


async def sync_extensions(ask: Ask) -> web.StreamResponse:
    """Makes both sides the same. {"confirm": true}: whoever the CRM lists no more loses the extension."""
    body = await read_object(ask.request, may_be_empty=True)
    found = await ask.services.managers.fetch(ask.enterprise, CRM, forget_gone=str(body.get("confirm", "")).lower() in ("true", "1", "on"))
    extensions = dict(ask.services.managers.extensions(ask.enterprise, CRM))
    return answer(
        {
            "success": found.mend_error is None,
            "synced_extensions": sum(1 for code in extensions.values() if code),
            "local_extensions": extensions,
            "imported": found.imported,
            "mended": 0 if found.mend_error else len(found.differences),
            "alarms": [dict(alarm) for alarm in found.alarms],
            "detail": found.mend_error or "",
            "last_sync": iso(found.last_sync.timestamp()) if found.last_sync else None,
        }
    )


async def logo(_: web.Request) -> web.Response:
    """What RetailCRM shows beside the module's name: SVG, for everybody."""
    return web.Response(body=_LOGO, content_type="image/svg+xml")


async def _config(ask: Ask) -> dict[str, Any]:
    document, _ = await ask.services.tenants.document(ask.enterprise)
    settings = document["integrations"].get(CRM)
    if settings is None:
        raise NotFound(f"enterprise {ask.enterprise} has no integration {CRM}")
    synced = (await ask.services.states.get(ask.enterprise, CRM)).last_sync_at
    return {**settings, "last_sync": iso(synced.timestamp()) if synced else None}


async def _change_config(ask: Ask, body: dict[str, Any]) -> None:
    sent = object_field(body, "config") if "config" in body else body
    if not isinstance(sent, dict):
        raise VochidError("config must be an object", code="bad_body", field="config")
    document, _ = await ask.services.tenants.document(ask.enterprise)
    wanted = {name: value for name, value in sent.items() if name not in _NOT_SETTINGS}
    await ask.services.tenants.put_integration(ask.enterprise, CRM, {**document["integrations"].get(CRM, {}), **wanted})


_SETTINGS = {"type": "object", "properties": {"domain": {"type": "string"}, "api_key": {"type": "string"}, "enabled": {"type": "boolean"}}}
_EXTENSIONS = {"type": "object", "required": ["extensions"], "properties": {"extensions": {"type": "object"}}}

ROUTES = (
    Route("GET", "/config/{n}", get_config, "RetailCRM's settings", kept=True),
    Route("PUT", "/config/{n}", put_config, "Change some of RetailCRM's settings; the rest stays", body=_SETTINGS, kept=True),
    Route("DELETE", "/config/{n}", delete_config, "Unregister from RetailCRM and remove its settings", kept=True),
    Route("POST", "/register/{n}", register, "Save RetailCRM's settings and register", body=_SETTINGS, kept=True),
    Route("GET", "/internal-phones/{n}", internal_phones, "Internal phones and who holds them", kept=True),
    Route("GET", "/user-extensions/{n}", user_extensions, "Who has which extension, as set here", kept=True),
    Route("POST", "/save-extensions/{n}", save_extensions, "Give extensions to managers", body=_EXTENSIONS, kept=True),
    Route("POST", "/sync-extensions/{n}", sync_extensions, "Make extensions the same on both sides", kept=True),
)
