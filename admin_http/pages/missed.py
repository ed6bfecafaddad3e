"""Missed calls that wait for a call back."""

from __future__ import annotations

from aiohttp import web

from admin_http.pages.routing import Page, Visit
from admin_http.pages.wording import has_route, lines, may_call, owners, words

PER_PAGE = 50


async def show_missed(visit: Visit) -> web.StreamResponse:
    items, following = await visit.services.missed.page(visit.number, cursor=visit.query("cursor"), limit=PER_PAGE)
    known = await visit.services.callers.name_for_people(visit.number, items)
    return visit.render(
        "missed/list.html", items=items, known=known, following=following, is_first=visit.query("cursor") is None, owners=owners(visit), lines=lines(visit),
        may_call=may_call(visit), has_done=visit.may("admin") and has_route(visit, "POST", "/api/enterprises/{n}/missed/{id}/done"), **words(visit),
    )  # fmt: skip


PAGES = (Page("GET", "/e/{n}/missed", show_missed),)
