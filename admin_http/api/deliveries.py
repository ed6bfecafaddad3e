"""The outbox for people."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer, page
from admin_http.api.shapes import LIST
from admin_http.services import Services
from daemon.delivery.letters import DeliveryFilter
from daemon.delivery.outbox import OPEN_STATES
from daemon.errors import VochidError
from daemon.model.delivery import Kind

MAX_IDS = 1_000
KINDS = tuple(map(str, Kind))
STATES = ("waiting", "sending", "delivered", "dead", "discarded", "dropped", "observed")


async def list_deliveries(ask: Ask) -> web.StreamResponse:
    limit = ask.limit()
    items = await ask.services.outbox.page(ask.enterprise, delivery_filter(ask), before=ask.number("cursor"), limit=limit)
    return page([*items], items[-1]["id"] if len(items) == limit else None)


def delivery_filter(ask: Ask) -> DeliveryFilter:
    """The filters of a list of deliveries, from the query."""
    return DeliveryFilter(state=ask.choice("state", STATES), integration=ask.query("integration"), kind=ask.choice("kind", KINDS), cause=ask.query("cause"))


async def causes(ask: Ask) -> web.StreamResponse:
    return answer({"items": await ask.services.desk.causes(ask.enterprise), "next": None})


async def summary(ask: Ask) -> web.StreamResponse:
    return answer({"items": await ask.services.desk.summary(ask.enterprise), "next": None})


async def retry_many(ask: Ask) -> web.StreamResponse:
    """Makes the waiting and dead ones among those named due now."""
    return answer(await change_many(ask.services, ask.enterprise, _named(await ask.json()), retry=True))


async def discard_many(ask: Ask) -> web.StreamResponse:
    """Gives the waiting and dead ones among those named up."""
    return answer(await change_many(ask.services, ask.enterprise, _named(await ask.json()), retry=False))


async def change_many(services: Services, enterprise: str, asked: DeliveryFilter, *, retry: bool) -> dict[str, int]:
    """How many were changed, and how many are left for another time."""
    changed, left, integrations = await services.outbox.change_many(enterprise, asked, retry=retry)
    if retry:
        for integration in integrations:
            services.wake(enterprise, integration)
    return {"changed": changed, "left": left}


def _named(body: Any) -> DeliveryFilter:
    """`ids`, or a filter with its `state`: everything at once is never an accident."""
    known = {"ids", "state", "integration", "kind", "cause"}
    if not isinstance(body, dict) or not body.keys() <= known or not ("ids" in body or body.get("state") in OPEN_STATES):
        raise VochidError('name deliveries: {"ids": […]}, or {"state": "dead" or "waiting"} with integration, kind or cause', code="bad_parameter")
    ids = body.get("ids")
    if ids is not None and not (isinstance(ids, list) and 0 < len(ids) <= MAX_IDS and all(type(n) is int and 0 <= n < 2**63 for n in ids)):
        raise VochidError(f"ids is a list of at most {MAX_IDS} numbers", code="bad_parameter", field="ids")
    for name in known - {"ids"}:
        text = body.get(name)
        if text is not None and not (isinstance(text, str) and "\0" not in text):
            raise VochidError(f"{name} is a text", code="bad_parameter", field=name)
    return DeliveryFilter(**body)


async def retry(ask: Ask) -> web.StreamResponse:
    """Makes a waiting or dead one due now."""
    delivery = await ask.services.outbox.retry(ask.enterprise, ask.id())
    ask.services.wake(ask.enterprise, delivery["integration"])
    return answer(delivery)


async def discard(ask: Ask) -> web.StreamResponse:
    """Gives a waiting or dead one up."""
    return answer(await ask.services.outbox.discard(ask.enterprise, ask.id()))


_LIST = "/api/enterprises/{n}/deliveries"
_FILTERS = (
    ("state", ", ".join(STATES)), ("integration", "its name"), ("kind", ", ".join(KINDS)), ("cause", "as the list of causes gives it"),
    ("limit", "at most 500"), ("cursor", "`next` of the page before"),
)  # fmt: skip
_NAMED = {
    "type": "object",
    "properties": {"ids": {"type": "array", "items": {"type": "integer"}}, **{name: {"type": "string"} for name in ("state", "integration", "kind", "cause")}},
}

ROUTES = (
    Route("GET", _LIST, list_deliveries, "Deliveries, newest first", query=_FILTERS, gives=LIST),
    Route("GET", _LIST + "/causes", causes, "Why deliveries are dead or still wait, most frequent first"),
    Route("GET", _LIST + "/summary", summary, "By integration: how many wait, are dead, were delivered; last success and failure"),
    Route("POST", _LIST + "/retry", retry_many, "Make many waiting or dead deliveries due now", body=_NAMED),
    Route("POST", _LIST + "/discard", discard_many, "Give many waiting or dead deliveries up", body=_NAMED),
    Route("POST", _LIST + "/{id}/retry", retry, "Make a waiting or dead delivery due now"),
    Route("POST", _LIST + "/{id}/discard", discard, "Give a waiting or dead delivery up"),
)
