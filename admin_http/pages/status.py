"""The state of everything: alarms, PBX links, CRM connections, nodes, caches."""

from __future__ import annotations

from aiohttp import web

from admin_http.pages.routing import Page, Visit
from admin_http.pages.wording import CRMS, words
from admin_http.texts import N_
from daemon.model.person import Role

ALARMS = {
    "pbx_down": N_("No link to PBX %(subject)s"), "pbx_unread": N_("Nobody reads PBX %(subject)s"), "needs_reauth": N_("%(subject)s refuses the credentials"),
    "connection_off": N_("The connection to %(subject)s is off"), "breaker": N_("%(subject)s does not answer, deliveries wait"),
    "old_deliveries": N_("Deliveries to %(subject)s have waited for %(detail)s"), "dead_letters": N_("Dead letters for %(subject)s: %(detail)s"),
    "settings": N_("A part of the settings cannot be read"),
}  # fmt: skip
LINKS = {
    "connecting": N_("connecting"), "ready": N_("connected"), "waiting": N_("lost, coming back"), "refused": N_("login refused"),
    "in_use": N_("login in use"), "stopped": N_("stopped"),
}  # fmt: skip
BREAKERS = {"closed": (N_("answers"), "good"), "open": (N_("does not answer"), "bad"), "half_open": (N_("being tried"), "warn")}
CACHES = {"settings": N_("Settings of enterprises"), "managers": N_("Who looks after a caller")}


async def show_status(visit: Visit) -> web.StreamResponse:
    state = await visit.services.state(visit.number)
    told = words(visit)
    alarms = []
    for alarm in state["alarms"]:
        subject = CRMS.get(alarm["subject"], alarm["subject"])
        detail = told["roughly"](float(alarm["detail"])) if alarm["code"] == "old_deliveries" else alarm["detail"]
        alarms.append({**alarm, "text": visit.text(ALARMS[alarm["code"]], subject=subject, detail=detail)})
    return visit.render("status/status.html", state_now=state, alarms=alarms, link_names=LINKS, breakers=BREAKERS, cache_names=CACHES, **told)


async def refresh(visit: Visit) -> web.StreamResponse:
    """Empties this enterprise's caches."""
    await visit.services.refresh(visit.number)
    return visit.redirect(f"/e/{visit.number}/status")


async def show_nodes(visit: Visit) -> web.StreamResponse:
    return visit.render("status/nodes.html", state_now=await visit.services.state(None), link_names=LINKS, cache_names=CACHES)


PAGES = (
    Page("GET", "/e/{n}/status", show_status),
    Page("POST", "/e/{n}/status/refresh", refresh),
    Page("GET", "/nodes", show_nodes, needs=Role.SUPER),
)
