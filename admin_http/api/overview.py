"""Reports, the state of everything, CRM connections."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer
from daemon.errors import NotFound
from daemon.store.reports import Period


def period(ask: Ask) -> Period:
    """The local days that the query names; the last seven without."""
    tenancy = ask.services.tenants.get(ask.enterprise)
    if tenancy is None:
        raise NotFound(f"there is no enterprise {ask.enterprise}")
    return Period.parse(ask.query("from"), ask.query("to"), tenancy.enterprise.timezone, datetime.now(UTC), line=ask.query("line"))


async def reports(ask: Ask) -> web.StreamResponse:
    return answer(await ask.services.reports.report(ask.enterprise, period(ask)))


async def state(ask: Ask) -> web.StreamResponse:
    if ask.services.tenants.get(ask.enterprise) is None:
        raise NotFound(f"there is no enterprise {ask.enterprise}")
    return answer(await ask.services.state(ask.enterprise))


async def connections(ask: Ask) -> web.StreamResponse:
    return answer({"items": await ask.services.connections(ask.enterprise), "next": None})


_ONE = "/api/enterprises/{n}"

ROUTES = (
    Route(
        "GET", _ONE + "/reports", reports, "Figures of a period of local days",
        query=(("from", "first day, like 2026-11-21"), ("to", "last day, included"), ("line", "only calls of this line")),
    ),
    Route("GET", _ONE + "/status", state, "PBX links, CRM connections, queues, caches, alarms"),
    Route("GET", _ONE + "/connections", connections, "CRM connections: state, breaker, use of the account's limits"),
)  # fmt: skip
