"""Enterprises and their integrations as documents."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer
from admin_http.api.shapes import LIST, TESTED
from admin_http.audited import put_document, put_integration_settings
from admin_http.problems import Forbidden
from daemon.errors import NotFound
from daemon.model.person import Role
from daemon.tenants.document import Enterprise
from daemon.tenants.secret_fields import keep_stored

OPERATORS_OWN = ("pbxs", "dial_rules")  # an enterprise's own admin may not change what can cost money or reach hosts


async def list_enterprises(ask: Ask) -> web.StreamResponse:
    """Number, name and state; an enterprise's token sees its own."""
    items = []
    for number, tenancy in sorted(ask.services.tenants.all().items()):
        if ask.who.may_see(number):
            items.append({"number": number, "name": tenancy.enterprise.name, "paused": tenancy.enterprise.paused, "integrations": sorted(tenancy.integrations)})
    return answer({"items": items, "next": None})


async def get_enterprise(ask: Ask) -> web.StreamResponse:
    document, etag = await ask.services.tenants.document(ask.enterprise)
    return answer(document, ETag=f'"{etag}"')


async def put_enterprise(ask: Ask) -> web.StreamResponse:
    sent = await ask.json()
    if not ask.who.is_super:
        sent = await _without_operators_own(ask, sent)
    document, etag, created = await put_document(ask.services, ask.actor, ask.enterprise, sent, ask.request.headers.get("If-Match"))
    return answer(document, 201 if created else 200, ETag=f'"{etag}"')


async def _without_operators_own(ask: Ask, sent: Any) -> Any:
    current, _ = await ask.services.tenants.document(ask.enterprise)
    if not isinstance(sent, dict):
        return sent
    for name in OPERATORS_OWN:
        wanted = keep_stored(Enterprise, {name: sent[name]}, current).get(name) if name in sent else current[name]
        if wanted != current[name]:
            raise Forbidden(f"only the operator may change {name}")
        sent = {**sent, name: current[name]}
    return sent


async def delete_enterprise(ask: Ask) -> web.StreamResponse:
    purge = bool(ask.flag("purge"))
    await ask.services.tenants.remove(ask.enterprise, purge=purge)
    await ask.services.people.audit.note(ask.actor, "enterprise removed", ask.enterprise, enterprise=ask.enterprise, details={"purge": purge})
    return web.Response(status=204)


async def get_integration(ask: Ask) -> web.StreamResponse:
    document, etag = await ask.services.tenants.document(ask.enterprise)
    settings = document["integrations"].get(ask.part("crm"))
    if settings is None:
        raise NotFound(f"enterprise {ask.enterprise} has no integration {ask.part('crm')}")
    return answer(settings, ETag=f'"{etag}"')


async def put_integration(ask: Ask) -> web.StreamResponse:
    settings, created = await put_integration_settings(
        ask.services, ask.actor, ask.enterprise, ask.part("crm"), await ask.json(), ask.request.headers.get("If-Match")
    )
    return answer(settings, 201 if created else 200)


async def delete_integration(ask: Ask) -> web.StreamResponse:
    await ask.services.registrations.remove(ask.enterprise, ask.part("crm"))
    await ask.services.people.repository.end_cabinet_sessions(ask.enterprise)
    await ask.services.people.audit.note(ask.actor, "integration removed", ask.part("crm"), enterprise=ask.enterprise)
    return web.Response(status=204)


async def test_integration(ask: Ask) -> web.StreamResponse:
    """Tries the body's settings when one is sent, else the stored ones."""
    if ask.part("crm") not in ask.services.integrations:
        raise NotFound(f"there is no integration {ask.part('crm')}")
    checks = await ask.services.check(ask.enterprise, ask.part("crm"), await ask.json_or_none())
    found = [{"name": c.name, "ok": c.ok, "detail": c.detail, "field": c.field} for c in checks]
    return answer({"ok": all(c.ok for c in checks), "checks": found})


_DOCUMENT = {"type": "object", "description": "the enterprise document"}
_SETTINGS = {"type": "object", "description": "the integration's settings"}
_ONE = "/api/enterprises/{n}"
_CRM = _ONE + "/integrations/{crm}"

ROUTES = (
    Route("GET", "/api/enterprises", list_enterprises, "Enterprises", without_enterprise=True, gives=LIST),
    Route("GET", _ONE, get_enterprise, "One enterprise's document; secrets are shown as set or not"),
    Route("PUT", _ONE, put_enterprise, "Create (201) or change (200) an enterprise", body=_DOCUMENT, statuses=(200, 201)),
    Route("DELETE", _ONE, delete_enterprise, "Remove an enterprise", query=(("purge", "true: its calls and deliveries too"),), needs=Role.SUPER),
    Route("GET", _CRM, get_integration, "One integration's settings"),
    Route("PUT", _CRM, put_integration, "Create or change an integration", body=_SETTINGS, statuses=(200, 201)),
    Route("DELETE", _CRM, delete_integration, "Remove an integration"),
    Route("POST", _CRM + "/test", test_integration, "Test the connection with the sent or the stored settings", body=_SETTINGS, gives=TESTED),
)
