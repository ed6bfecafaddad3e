"""The local side of the ticket desk: lists, conversations, replies, statuses."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from adapters.tickets.inbound import check_text, check_url, read_attachments
from adapters.tickets.limits import MAX_MESSAGE, MAX_SUBJECT
from admin_http.api.routing import Ask, Route, answer
from admin_http.api.support import reading
from daemon.errors import VochidError
from daemon.model.phone import shown_number
from daemon.model.ticket import TicketStatus
from daemon.store.ticket_query import UNCLOSED, TicketFilter

STATUSES = tuple(map(str, TicketStatus))
_EXTENSION = re.compile(r"[0-9*#]{1,20}")
MAX_KEY = 200


async def list_tickets(ask: Ask) -> web.StreamResponse:
    items, following = await ask.services.support.tickets.page(ask.enterprise, _filter(ask), cursor=ask.query("cursor"), limit=ask.limit())
    return answer({"items": items, "next": following})


def _filter(ask: Ask) -> TicketFilter:
    call = ask.query("call")
    if call is not None and not re.fullmatch(r"[0-9a-fA-F-]{32,36}", call):
        raise VochidError("call is a call's id", code="bad_parameter", field="call")
    return TicketFilter(ask.choice("status", (*STATUSES, UNCLOSED)), _phone(ask, ask.query("phone")), ask.query("q"), call)


async def get_ticket(ask: Ask) -> web.StreamResponse:
    return answer(await ask.services.support.tickets.get(ask.enterprise, ask.id()))


async def open_ticket(ask: Ask) -> web.StreamResponse:
    body = await _object(ask)
    _only(body, "subject", "message", "attachments", "phone", "agent", "external_url", "idempotency_key")
    ask.services.support.role(ask.enterprise)
    ticket, is_new = await ask.services.support.open(
        ask.enterprise, _text(body, "subject", MAX_SUBJECT), _text(body, "message", MAX_MESSAGE),
        attachments=reading(read_attachments, body.get("attachments")), phone=_phone(ask, _optional(body, "phone", 40)), agent=_agent(body) or None,
        external_url=reading(lambda value: check_url(value, "external_url"), body.get("external_url")), author=ask.who.name,
        idempotency_key=_optional(body, "idempotency_key", MAX_KEY),
    )  # fmt: skip
    return answer(ticket, 201 if is_new else 200)


async def add_message(ask: Ask) -> web.StreamResponse:
    body = await _object(ask)
    _only(body, "message", "attachments", "idempotency_key")
    attachments = reading(read_attachments, body.get("attachments"))
    text = reading(lambda value: check_text(value, "message", MAX_MESSAGE, may_be_empty=bool(attachments)), body.get("message"))
    message, is_new = await ask.services.support.reply(
        ask.enterprise, ask.id(), text, attachments=attachments, author=ask.who.name, idempotency_key=_optional(body, "idempotency_key", MAX_KEY)
    )
    return answer(message, 201 if is_new else 200)


async def put_status(ask: Ask) -> web.StreamResponse:
    body = await _object(ask)
    _only(body, "status", "agent")
    if body.get("status") not in STATUSES:
        raise VochidError(f"status is one of {', '.join(STATUSES)}", code="bad_parameter", field="status")
    agent = _agent(body) if "agent" in body else None
    return answer(await ask.services.support.set_status(ask.enterprise, ask.id(), TicketStatus(body["status"]), agent))


async def legacy_callers(ask: Ask) -> web.StreamResponse:
    return answer({"items": await ask.services.support.tickets.legacy_callers(ask.enterprise), "next": None})


async def _object(ask: Ask) -> dict[str, Any]:
    body = await ask.json()
    if not isinstance(body, dict):
        raise VochidError("the body must be a JSON object", code="bad_body")
    return body


def _only(body: dict[str, Any], *known: str) -> None:
    """A typo must not silently do nothing."""
    unknown = next((name for name in body if name not in known), None)
    if unknown is not None:
        raise VochidError(f"{unknown[:80]} is not a field of this: {', '.join(known)}", code="bad_parameter", field=unknown[:80])


def _text(body: dict[str, Any], name: str, most: int) -> str:
    return reading(lambda value: check_text(value, name, most), body.get(name))


def _optional(body: dict[str, Any], name: str, most: int) -> str | None:
    return _text(body, name, most) if body.get(name) is not None else None


def _agent(body: dict[str, Any]) -> str:
    """An extension, or empty for nobody."""
    value = body.get("agent")
    if value in (None, ""):
        return ""
    if not isinstance(value, str) or not _EXTENSION.fullmatch(value):
        raise VochidError("agent is an extension", code="bad_parameter", field="agent")
    return value


def _phone(ask: Ask, text: str | None) -> str | None:
    """As calls have it, so that the customer's calls and tickets find each other."""
    tenancy = ask.services.tenants.get(ask.enterprise)
    if text is None or tenancy is None:
        return None
    number = shown_number(text, tenancy.enterprise.country)
    if number is None:
        raise VochidError("phone is a phone number", code="bad_parameter", field="phone")
    return number


_LIST = "/api/enterprises/{n}/tickets"
_ATTACHMENTS = {"type": "array", "items": {"type": "object"}}
ROUTES = (
    Route(
        "GET", _LIST, list_tickets, "Tickets, the one that changed last first",
        query=(
            ("status", f"{', '.join(STATUSES)}, or {UNCLOSED}"), ("phone", "the customer's"),
            ("q", "words of the subject, the end of the number, or an id"), ("call", "a call's id"),
            ("limit", "at most 500"), ("cursor", "`next` of the page before"),
        ),
    ),
    Route(
        "POST", _LIST, open_ticket, "Open a ticket; as tma it is told to the crm",
        body={
            "type": "object", "required": ["subject", "message"],
            "properties": {
                **{name: {"type": "string"} for name in ("subject", "message", "phone", "agent", "external_url", "idempotency_key")},
                "attachments": _ATTACHMENTS,
            },
        },
    ),
    Route("GET", _LIST + "/legacy", legacy_callers, "Who still comes by the legacy paths, and how often"),
    Route("GET", _LIST + "/{id}", get_ticket, "A ticket with its conversation; what became of each message's delivery"),
    Route(
        "POST", _LIST + "/{id}/messages", add_message, "Reply",
        body={
            "type": "object", "required": ["message"],
            "properties": {"message": {"type": "string"}, "attachments": _ATTACHMENTS, "idempotency_key": {"type": "string"}},
        },
    ),
    Route(
        "PUT", _LIST + "/{id}/status", put_status, "Set the status, and who looks after it",
        body={"type": "object", "required": ["status"], "properties": {"status": {"enum": list(STATUSES)}, "agent": {"type": ["string", "null"]}}},
    ),
)  # fmt: skip
