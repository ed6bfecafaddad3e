"""Enterprises: the list with health at a glance, a new one, one's overview."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from admin_http.audited import put_document
from admin_http.pages.forms import make_fields, read_fields
from admin_http.pages.pbx import candidate_checks
from admin_http.pages.routing import Page, Visit
from admin_http.pages.wording import owners, words
from daemon.ami.link import LinkState
from daemon.errors import SettingsError, VochidError
from daemon.model.person import Role
from daemon.store.calls import EVERYTHING
from daemon.store.glance import Glance
from daemon.tenants.document import Enterprise, Pbx

GENERAL = ("number", "name", "timezone", "country")
NOT_GENERAL = tuple(name for name in Enterprise.model_fields if name not in GENERAL)


PER_PAGE = 50
LATEST = 8  # calls on an enterprise's own page


async def show_enterprises(visit: Visit) -> web.StreamResponse:
    """A page of those whose number or name has what is looked for; `show=trouble`: of those to look after."""
    wanted, tenants = (visit.query("q") or "").casefold(), visit.services.tenants.all()
    found = [n for n, t in sorted(tenants.items()) if wanted in n.casefold() or wanted in t.enterprise.name.casefold()]
    troubled = await _troubled(visit)
    trouble = [number for number in found if number in troubled]
    only = visit.query("show") == "trouble"
    chosen = trouble if only else found
    shown, page, pages = page_of(chosen, visit.query("page") or "")
    glances = await visit.services.glance(shown)
    return visit.render(
        "enterprises/rows.html" if visit.is_fragment else "enterprises/list.html", rows=[row_of(visit, number, glances.get(number)) for number in shown],
        wanted=visit.query("q") or "", only_trouble=only, counts=(len(found), len(trouble)), page=page, pages=pages, total=len(tenants),
        first=(page - 1) * PER_PAGE + 1,
    )  # fmt: skip


def page_of(chosen: Sequence[str], asked: str) -> tuple[Sequence[str], int, int]:
    """What stands on the page that was asked for, which page that is, and how many there are; for nonsense the first. Pure."""
    pages = max(1, -(-len(chosen) // PER_PAGE))
    page = min(max(1, int(asked)), pages) if asked.isascii() and asked.isdigit() and len(asked) < 6 else 1
    return chosen[(page - 1) * PER_PAGE : page * PER_PAGE], page, pages


async def _troubled(visit: Visit) -> set[str]:
    """Enterprises to look after: a PBX whose link is down, settings that cannot be read, a CRM that refuses, dead letters."""
    found, tenants = set(await visit.services.troubled()), visit.services.tenants.all()
    found |= {number for (number, _), link in visit.services.links(None).items() if link.state is not LinkState.READY}
    found |= {number for number, tenancy in tenants.items() if tenancy.problems}
    return {number for number in found if number in tenants and not tenants[number].enterprise.paused}


def row_of(visit: Visit, number: str, glance: Glance | None) -> dict[str, Any]:
    """One enterprise's health: PBXs, CRMs, the last 24 hours."""
    services, tenancy = visit.services, visit.services.tenants.all()[number]
    links, glance = services.links(number), glance or Glance()
    pbxs = []
    for pbx in tenancy.enterprise.pbxs:
        link = links.get((number, pbx.name))
        state = "paused" if tenancy.enterprise.paused else str(link.state) if link else "elsewhere"
        reason, version = (link.reason, link.version) if link else ("", "")
        pbxs.append({"name": pbx.name, "state": state, "ok": state == LinkState.READY, "reason": reason, "version": version})
    crms = []
    for name, settings in tenancy.integrations.items():
        known = glance.connections.get(name, {"state": "ok", "reason": ""})
        shown = "off" if not settings.enabled else known["state"] if known["state"] != "ok" else settings.mode
        crms.append({"name": name, "state": shown, "reason": known["reason"]})
    return {
        "number": number, "name": tenancy.enterprise.name, "paused": tenancy.enterprise.paused, "pbxs": pbxs, "crms": crms, "problems": tenancy.problems,
        "live": services.live_calls(number), "glance": glance,
    }  # fmt: skip


async def show_overview(visit: Visit) -> web.StreamResponse:
    template = "enterprises/health.html" if visit.is_fragment else "enterprises/overview.html"
    latest, _ = await visit.services.calls.page(visit.number, EVERYTHING, cursor=None, limit=LATEST, with_legs=False)
    await visit.services.callers.name_for_people(visit.number, latest)
    row = row_of(visit, visit.number, (await visit.services.glance([visit.number])).get(visit.number))
    return visit.render(template, row=row, latest=latest, owners=owners(visit), **words(visit))


async def show_new(visit: Visit) -> web.StreamResponse:
    return _new_page(visit, {"timezone": "Europe/Minsk", "country": "BY"}, {"name": "main"})


def _new_page(
    visit: Visit, values: dict[str, Any], pbx: dict[str, Any], *, errors: dict[str, str] | None = None, checks: list[Any] | None = None, status: int = 200
) -> web.Response:
    errors = errors or {}
    return visit.render(
        "enterprises/new.html", status=status, errors=errors, checks=checks or [],
        fields=make_fields(Enterprise, values, errors=errors, skip=NOT_GENERAL),
        pbx=make_fields(Pbx, pbx, prefix="pbxs.0.", errors=errors, skip=("recordings", "cdr")),
    )  # fmt: skip


async def create(visit: Visit) -> web.StreamResponse:
    """Stores a new enterprise, with its first PBX when an address is given, which is tried before."""
    form = await visit.form()
    general = read_fields(Enterprise, form, skip=NOT_GENERAL)
    pbx = read_fields(Pbx, form, prefix="pbxs.0.", skip=("recordings", "cdr"))
    number = str(general.get("number") or "")
    document = {**general, "pbxs": [pbx] if pbx.get("host") else []}
    checks: list[Any] = []
    try:
        if visit.services.tenants.get(number) is not None:
            raise SettingsError("there is an enterprise with this number already", field="number")
        candidate = await visit.services.tenants.candidate_document(number, document)
        if candidate.pbxs and not form.get("anyway"):
            checks = await candidate_checks(visit, candidate.pbxs[0])
        if all(check.ok for check in checks):
            await put_document(visit.services, visit.actor, number, document)
            return visit.redirect(f"/e/{number}")
        errors: dict[str, str] = {}
    except VochidError as error:
        errors = {error.field or "": visit.say(error)}
    hidden = {name: value for name, value in pbx.items() if name != "secret"}
    return _new_page(visit, general, hidden, errors=errors, checks=checks, status=400)


async def set_paused(visit: Visit) -> web.StreamResponse:
    """Stops or resumes reading PBXs and telling CRMs."""
    paused = not visit.enterprise.paused
    await visit.services.tenants.set_paused(visit.number, paused)
    await visit.services.people.audit.note(visit.actor, "enterprise paused" if paused else "enterprise resumed", visit.number, enterprise=visit.number)
    return visit.redirect(f"/e/{visit.number}")


PAGES = (
    Page("GET", "/enterprises", show_enterprises, needs=Role.SUPER),
    Page("GET", "/enterprises/new", show_new, needs=Role.SUPER, needs_proof=True),
    Page("POST", "/enterprises/new", create, needs=Role.SUPER, needs_proof=True),
    Page("GET", "/e/{n}", show_overview),
    Page("POST", "/e/{n}/paused", set_paused),
)
