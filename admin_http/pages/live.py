"""The live board: who calls, who waits, who talks, and what each extension does."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from admin_http.pages.routing import Page, Visit
from admin_http.pages.wording import DIRECTIONS, RESULTS, lines, may_call
from admin_http.texts import N_

WORDS = {
    "unknown": N_("Number withheld"), "empty_waiting": N_("Nobody waits"), "empty_ringing": N_("Nothing rings"), "empty_talking": N_("Nobody talks"),
    "free": N_("free"), "away": N_("not connected"), "ringing": N_("rings"),
    "talking": N_("talks"), "line": N_("Line"), "queue": N_("Queue"), "menu": N_("in the menu"), "ticket": N_("Ticket"),
}  # fmt: skip


async def show_board(visit: Visit) -> web.StreamResponse:
    texts: dict[str, Any] = {name: visit.text(text) for name, text in WORDS.items()}
    texts["directions"] = {code: visit.text(text) for code, text in DIRECTIONS.items()}
    texts["results"] = {code: [visit.text(text), kind] for code, (text, kind) in RESULTS.items() if code}
    tenancy = visit.services.tenants.get(visit.number)
    has_desk = tenancy is not None and "tickets" in tenancy.integrations
    return visit.render("live/board.html", island={"words": texts, "lines": lines(visit), "desk": has_desk}, may_call=may_call(visit))


PAGES = (Page("GET", "/e/{n}/live", show_board),)
