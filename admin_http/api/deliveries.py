"""The outbox for people."""

from __future__ import annotations

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer, page

STATES = ("waiting", "sending", "delivered", "dead", "discarded", "dropped", "observed")


async def list_deliveries(ask: Ask) -> web.StreamResponse:
    limit = ask.limit()
    items = await ask.services.outbox.list(
        ask.enterprise, state=ask.choice("state", STATES), integration=ask.query("integration"), before=ask.number("cursor"), limit=limit
    )
    return page(items, items[-1]["id"] if len(items) == limit else None)


async def retry(ask: Ask) -> web.StreamResponse:
    """Makes a waiting or dead one due now."""
    delivery = await ask.services.outbox.retry(ask.enterprise, ask.id())
    ask.services.wake(ask.enterprise, delivery["integration"])
    return answer(delivery)


async def discard(ask: Ask) -> web.StreamResponse:
    """Gives a waiting or dead one up."""
    return answer(await ask.services.outbox.discard(ask.enterprise, ask.id()))


_LIST = "/api/enterprises/{n}/deliveries"
_FILTERS = (("state", ", ".join(STATES)), ("integration", "its name"), ("limit", "at most 500"), ("cursor", "`next` of the page before"))

ROUTES = (
    Route("GET", _LIST, list_deliveries, "Deliveries, newest first", query=_FILTERS),
    Route("POST", _LIST + "/{id}/retry", retry, "Make a waiting or dead delivery due now"),
    Route("POST", _LIST + "/{id}/discard", discard, "Give a waiting or dead delivery up"),
)
