"""An enterprise's own records: objects, contracts, users and companies (contract section 6)."""

from __future__ import annotations

from functools import partial
from typing import Any

from aiohttp import web

from admin_http.api.routing import Ask, Handler, Route, answer, page
from admin_http.api.shapes import list_of
from admin_http.services import Services
from daemon.errors import NotFound, VochidError
from daemon.model.crm_record import DATES, FIELDS, REFERENCES, REQUIRED, RecordType
from daemon.model.phone import shown_number
from daemon.records.checks import MOST
from daemon.records.service import record_json
from daemon.store.audit import Actor
from daemon.store.crm_records import RecordFilter

MAX_SEARCH = 200
_SAYS = {
    RecordType.OBJECT: ("objects", "an object"), RecordType.CONTRACT: ("contracts", "a contract"), RecordType.USER: ("users", "a user"),
    RecordType.COMPANY: ("companies", "a company"),
}  # fmt: skip
FILTERS: dict[RecordType, tuple[tuple[str, str], ...]] = {
    RecordType.OBJECT: (("contract_id", "of this contract"), ("company_id", "of this company's contracts")),
    RecordType.CONTRACT: (("company_id", "of this company"),),
    RecordType.USER: (("phone", "with this number"),),
    RecordType.COMPANY: (("phone", "with this number"),),
}
_ALL_FILTERS = ("phone", "company_id", "contract_id")


async def list_records(kind: RecordType, ask: Ask) -> web.StreamResponse:
    found, following = await ask.services.records.page(ask.enterprise, kind, _filter(kind, ask), before=ask.number("cursor"), limit=ask.limit())
    return page([record_json(record) for record in found], following)


def _filter(kind: RecordType, ask: Ask) -> RecordFilter:
    known = [name for name, _ in FILTERS[kind]]
    for name in _ALL_FILTERS:
        if name not in known and ask.query(name) is not None:  # else a list that was not filtered would look as if it were
            raise VochidError(f"{name} is not a filter of {kind.plural}", code="bad_parameter", field=name)
    since, search = ask.time("updated_since"), ask.query("search")
    if search is not None and len(search) > MAX_SEARCH:
        raise VochidError(f"search has at most {MAX_SEARCH} characters", code="too_long", field="search")
    return RecordFilter(
        search=search, phone=_phone(ask), company_id=ask.number("company_id"), contract_id=ask.number("contract_id"),
        updated_since=since.timestamp() if since is not None else None,
    )  # fmt: skip


def _phone(ask: Ask) -> str | None:
    """As records have it."""
    text, tenancy = ask.query("phone"), ask.services.tenants.get(ask.enterprise)
    if text is None or tenancy is None:
        return None
    number = shown_number(text, tenancy.enterprise.country)
    if number is None:
        raise VochidError("phone is a phone number", code="bad_parameter", field="phone")
    return number


async def get_record(kind: RecordType, ask: Ask) -> web.StreamResponse:
    return answer(record_json(await ask.services.records.get(ask.enterprise, kind, ask.id())))


async def post_record(kind: RecordType, ask: Ask) -> web.StreamResponse:
    body = await ask.json()
    key = body.pop("idempotency_key", None) if isinstance(body, dict) else None
    record, is_new = await ask.services.records.create(_existing(ask), kind, body, key)
    if is_new:
        await note(ask.services, ask.actor, "record made", ask.enterprise, kind, record.id)
    return answer(record_json(record), 201 if is_new else 200)


async def patch_record(kind: RecordType, ask: Ask) -> web.StreamResponse:
    record, names = await ask.services.records.change(_existing(ask), kind, ask.id(), await ask.json())
    if names:
        await note(ask.services, ask.actor, "record changed", ask.enterprise, kind, record.id, names)
    return answer(record_json(record))


async def delete_record(kind: RecordType, ask: Ask) -> web.StreamResponse:
    record = await ask.services.records.delete(ask.enterprise, kind, ask.id())
    await note(ask.services, ask.actor, "record deleted", ask.enterprise, kind, record.id)
    return web.Response(status=204)


async def note(services: Services, by: Actor, action: str, enterprise: str, kind: RecordType, record_id: int, names: tuple[str, ...] = ()) -> None:
    """Into the audit: which fields became different, not what stands in them, for that is a person's and the audit is for ever."""
    details = {"fields": ", ".join(names)} if names else None
    await services.people.audit.note(by, action, f"{kind} {record_id}", enterprise=enterprise, details=details)


def _existing(ask: Ask) -> str:
    """The enterprise, which must still be there: its country is needed."""
    if ask.services.tenants.get(ask.enterprise) is None:
        raise NotFound(f"there is no enterprise {ask.enterprise}")
    return ask.enterprise


def _schema(name: str, *, is_needed: bool) -> dict[str, Any]:
    if name in REFERENCES:
        return {"type": ["integer", "null"], "minimum": 1}
    found: dict[str, Any] = {"type": "string"} if is_needed else {"type": ["string", "null"]}
    return {**found, "format": "date"} if name in DATES else {**found, "maxLength": MOST[name]}


def _body(kind: RecordType) -> dict[str, Any]:
    return {name: _schema(name, is_needed=name == REQUIRED[kind]) for name in FIELDS[kind]}


def _shape(kind: RecordType) -> dict[str, Any]:
    time = {"type": "string", "format": "date-time"}
    properties = {"id": {"type": "integer"}, **_body(kind), "created_at": time, "updated_at": time}
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


def _routes(kind: RecordType) -> tuple[Route, ...]:
    path, (many, one), shape = f"/api/enterprises/{{n}}/crm/{kind.plural}", _SAYS[kind], _shape(kind)

    def of(handler: Any) -> Handler:
        return partial(handler, kind)

    searching = (
        ("search", "in the texts"), *FILTERS[kind], ("updated_since", "changed at or after, with offset"), ("limit", "at most 500"),
        ("cursor", "`next` of the page before"),
    )  # fmt: skip
    new = {"type": "object", "required": [REQUIRED[kind]], "properties": {**_body(kind), "idempotency_key": {"type": "string"}}}
    return (
        Route("GET", path, of(list_records), f"The enterprise's own {many}, the newest first", query=searching, gives=list_of(shape)),
        Route("POST", path, of(post_record), f"Make {one}; the same idempotency_key again gives it as it is", body=new, statuses=(201, 200), gives=shape),
        Route("GET", path + "/{id}", of(get_record), f"One of the {many}", gives=shape),
        Route(
            "PATCH", path + "/{id}", of(patch_record), f"Change {one}: what is sent is written, null clears it",
            body={"type": "object", "properties": _body(kind)}, gives=shape,
        ),
        Route("DELETE", path + "/{id}", of(delete_record), f"Take {one} away; what points at it points at nothing then"),
    )  # fmt: skip


ROUTES = tuple(route for kind in RecordType for route in _routes(kind))
