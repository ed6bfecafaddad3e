"""An enterprise's own settings: general, lines and phones, dial rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from admin_http.audited import put_document
from admin_http.pages.enterprises import NOT_GENERAL
from admin_http.pages.forms import make_fields, read_fields
from admin_http.pages.routing import Page, Visit
from daemon.errors import SettingsError, VochidError
from daemon.model.person import Role
from daemon.tenants.document import DialRules, Enterprise

SKIPPED = (*NOT_GENERAL, "number")


async def show_general(visit: Visit) -> web.StreamResponse:
    return await _general(visit, await _document(visit))


async def _general(visit: Visit, values: Mapping[str, Any], errors: dict[str, str] | None = None, status: int = 200) -> web.Response:
    fields = make_fields(Enterprise, values, errors=errors, skip=SKIPPED)
    return visit.render("settings/form.html", status=status, fields=fields, errors=errors or {}, current="", lead="", warning="")


async def save_general(visit: Visit) -> web.StreamResponse:
    sent = read_fields(Enterprise, await visit.form(), skip=SKIPPED)
    try:
        await _put(visit, sent)
    except VochidError as error:
        return await _general(visit, sent, {error.field or "": visit.say(error)}, 400)
    return visit.redirect(f"/e/{visit.number}/settings")


async def show_dial_rules(visit: Visit) -> web.StreamResponse:
    return await _dial_rules(visit, (await _document(visit))["dial_rules"])


async def _dial_rules(visit: Visit, values: Mapping[str, Any], errors: dict[str, str] | None = None, status: int = 200) -> web.Response:
    fields = make_fields(DialRules, values, errors=errors)
    lead = visit.text("What may be dialled by a click. Emergency numbers never are.")
    warning = ""
    if values.get("allowed_prefixes") in ([], ()):  # an empty field stands for the country's own, an empty list for nothing at all
        warning = visit.text("The list of allowed prefixes is empty, not absent: nothing may be dialled until this page is saved.")
    return visit.render("settings/form.html", status=status, fields=fields, errors=errors or {}, current="dial", lead=lead, warning=warning)


async def save_dial_rules(visit: Visit) -> web.StreamResponse:
    sent = read_fields(DialRules, await visit.form())
    if isinstance(hours := sent.get("hours"), dict):
        hours["days"] = [int(day) if day.isdecimal() and len(day) < 3 else day for day in hours["days"]] or list(range(1, 8))
    try:
        await _put(visit, {"dial_rules": sent})
    except VochidError as error:
        return await _dial_rules(visit, sent, {(error.field or "").removeprefix("dial_rules."): visit.say(error)}, 400)
    return visit.redirect(f"/e/{visit.number}/settings/dial")


async def show_numbers(visit: Visit) -> web.StreamResponse:
    document = await _document(visit)
    typed = {
        "lines": "\n".join("; ".join([line["number"], line.get("name") or "", line.get("default_code") or ""]).rstrip("; ") for line in document["lines"]),
        "internal_phones": "\n".join(f"{phone['number']}; {phone.get('owner') or ''}".rstrip("; ") for phone in document["internal_phones"]),
        "employee_mobiles": "\n".join(document["employee_mobiles"]),
    }
    return visit.render("settings/numbers.html", typed=typed, errors={})


async def save_numbers(visit: Visit) -> web.StreamResponse:
    """One per line, parts apart by semicolons or tabs, as pasted from a table."""
    form = await visit.form()
    typed = {name: form.get(name, "") for name in ("lines", "internal_phones", "employee_mobiles")}
    sent: dict[str, Any] = {
        "lines": [{"number": row[0], "name": row[1], "default_code": row[2] or None} for row in _rows(typed["lines"])],
        "internal_phones": [{"number": row[0], "owner": row[1]} for row in _rows(typed["internal_phones"])],
        "employee_mobiles": [row[0] for row in _rows(typed["employee_mobiles"])],
    }
    try:
        await _put(visit, sent)
    except SettingsError as error:
        name, _, rest = (error.field or "").partition(".")
        index = rest.partition(".")[0]
        where = visit.text("Line %(number)s: ", number=int(index) + 1) if index.isdecimal() else ""
        return visit.render("settings/numbers.html", status=400, typed=typed, errors={name: where + visit.say(error)})
    return visit.redirect(f"/e/{visit.number}/settings/numbers")


def _rows(text: str) -> list[tuple[str, str, str]]:
    rows = []
    for line in text.splitlines():
        if line.strip():
            first, second, third, *_ = [part.strip() for part in line.replace("\t", ";").split(";", 2)] + ["", ""]
            rows.append((first.replace(" ", ""), second, third))
    return rows


async def _document(visit: Visit) -> dict[str, Any]:
    document, _ = await visit.services.tenants.document(visit.number)
    return dict(document)


async def _put(visit: Visit, part: Mapping[str, Any]) -> None:
    """Stores a part of the document; a change that somebody made meanwhile in another part stays."""
    document, etag = await visit.services.tenants.document(visit.number)
    await put_document(visit.services, visit.actor, visit.number, {**document, **part}, etag)


PAGES = (
    Page("GET", "/e/{n}/settings", show_general),
    Page("POST", "/e/{n}/settings", save_general),
    Page("GET", "/e/{n}/settings/numbers", show_numbers),
    Page("POST", "/e/{n}/settings/numbers", save_numbers),
    Page("GET", "/e/{n}/settings/dial", show_dial_rules),
    Page("POST", "/e/{n}/settings/dial", save_dial_rules, needs=Role.SUPER),
)
