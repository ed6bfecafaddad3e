"""Own records for people: objects, contracts, users and companies; lists, forms, and what belongs to each."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from admin_http.api.records import note
from admin_http.pages.routing import Page, Visit
from admin_http.pages.wording import may_call, owners, words
from admin_http.texts import N_
from daemon.errors import NotFound, VochidError
from daemon.model.crm_record import DATES, FIELDS, LOCAL, REFERENCES, REQUIRED, CrmRecord, RecordType
from daemon.model.person import Role
from daemon.records.checks import MOST
from daemon.store.call_query import CallFilter
from daemon.store.crm_records import RecordFilter

PER_PAGE = 50
BELONGING = 20  # records that belong to one, on its page
CALLS = 10
OPTIONS = 20
TABS = {RecordType.USER: N_("Users"), RecordType.COMPANY: N_("Companies"), RecordType.CONTRACT: N_("Contracts"), RecordType.OBJECT: N_("Objects")}
ONE = {RecordType.USER: N_("User"), RecordType.COMPANY: N_("Company"), RecordType.CONTRACT: N_("Contract"), RecordType.OBJECT: N_("Object")}
NEW = {RecordType.USER: N_("New user"), RecordType.COMPANY: N_("New company"), RecordType.CONTRACT: N_("New contract"), RecordType.OBJECT: N_("New object")}
LABELS = {
    "name": N_("Name"), "number": N_("Number"), "description": N_("Description"), "imei": "IMEI", "type": N_("Type"), "contract_id": N_("Contract"),
    "starts_on": N_("Starts on"), "ends_on": N_("Ends on"), "company_id": N_("Company"), "email": N_("E-mail"), "phone": N_("Phone"), "role": N_("Role"),
}  # fmt: skip
KINDS_THERE = {"deal": N_("deal"), "contact": N_("contact"), "company": N_("company")}
ERRORS = {"auth": N_("access"), "network": N_("network"), "validation": N_("data"), "limit": N_("limit")}
_NAMES = {**LABELS, "name": N_("Full name")}  # a person's
_CHOSEN = re.compile(r"№ ?(\d{1,18})$")


async def show_all(visit: Visit) -> web.StreamResponse:
    return visit.redirect(f"/e/{visit.number}/records/users")


async def show_list(visit: Visit) -> web.StreamResponse:
    kind, text = _kind(visit), (visit.query("q") or "").strip().replace("\0", "")[:100]
    belongs = {name: _id(visit.query(name)) for name in REFERENCES}
    asked = RecordFilter(search=text or None, company_id=belongs["company_id"], contract_id=belongs["contract_id"])
    found, following = await visit.services.records.page(visit.number, kind, asked, before=_id(visit.query("cursor")), limit=PER_PAGE)
    kept = {"q": text, **{name: value for name, value in belongs.items() if value is not None}}
    return visit.render(
        "records/list.html", items=found, kind=kind, tabs=TABS, new=NEW, text=text, belongs=kept, titles=await _titles(visit, found),
        is_filtered=any(kept.values()), more="?" + urlencode({**kept, "cursor": following}) if following else None,
    )  # fmt: skip


async def show_record(visit: Visit) -> web.StreamResponse:
    records, kind = visit.services.records, _kind(visit)
    record = await records.get(visit.number, kind, visit.id())
    link = await records.links.of(visit.number, kind, record.id)
    belonging = {one: await _belonging(visit, record, one) for one in (RecordType.CONTRACT, RecordType.OBJECT)}
    return visit.render(
        "records/record.html", record=record, kind=kind, one=ONE[kind], labels=_labels(kind), titles=await _titles(visit, [record]), references=REFERENCES,
        belonging={one: found for one, found in belonging.items() if found is not None}, tabs=TABS, calls=await _calls(visit, record.fields.get("phone")),
        link=link, there=_there(visit, link), kinds_there=KINDS_THERE, failures=await records.links.errors(visit.number, kind, record.id),
        error_names=ERRORS, local=LOCAL, dates=DATES, owners=owners(visit), may_call=may_call(visit), **words(visit),
    )  # fmt: skip


async def show_new(visit: Visit) -> web.StreamResponse:
    kind = _kind(visit)
    chosen = {name: _id(visit.query(name)) for name in REFERENCES if name in FIELDS[kind]}
    found = {name: await _title(visit, name, value) for name, value in chosen.items() if value is not None}
    return _form(visit, kind, None, found)


async def show_edit(visit: Visit) -> web.StreamResponse:
    kind = _kind(visit)
    record = await visit.services.records.get(visit.number, kind, visit.id())
    return _form(visit, kind, record, await _shown(visit, record))


async def make(visit: Visit) -> web.StreamResponse:
    kind, form = _kind(visit), await visit.form()
    try:
        record, is_new = await visit.services.records.create(visit.number, kind, await _sent(visit, kind, form), form.get("key"))
    except VochidError as error:
        return _form(visit, kind, None, form, error)
    if is_new:
        await note(visit.services, visit.actor, "record made", visit.number, kind, record.id)
    return visit.redirect(_place(visit, kind, record.id))


async def save(visit: Visit) -> web.StreamResponse:
    kind, form = _kind(visit), await visit.form()
    record = await visit.services.records.get(visit.number, kind, visit.id())
    try:
        _, names = await visit.services.records.change(visit.number, kind, record.id, await _sent(visit, kind, form))
    except NotFound:
        raise
    except VochidError as error:
        return _form(visit, kind, record, form, error)
    if names:
        await note(visit.services, visit.actor, "record changed", visit.number, kind, record.id, names)
    return visit.redirect(_place(visit, kind, record.id))


async def delete(visit: Visit) -> web.StreamResponse:
    kind = _kind(visit)
    record = await visit.services.records.delete(visit.number, kind, visit.id())
    await note(visit.services, visit.actor, "record deleted", visit.number, kind, record.id)
    return visit.redirect(f"/e/{visit.number}/records/{kind.plural}")


async def options(visit: Visit) -> web.StreamResponse:
    """What a field that points at a record of this kind offers, for what is typed so far."""
    kind = _kind(visit)
    typed = next((visit.query(name) or "" for name, target in REFERENCES.items() if target is kind), "")
    search = _CHOSEN.sub("", typed).strip(" ·").replace("\0", "")[:100]
    found, _ = await visit.services.records.page(visit.number, kind, RecordFilter(search=search or None), before=None, limit=OPTIONS)
    return visit.render("records/options.html", items=[_named(one) for one in found])


def _kind(visit: Visit) -> RecordType:
    kind = RecordType.of_plural(visit.part("kind"))
    if kind is None:
        raise NotFound("there is nothing at this address")
    return kind


def _labels(kind: RecordType) -> Mapping[str, str]:
    return _NAMES if kind is RecordType.USER else LABELS


def _id(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def _place(visit: Visit, kind: RecordType, record_id: int) -> str:
    return f"/e/{visit.number}/records/{kind.plural}/{record_id}"


def _form(visit: Visit, kind: RecordType, record: CrmRecord | None, typed: Mapping[str, str], error: VochidError | None = None) -> web.Response:
    """The form with what is `typed` in it. Each field says what it was when the form was opened, so that only what a person changed is written:
    what came from elsewhere meanwhile stays."""
    was = {name: typed.get(f"was.{name}", "") for name in FIELDS[kind]} if error is not None else typed if record is not None else {}
    return visit.render(
        "records/form.html", status=400 if error is not None else 200, record=record, kind=kind, new=NEW[kind], fields=FIELDS[kind], typed=typed, was=was,
        labels=_labels(kind), most=MOST, dates=DATES, references=REFERENCES, needed=REQUIRED[kind], one=ONE[kind], tabs=TABS,
        problem=visit.say(error) if error is not None else "", at=error.field if error is not None and error.field in FIELDS[kind] else None,
        key=typed.get("key") or uuid.uuid4().hex,
    )  # fmt: skip


async def _sent(visit: Visit, kind: RecordType, form: Mapping[str, str]) -> dict[str, Any]:
    """What the form changes."""
    now = {name: _plain(form.get(name)) for name in FIELDS[kind]}
    return {
        name: await _chosen(visit, name, text) if name in REFERENCES else text for name, text in now.items() if text != _plain(form.get(f"was.{name}"))
    }  # fmt: skip


def _plain(text: str | None) -> str:
    return (text or "").replace("\r\n", "\n").strip()


async def _chosen(visit: Visit, name: str, text: str) -> int | None:
    """The record that a field names: by the number behind its name, as offered, or by a name that only one has."""
    if not text:
        return None
    if found := _CHOSEN.search(text):
        return int(found[1])
    near, _ = await visit.services.records.page(visit.number, REFERENCES[name], RecordFilter(search=text[:255].replace("\0", "")), before=None, limit=OPTIONS)
    same = [one.id for one in near if one.title.casefold() == text.casefold()]
    if len(same) != 1:
        raise VochidError("choose one of the list", code="bad_parameter", field=name)
    return same[0]


def _named(record: CrmRecord) -> str:
    """As a field shows what it points at."""
    return f"{record.title} · № {record.id}"


async def _title(visit: Visit, name: str, record_id: int) -> str:
    try:
        return _named(await visit.services.records.get(visit.number, REFERENCES[name], record_id))
    except NotFound:
        return ""


async def _shown(visit: Visit, record: CrmRecord) -> dict[str, str]:
    """A record as its form has it."""
    found = {name: "" if value is None else str(value) for name, value in record.fields.items()}
    return {**found, **{name: await _title(visit, name, record.fields[name]) for name in REFERENCES if record.fields.get(name) is not None}}


async def _titles(visit: Visit, records: Sequence[CrmRecord]) -> dict[tuple[str, int], str]:
    """What the records point at is called."""
    found: dict[tuple[str, int], str] = {}
    for name, kind in REFERENCES.items():
        ids = sorted({record.fields[name] for record in records if record.fields.get(name) is not None})
        if ids:
            pointed, _ = await visit.services.records.page(visit.number, kind, RecordFilter(ids=ids), before=None, limit=len(ids))
            found |= {(name, one.id): one.title for one in pointed}
    return found


async def _belonging(visit: Visit, record: CrmRecord, kind: RecordType) -> tuple[list[CrmRecord], int | None] | None:
    """Records of a kind that belong to this one; None where there can be none."""
    name = next((name for name, target in REFERENCES.items() if target is record.type), None)
    if name is None or kind is record.type:
        return None
    asked = RecordFilter(company_id=record.id) if name == "company_id" else RecordFilter(contract_id=record.id)
    return await visit.services.records.page(visit.number, kind, asked, before=None, limit=BELONGING)


async def _calls(visit: Visit, phone: str | None) -> list[dict[str, Any]]:
    """The newest calls of exactly this number."""
    if phone is None:
        return []
    calls, _ = await visit.services.calls.page(visit.number, CallFilter(number=phone), limit=CALLS, with_legs=False)
    return [call for call in calls if call["customer_number"] == phone]


def _there(visit: Visit, link: Mapping[str, Any] | None) -> str | None:
    """Its page at the portal."""
    tenancy = visit.services.tenants.get(visit.number)
    portal = getattr(tenancy.integrations.get("bitrix24"), "portal", None) if tenancy is not None else None
    return f"{portal}/crm/{link['type']}/details/{link['id']}/" if portal and link is not None else None


PAGES = (
    Page("GET", "/e/{n}/records", show_all),
    Page("GET", "/e/{n}/records/{kind}", show_list),
    Page("POST", "/e/{n}/records/{kind}", make),
    Page("GET", "/e/{n}/records/{kind}/new", show_new, needs=Role.ADMIN),
    Page("GET", "/e/{n}/records/{kind}/options", options),
    Page("GET", "/e/{n}/records/{kind}/{id}", show_record),
    Page("POST", "/e/{n}/records/{kind}/{id}", save),
    Page("GET", "/e/{n}/records/{kind}/{id}/edit", show_edit, needs=Role.ADMIN),
    Page("POST", "/e/{n}/records/{kind}/{id}/delete", delete),
)
