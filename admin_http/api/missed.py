"""Missed calls that wait for a call back, and a call's story."""

from __future__ import annotations

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer

STATES = ("open", "closed")


async def list_missed(ask: Ask) -> web.StreamResponse:
    is_open = ask.choice("state", STATES) != "closed"
    items, following = await ask.services.missed.page(ask.enterprise, is_open=is_open, cursor=ask.query("cursor"), limit=ask.limit())
    return answer({"items": items, "next": following, "open": await ask.services.missed.count_open(ask.enterprise)})


async def done(ask: Ask) -> web.StreamResponse:
    """Needs no call back any more; doing it twice changes nothing."""
    return answer(await ask.services.close_missed(ask.enterprise, ask.part("call"), ask.query("by")))


async def trace(ask: Ask) -> web.StreamResponse:
    if ask.choice("format", ("json", "ami")) == "ami":
        data = await ask.services.explain.trace(ask.enterprise, ask.part("id"))
        headers = {"Content-Disposition": f'attachment; filename="{ask.part("id")}.ami"'}
        return web.Response(body=data, content_type="application/octet-stream", headers=headers)
    return answer(await ask.services.explain.story(ask.enterprise, ask.part("id")))


_MISSED = "/api/enterprises/{n}/missed"

ROUTES = (
    Route(
        "GET", _MISSED, list_missed, "Missed calls, one item per customer, the latest first; `open` counts who waits for a call back",
        query=(("state", "open (default) or closed"), ("limit", "at most 500"), ("cursor", "`next` of the page before")),
    ),
    Route("POST", _MISSED + "/{call}/done", done, "This customer needs no call back any more", query=(("by", "who says so"),)),
    Route(
        "GET", "/api/enterprises/{n}/calls/{id}/trace", trace, "A call's story in time order",
        query=(("format", "json (default), or ami: the raw events as a TRACE"),),
    ),
)  # fmt: skip
