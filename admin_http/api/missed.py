"""Missed calls that wait for a call back, a call's story, and what no CRM confirmed."""

from __future__ import annotations

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer
from admin_http.api.shapes import LIST

STATES = ("open", "closed")


async def list_missed(ask: Ask) -> web.StreamResponse:
    is_open = ask.choice("state", STATES) != "closed"
    items, following = await ask.services.missed.page(ask.enterprise, is_open=is_open, cursor=ask.query("cursor"), limit=ask.limit())
    await ask.services.callers.name(ask.enterprise, items)
    return answer({"items": items, "next": following, "open": await ask.services.missed.count_open(ask.enterprise)})


async def done(ask: Ask) -> web.StreamResponse:
    """Needs no call back any more; doing it twice changes nothing."""
    return answer(await ask.services.close_missed(ask.enterprise, ask.part("id"), ask.query("by")))


async def trace(ask: Ask) -> web.StreamResponse:
    if ask.choice("format", ("json", "ami")) == "ami":
        data = await ask.services.explain.trace(ask.enterprise, ask.part("id"))
        headers = {"Content-Disposition": f'attachment; filename="{ask.part("id")}.ami"'}
        return web.Response(body=data, content_type="application/octet-stream", headers=headers)
    return answer(await ask.services.explain.story(ask.enterprise, ask.part("id")))


async def differences(ask: Ask) -> web.StreamResponse:
    return answer({"items": await ask.services.differences(ask.enterprise, ask.time("from"), ask.time("to"), ask.limit()), "next": None})


_MISSED = "/api/enterprises/{n}/missed"

ROUTES = (
    Route(
        "GET", "/api/enterprises/{n}/differences", differences, "Calls that a CRM's journal should have and did not confirm, of the last day by default",
        query=(("from", "started at or after, with offset"), ("to", "started before, with offset"), ("limit", "at most 500")), gives=LIST,
    ),
    Route(
        "GET", _MISSED, list_missed, "Missed calls, one item per customer, the latest first; `open` counts who waits for a call back",
        query=(("state", "open (default) or closed"), ("limit", "at most 500"), ("cursor", "`next` of the page before")), gives=LIST,
    ),
    Route("POST", _MISSED + "/{id}/done", done, "This customer needs no call back any more", query=(("by", "who says so"),)),
    Route(
        "GET", "/api/enterprises/{n}/calls/{id}/trace", trace, "A call's story in time order",
        query=(("format", "json (default), or ami: the raw events as a TRACE"),),
    ),
)  # fmt: skip
