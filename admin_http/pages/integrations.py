"""Integrations of an enterprise: a card per CRM, its settings, its managers, smart redirect. The cabinet's page is the same one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from admin_http.audited import put_document, put_integration_settings
from admin_http.pages.enterprises import row_of
from admin_http.pages.forms import make_fields, read_fields
from admin_http.pages.routing import Page, Visit
from admin_http.problems import Forbidden
from admin_http.texts import N_
from daemon.errors import NotFound, VochidError
from daemon.model.delivery import Check
from daemon.model.integration import IntegrationSettings
from daemon.model.person import Role
from daemon.tenants.document import SmartRedirect

TITLES = {"retailcrm": "RetailCRM", "bitrix24": "Bitrix24", "amocrm": "amoCRM", "tickets": N_("Tickets")}
KEPT = ("user_extensions", "rules")  # have a place of their own, or none


def crm_of(visit: Visit) -> str:
    """The integration that a request is about; a cabinet has the one."""
    name = "retailcrm" if visit.who.role is Role.CABINET else visit.part("crm")
    if name not in visit.services.joined.kinds:
        raise NotFound(f"there is no integration {name}")
    return name


def base_of(visit: Visit, crm: str) -> str:
    """Where this integration's page is for this person."""
    return "/cabinet" if visit.who.role is Role.CABINET else f"/e/{visit.number}/integrations/{crm}"


async def show_integrations(visit: Visit) -> web.StreamResponse:
    row = row_of(visit, visit.number, (await visit.services.glance([visit.number])).get(visit.number))
    states = {crm["name"]: crm for crm in row["crms"]}
    cards = [(name, visit.text(TITLES.get(name, name)), states.get(name)) for name in visit.services.joined.kinds]
    return await _integrations_page(visit, cards)


async def _integrations_page(visit: Visit, cards: Sequence[Any]) -> web.Response:
    document, _ = await visit.services.tenants.document(visit.number)
    fields = make_fields(SmartRedirect, document["smart_redirect"])
    return visit.render("integrations/list.html", cards=cards, fields=fields, can_probe=visit.services.joined.redirect is not None)


async def save_redirect(visit: Visit) -> web.StreamResponse:
    """Smart redirect's settings; an error comes as a toast, what was typed stays."""
    document, etag = await visit.services.tenants.document(visit.number)
    changed = {**document, "smart_redirect": read_fields(SmartRedirect, await visit.form())}
    await put_document(visit.services, visit.actor, visit.number, changed, etag)
    return visit.redirect(f"/e/{visit.number}/integrations")


async def probe_redirect(visit: Visit) -> web.StreamResponse:
    """Who would get a call from this number now, and how long the answer took."""
    ask = visit.services.joined.redirect
    if ask is None:
        raise NotFound("smart redirect is not part of this vochid")
    visit.services.joined.probes.take(visit.number, visit.actor.login)
    phone, began = (await visit.form()).get("phone", "").strip()[:40], time.monotonic()
    decision = await ask(visit.number, phone, None)
    took_ms = (time.monotonic() - began) * 1_000
    return visit.render("integrations/probe.html", phone=phone, decision=decision, took_ms=took_ms)


async def show_integration(visit: Visit) -> web.StreamResponse:
    done = visit.text("Connected.") if visit.query("connected") else ""
    return await _page(visit, crm_of(visit), done=done)


async def _page(
    visit: Visit, crm: str, values: Mapping[str, Any] | None = None, *, errors: Mapping[str, str] | None = None, checks: Sequence[Check] = (),
    done: str = "", status: int = 200,
) -> web.Response:  # fmt: skip
    joined = visit.services.joined
    stored = await _stored(visit, crm)
    fields = make_fields(joined.kinds[crm], {**(stored or {}), **(values or {})}, errors=errors, skip=KEPT)
    fields.sort(key=lambda field: field.name in IntegrationSettings.model_fields)  # what is the CRM's own comes first
    return visit.render(
        "integrations/one.html", status=status, crm=crm, title=visit.text(TITLES.get(crm, crm)), base=base_of(visit, crm), stored=stored, fields=fields,
        errors=errors or {}, checks=checks, done=done, rules=bool(joined.kinds[crm].makes),
        registers=crm in joined.registering and joined.registrations is not None,
        has_managers=stored is not None and crm in joined.with_managers and joined.managers is not None,
        has_lines=stored is not None and crm in joined.with_lines and joined.lines is not None,
        clicks=await visit.services.inbound.holds(visit.number, crm) if stored is not None and crm == "bitrix24" else None,
        consents=stored is not None and crm in joined.consenting and joined.consent is not None, number=visit.number,
        credentials=await joined.credentials(visit.number, crm) if stored is not None and joined.credentials is not None else None,
        callback_url=joined.consent.callback_url(crm) if joined.consent is not None else "", enterprise_name=visit.enterprise.name,
    )  # fmt: skip


async def save_integration(visit: Visit) -> web.StreamResponse:
    """Tries the settings and stores them; `action`: test, save, or register (save, then tell the CRM)."""
    crm, form, services = crm_of(visit), await visit.form(), visit.services
    action = form.get("action", "save")
    stored, sent = await _stored(visit, crm), read_fields(services.joined.kinds[crm], form, skip=KEPT)
    if not visit.is_proved and _holds_secret(services.joined.kinds[crm], sent):
        raise Forbidden("give the password once more before you change secrets")
    settings = {**{name: stored[name] for name in KEPT if stored and name in stored}, **sent}
    shown = {name: value for name, value in sent.items() if not isinstance(value, str) or not _is_secret(services.joined.kinds[crm], name)}
    checks: Sequence[Check] = ()
    try:
        if action == "test" or not form.get("anyway"):
            checks = await services.check(visit.number, crm, settings)
        if action == "test" or not all(check.ok for check in checks):
            errors = {check.field: visit.said(check.detail) for check in checks if not check.ok and check.field}
            return await _page(visit, crm, shown, errors=errors, checks=checks, status=200 if action == "test" else 400)
        await put_integration_settings(services, visit.actor, visit.number, crm, settings)
    except VochidError as error:
        return await _page(visit, crm, shown, errors={(error.field or "").removeprefix(f"integrations.{crm}."): visit.say(error)}, status=400)
    done = visit.text("Saved.")
    if action == "register" and services.joined.registrations is not None:
        told = await services.joined.registrations.register(visit.number, crm)
        await services.people.audit.note(visit.actor, "registered at the CRM", crm, enterprise=visit.number, details={"ok": told.ok, "detail": told.detail})
        if not told.ok:
            why = visit.text("Saved, but the CRM did not take the registration: %(why)s", why=visit.said(told.detail))
            return await _page(visit, crm, errors={"": why}, status=502)
        done = visit.text("Saved and registered.")
    return await _page(visit, crm, checks=checks, done=done)


async def remove_integration(visit: Visit) -> web.StreamResponse:
    """Takes the integration away, here and at the CRM."""
    crm, joined = crm_of(visit), visit.services.joined
    await visit.services.people.audit.note(visit.actor, "integration removed", crm, enterprise=visit.number)
    if joined.registrations is not None:
        await joined.registrations.remove(visit.number, crm)
    else:
        await visit.services.tenants.remove_integration(visit.number, crm)
    if crm == "retailcrm":
        await visit.services.people.repository.end_cabinet_sessions(visit.number)
    if visit.who.role is Role.CABINET:
        return visit.render("cabinet/gone.html")
    return visit.redirect(f"/e/{visit.number}/integrations")


async def make_install_address(visit: Visit) -> web.StreamResponse:
    """Where a Bitrix24 portal brings its application's tokens to; the page shows it once."""
    crm, port = crm_of(visit), visit.services.joined.consent
    if port is None or crm != "bitrix24":
        raise NotFound(f"{crm} brings no tokens itself")
    url = await port.address(visit.number, crm, visit.actor)
    return await _page(visit, crm, done=visit.text("The path of the first installation, once, for ten minutes: %(url)s", url=url))


async def show_managers(visit: Visit) -> web.StreamResponse:
    """The CRM's people, asked now; a part of the page."""
    return await _managers(visit, crm_of(visit))


async def _managers(visit: Visit, crm: str, *, done: str = "", warning: str = "") -> web.Response:
    port = visit.services.joined.managers
    if port is None:
        raise NotFound("this integration has no managers")
    phones = {phone.number: phone.owner for phone in visit.enterprise.internal_phones}
    try:
        found = await port.fetch(visit.number, crm)
    except VochidError as error:
        return visit.render(
            "integrations/managers.html", base=base_of(visit, crm), problem=visit.say(error), found=None, phones=phones, held={}, done="", warning=""
        )
    held = {manager.extension: manager.name for manager in found.items if manager.extension}
    warning = warning or found.mend_error or ""
    return visit.render(
        "integrations/managers.html", base=base_of(visit, crm), problem="", found=found, phones=phones, held=held, done=done, warning=warning
    )  # fmt: skip


async def save_managers(visit: Visit) -> web.StreamResponse:
    """Gives extensions to managers: those that the form changed. A number is taken from whoever had it."""
    crm, port = crm_of(visit), visit.services.joined.managers
    if port is None:
        raise NotFound("this integration has no managers")
    form = await visit.form()
    wanted = {name.removeprefix("extension."): value or None for name, value in form.items() if name.startswith("extension.")}
    before = {name.removeprefix("before."): value or None for name, value in form.items() if name.startswith("before.")}
    changed = {user: extension for user, extension in wanted.items() if extension != before.get(user)}
    saved = await port.save(visit.number, crm, changed)
    details = {user: extension or "–" for user, extension in changed.items()}
    await visit.services.people.audit.note(visit.actor, "extensions given", crm, enterprise=visit.number, details=details)
    return await _managers(visit, crm, done=visit.text("Saved."), warning=saved.warning or "")


async def _stored(visit: Visit, crm: str) -> dict[str, Any] | None:
    document, _ = await visit.services.tenants.document(visit.number)
    found = document["integrations"].get(crm)
    return dict(found) if found is not None else None


def _is_secret(model: type[IntegrationSettings], name: str) -> bool:
    return any(field.name == name and field.kind == "secret" for field in make_fields(model, {}))


def _holds_secret(model: type[IntegrationSettings], sent: Mapping[str, Any]) -> bool:
    """Whether a secret would be set or cleared."""
    return any(field.kind == "secret" and field.name in sent for field in make_fields(model, {}))


_CRM = "/e/{n}/integrations/{crm}"

PAGES = (
    Page("GET", "/e/{n}/integrations", show_integrations),
    Page("POST", "/e/{n}/redirect", save_redirect),
    Page("POST", "/e/{n}/redirect/probe", probe_redirect, needs=Role.VIEWER),
    Page("GET", _CRM, show_integration),
    Page("POST", _CRM, save_integration),
    Page("POST", _CRM + "/remove", remove_integration, needs_proof=True),
    Page("POST", _CRM + "/install-address", make_install_address),
    Page("GET", _CRM + "/managers", show_managers),
    Page("POST", _CRM + "/managers", save_managers),
)
