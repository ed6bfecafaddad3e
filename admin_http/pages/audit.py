"""Who changed what."""

from __future__ import annotations

from aiohttp import web

from admin_http.pages.routing import Page, Visit
from daemon.model.person import Role

ROWS = 100


async def show_audit(visit: Visit) -> web.StreamResponse:
    before = visit.query("before")
    cursor = int(before) if before and before.isascii() and before.isdigit() and len(before) < 19 else None
    rows = await visit.services.people.audit.page(visit.who.enterprise, before=cursor, limit=ROWS)
    return visit.render("audit/audit.html", rows=rows, older=rows[-1]["id"] if len(rows) == ROWS else None)


PAGES = (Page("GET", "/audit", show_audit, needs=Role.ADMIN),)
