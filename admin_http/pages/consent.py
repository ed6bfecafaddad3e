"""To a CRM's consent page and back (OAuth 2.0)."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from admin_http.auth import enterprise_of, find_principal
from admin_http.cookies import CONSENT, drop_cookie, put_cookie
from admin_http.pages.routing import Page, Visit
from daemon.errors import NotFound, VochidError
from daemon.model.person import Role
from daemon.store.consents import LIVES_S

MAX_PARAMETER = 4_000  # codes of a thousand characters are usual


async def install(visit: Visit) -> web.StreamResponse:
    """GET /{crm}/install?enterprise=N: an admin's session or a bearer token opens it; on to the CRM, with a cookie that comes back."""
    port, crm = visit.services.joined.consent, visit.part("crm")
    if port is None or crm not in visit.services.joined.consenting:
        raise NotFound(f"{crm} is not connected by consent")
    who = await find_principal(visit.request, visit.services)
    if who is None:
        return visit.redirect(f"/login?next={quote(visit.request.path_qs)}")
    number = enterprise_of(visit.request, who)
    who.must(Role.ADMIN)
    if not visit.way.takes_cookies:
        raise VochidError("open this page over https: the way back from the CRM needs a cookie")
    begun = await port.begin(number, crm, who.actor(visit.way))
    response = web.Response(status=303, headers={"Location": begun.url})
    put_cookie(response, visit.way, CONSENT, begun.browser, LIVES_S)
    return response


async def callback(visit: Visit) -> web.StreamResponse:
    """GET /{crm}/callback: the browser is back from the CRM; on to the card, which says how it went."""
    port, crm = visit.services.joined.consent, visit.part("crm")
    if port is None or crm not in visit.services.joined.consenting:
        raise NotFound(f"{crm} is not connected by consent")
    answer = {name: value for name, value in visit.request.query.items() if len(value) <= MAX_PARAMETER and value.isprintable()}
    browser = visit.request.cookies.get(visit.way.cookie(CONSENT)) if visit.way.takes_cookies else None
    done = await port.finish(crm, answer.get("state", ""), browser, answer)
    if not done.told.ok:
        raise VochidError(f"the CRM was not connected: {done.told.detail}", code="not_connected")
    response = visit.redirect(f"/e/{done.enterprise}/integrations/{crm}?connected=1")
    drop_cookie(response, visit.way, CONSENT)
    return response


_CRM = "/{crm:bitrix24|amocrm}"

PAGES = (
    Page("GET", _CRM + "/install", install, is_open=True),
    Page("GET", _CRM + "/callback", callback, is_open=True),
)
