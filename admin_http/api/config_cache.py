"""The predecessor's paths for its settings cache: refresh one enterprise or all, and who is active."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer
from daemon.errors import NotFound
from daemon.model.person import Role


async def refresh_one(ask: Ask) -> web.StreamResponse:
    """Reads one enterprise anew here, and tells the other daemons to."""
    if not await ask.services.tenants.refresh(ask.enterprise, others_too=True):
        raise NotFound(f"there is no enterprise {ask.enterprise}")
    return answer({"success": True, "enterprise_number": ask.enterprise})


async def refresh_all(ask: Ask) -> web.StreamResponse:
    await ask.services.tenants.refresh(others_too=True)
    return answer({"success": True, "refreshed": len(ask.services.tenants.all())})


async def active(ask: Ask) -> web.StreamResponse:
    """Enterprises that are not paused and have an integration switched on."""
    tenants, items = ask.services.tenants, list[dict[str, Any]]()
    for number, enabled in sorted(tenants.matrix().items()):
        if enabled and ask.who.may_see(number) and (tenancy := tenants.get(number)) is not None:
            items.append({"enterprise_number": number, "name": tenancy.enterprise.name, "integrations": sorted(enabled)})
    return answer({"success": True, "items": items, "count": len(items)})


ROUTES = (
    Route("POST", "/config-cache/refresh/{n}", refresh_one, "Read one enterprise's settings anew, on every daemon", kept=True),
    Route("POST", "/config-cache/refresh-all", refresh_all, "Read all settings anew, on every daemon", without_enterprise=True, kept=True, needs=Role.SUPER),
    Route("GET", "/config-cache/active-enterprises", active, "Enterprises with an integration switched on", without_enterprise=True, kept=True),
    Route("GET", "/active-enterprises", active, "Enterprises with an integration switched on", without_enterprise=True, kept=True),
)
