"""Links to a call's recordings for people and programs, and the end of all links."""

from __future__ import annotations

import time

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer
from admin_http.api.shapes import LIST
from daemon.model.call import iso

LINK_LIVES_S = 900.0


async def list_recordings(ask: Ask) -> web.StreamResponse:
    """A short-lived link to each."""
    call = await ask.services.calls.get(ask.enterprise, ask.part("id"))
    link, until = ask.services.recordings.links.link, iso(time.time() + LINK_LIVES_S)
    items = [
        {"name": name, "url": link(ask.enterprise, call["id"], index, LINK_LIVES_S, name=name), "expires_at": until}
        for index, name in enumerate(call["recordings"])
    ]
    return answer({"items": items, "next": None})


async def revoke(ask: Ask) -> web.StreamResponse:
    """For when a link went where it should not."""
    await ask.services.recordings.revoke(ask.enterprise)
    return web.Response(status=204)


_ONE = "/api/enterprises/{n}"
ROUTES = (
    Route("GET", _ONE + "/calls/{id}/recordings", list_recordings, "Links to a call's recordings, good for 15 minutes", gives=LIST),
    Route("POST", _ONE + "/recordings/revoke", revoke, "End every link to this enterprise's recordings, CRMs' too", statuses=(204,)),
)
