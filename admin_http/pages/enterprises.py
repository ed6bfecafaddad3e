"""Enterprises: the list with health at a glance, and one's overview."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from admin_http.pages.routing import Page, Visit
from daemon.ami.link import LinkState
from daemon.model.person import Role


async def show_enterprises(visit: Visit) -> web.StreamResponse:
    return visit.render("enterprises/list.html", rows=[_row(visit, number) for number in sorted(visit.services.tenants.all())])


async def show_overview(visit: Visit) -> web.StreamResponse:
    services = visit.services
    states = await services.outbox.connection_states(visit.number)
    return visit.render("enterprises/overview.html", row=_row(visit, visit.number), states=states, stats=await services.calls.stats(visit.number))


def _row(visit: Visit, number: str) -> dict[str, Any]:
    tenancy = visit.services.tenants.all()[number]
    links = visit.services.links()
    pbxs = []
    for pbx in tenancy.enterprise.pbxs:
        status = links.get((number, pbx.name))
        state = "paused" if tenancy.enterprise.paused else str(status.state) if status else "elsewhere"
        pbxs.append({"name": pbx.name, "state": state, "ok": status is not None and status.state is LinkState.READY, "reason": status.reason if status else ""})
    return {
        "number": number, "name": tenancy.enterprise.name, "paused": tenancy.enterprise.paused, "pbxs": pbxs, "problems": tenancy.problems,
        "integrations": {name: settings for name, settings in tenancy.integrations.items()}, "live": visit.services.live_calls(number),
    }  # fmt: skip


PAGES = (
    Page("GET", "/enterprises", show_enterprises, needs=Role.SUPER),
    Page("GET", "/e/{n}", show_overview),
)
