"""How it goes: /health for everybody in a word, for those with a token in detail; /stats in numbers."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer
from admin_http.auth import Principal, find_principal
from admin_http.services import Services
from daemon.ami.link import LinkState


async def health(request: web.Request, services: Services) -> web.Response:
    """{"status"} for anybody; PBXs and integrations for who has a token, the daemons for a super-admin."""
    ok = await services.is_ready()
    body: dict[str, Any] = {"status": "ok" if ok else "unavailable"}
    who = await find_principal(request, services)
    if who is not None and ok:
        body |= await _details(services, who)
    return answer(body, 200 if ok else 503)


async def _details(services: Services, who: Principal) -> dict[str, Any]:
    pbxs = [
        {
            "enterprise": number, "pbx": name, "node": status.node, "state": str(status.state), "reason": status.reason,
            "since": round(status.since, 3) or None, "version": status.version,
        }
        for (number, name), status in services.links(None).items()
        if who.may_see(number)
    ]  # fmt: skip
    integrations = []
    for number, tenancy in services.tenants.all().items():
        if who.may_see(number):
            states = await services.outbox.connection_states(number)
            for name, settings in tenancy.integrations.items():
                state = states.get(name, {"state": "ok", "reason": "", "since": None})
                integrations.append({"enterprise": number, "integration": name, "enabled": settings.enabled, **state})
    problems = [{"enterprise": n, "problem": p} for n, t in services.tenants.all().items() if who.may_see(n) for p in t.problems]
    is_well = all(p["state"] == LinkState.READY for p in pbxs) and all(i["state"] == "ok" for i in integrations) and not problems
    nodes = {"nodes": services.nodes()} if who.is_super else {}
    return {"status": "ok" if is_well else "degraded", **nodes, "pbxs": pbxs, "integrations": integrations, "problems": problems}


async def stats(ask: Ask) -> web.StreamResponse:
    """Numbers of one enterprise over the last 24 hours."""
    return answer(
        {
            "enterprise": ask.enterprise,
            "uptime_s": round(time.time() - ask.services.started_at),
            "live_calls": ask.services.live_calls(ask.enterprise),
            **await ask.services.calls.stats(ask.enterprise),
        }
    )


ROUTES = (Route("GET", "/stats", stats, "Calls and deliveries of the last 24 hours", query=(("enterprise", "for a super-admin"),)),)
