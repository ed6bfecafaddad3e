"""PBXs of an enterprise: tried before they are saved."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from admin_http.audited import put_document
from admin_http.pages.forms import make_fields, read_fields
from admin_http.pages.routing import Page, Visit
from daemon.errors import NotFound, SettingsError, VochidError
from daemon.model.delivery import Check
from daemon.model.person import Role
from daemon.tenants.document import Pbx

CHECK_DEADLINE_S = 25.0
NEW = "~new"  # no PBX can have this name
FIELDS = {"login": "secret", "connection": "host"}


async def candidate_checks(visit: Visit, pbx: Pbx) -> list[Check]:
    """Login, rights, event classes and clock of a PBX as these settings say."""
    found: list[Check] = []
    try:
        async with asyncio.timeout(CHECK_DEADLINE_S):
            async for check in visit.services.joined.check_pbx(pbx):
                found.append(check)
    except TimeoutError:
        found.append(Check("connection", False, f"no answer within {CHECK_DEADLINE_S:.0f} s", None))
    return found


async def show_pbxs(visit: Visit) -> web.StreamResponse:
    links = visit.services.links(visit.number)
    rows = [(pbx, links.get((visit.number, pbx.name))) for pbx in visit.enterprise.pbxs]
    return visit.render("enterprises/pbxs.html", rows=rows)


async def show_pbx(visit: Visit) -> web.StreamResponse:
    name = visit.part("name")
    return _pbx_page(visit, name, {} if name == NEW else _stored(await _document(visit), name))


def _pbx_page(
    visit: Visit, name: str, values: Mapping[str, Any], *, errors: dict[str, str] | None = None, checks: list[Check] | None = None, status: int = 200
) -> web.Response:
    fields = make_fields(Pbx, values, errors=errors, skip=("name",) if name != NEW else ())
    make = visit.services.joined.snippets
    stored = next((pbx for pbx in visit.enterprise.pbxs if pbx.name == name), None)
    parts = make(visit.enterprise, stored) if make is not None and stored is not None else ()
    return visit.render("enterprises/pbx.html", status=status, name=name, fields=fields, errors=errors or {}, checks=checks, snippets=parts)


async def save_pbx(visit: Visit) -> web.StreamResponse:
    """Tries it and stores it; a PBX that cannot be reached now is stored when the person says so."""
    name, form = visit.part("name"), await visit.form()
    sent = read_fields(Pbx, form, skip=("name",) if name != NEW else ())
    if name != NEW:
        sent["name"] = name
    document = await _document(visit)
    others = [pbx for pbx in document["pbxs"] if pbx["name"] != name]
    stored = _stored(document, name) if name != NEW else {}
    checks: list[Check] = []
    try:
        if any(pbx["name"] == sent.get("name") for pbx in others):
            raise SettingsError("two PBXs have the same name", field="name")
        changed = {**document, "pbxs": [*others, sent]}
        candidate = await visit.services.tenants.candidate_document(visit.number, changed)
        if not form.get("anyway"):
            checks = await candidate_checks(visit, candidate.pbxs[-1])
        if form.get("action") != "test" and all(check.ok for check in checks):
            await put_document(visit.services, visit.actor, visit.number, changed)
            return visit.redirect(f"/e/{visit.number}/settings/pbx")
        errors = {FIELDS[check.name]: visit.said(check.detail) for check in checks if not check.ok and check.name in FIELDS}
    except VochidError as error:
        errors = {(error.field or "").removeprefix(f"pbxs.{len(others)}."): visit.say(error)}
    shown = {**{key: value for key, value in sent.items() if key != "secret"}, **({"secret": stored["secret"]} if stored.get("secret") else {})}
    return _pbx_page(visit, name, shown, errors=errors, checks=checks, status=200 if form.get("action") == "test" else 400)


async def remove_pbx(visit: Visit) -> web.StreamResponse:
    name, document = visit.part("name"), await _document(visit)
    _stored(document, name)
    changed = {**document, "pbxs": [pbx for pbx in document["pbxs"] if pbx["name"] != name]}
    await put_document(visit.services, visit.actor, visit.number, changed)
    return visit.redirect(f"/e/{visit.number}/settings/pbx")


async def _document(visit: Visit) -> dict[str, Any]:
    document, _ = await visit.services.tenants.document(visit.number)
    return dict(document)


def _stored(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    for pbx in document["pbxs"]:
        if pbx["name"] == name:
            return dict(pbx)
    raise NotFound(f"there is no PBX {name}")


_ONE = "/e/{n}/settings/pbx/{name}"

PAGES = (
    Page("GET", "/e/{n}/settings/pbx", show_pbxs, needs=Role.SUPER),
    Page("GET", _ONE, show_pbx, needs=Role.SUPER, needs_proof=True),
    Page("POST", _ONE, save_pbx, needs=Role.SUPER, needs_proof=True),
    Page("POST", _ONE + "/remove", remove_pbx, needs=Role.SUPER, needs_proof=True),
)
