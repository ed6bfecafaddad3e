"""The page that RetailCRM's administrator opens with one click: the link's token becomes a session of its own kind at once."""

from __future__ import annotations

from aiohttp import web

from admin_http.cookies import CABINET, put_cookie
from admin_http.pages.integrations import remove_integration, save_integration, save_managers, show_integration, show_managers
from admin_http.pages.routing import Page, Visit
from admin_http.problems import Forbidden
from admin_http.visitors import visitor_of
from daemon.errors import VochidError
from daemon.model.person import Role
from daemon.people.service import LIVES_S
from daemon.store.audit import Actor


async def exchange(visit: Visit) -> web.StreamResponse:
    """GET or POST with enterprise_number and token: a session in the cabinet's own cookie, and on to an address without the token.

    A person's session is neither used nor touched. The token is taken from nowhere else and goes nowhere else.
    """
    form = await visit.form() if visit.request.method == "POST" else {}
    token = form.get("token") or visit.query("token") or ""
    number = form.get("enterprise_number") or visit.query("enterprise_number") or ""
    if not visit.way.takes_cookies:
        raise VochidError("open this page over https: a session is not given in the clear")
    cabinet = visit.services.joined.cabinet
    enterprise = await cabinet.find(token) if cabinet is not None and token else None
    if enterprise is None or number not in ("", enterprise) or visit.services.tenants.get(enterprise) is None:
        raise Forbidden("this link is not valid any more: register the integration again, or ask your operator")
    visitor = visitor_of(visit.request, visit.way)
    session = await visit.services.people.enter_cabinet(enterprise, visitor)
    await visit.services.people.audit.note(Actor("cabinet", str(Role.CABINET), visitor.address), "cabinet opened", "retailcrm", enterprise=enterprise)
    response = visit.redirect("/cabinet")
    put_cookie(response, visit.way, CABINET, session, LIVES_S)
    return response


PAGES = (
    Page("GET", "/retailcrm-admin/", exchange, is_open=True),
    Page("POST", "/retailcrm-admin/", exchange, is_open=True, from_outside=True),
    Page("GET", "/cabinet", show_integration, needs=Role.CABINET),
    Page("POST", "/cabinet", save_integration, needs=Role.CABINET),
    Page("POST", "/cabinet/remove", remove_integration, needs=Role.CABINET),
    Page("GET", "/cabinet/managers", show_managers, needs=Role.CABINET),
    Page("POST", "/cabinet/managers", save_managers, needs=Role.CABINET),
)
