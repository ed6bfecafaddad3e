"""What the other side of a ticket desk sends: tickets, messages, statuses, and the predecessor's legacy shapes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from adapters.tickets.inbound import (
    SEQUENCE_HEADER,
    BadTicket,
    read_legacy_message,
    read_legacy_ticket,
    read_message,
    read_status,
    read_ticket,
)
from admin_http.api.routing import Ask, Route, answer
from admin_http.problems import Unauthorized
from admin_http.visitors import way_of
from daemon.errors import NotFound, VochidError
from daemon.model.ticket import Side

INTEGRATION = "tickets"
LEGACY_TICKET, LEGACY_MESSAGE = "/api/v1/support/ticket", "/api/support/webhook/message"
T = TypeVar("T")


async def tickets(ask: Ask) -> web.StreamResponse:
    enterprise = await _owner(ask, Side.CRM)
    record, is_new = await ask.services.support.receive_ticket(enterprise, reading(read_ticket, await ask.json()))
    return answer(_outside(record), 201 if is_new else 200)


async def messages(ask: Ask) -> web.StreamResponse:
    enterprise = await _owner(ask)
    new = reading(lambda body: read_message(body, ask.request.headers.get(SEQUENCE_HEADER)), await ask.json())
    role = ask.services.support.role(enterprise)
    if new.sender is role:
        raise VochidError(f"this side is {role}: it takes messages of {role.other}", code="wrong_role", field="sender")
    record, is_new = await ask.services.support.receive_message(enterprise, new)
    return answer(_outside(record), 201 if is_new else 200)


async def status(ask: Ask) -> web.StreamResponse:
    """Both roles take it: tma by the contract, crm by our extension."""
    enterprise = await _owner(ask)
    new = reading(lambda body: read_status(body, ask.request.headers.get(SEQUENCE_HEADER)), await ask.json())
    return answer(_outside(await ask.services.support.receive_status(enterprise, new)))


async def legacy_ticket(ask: Ask) -> web.StreamResponse:
    enterprise = await _legacy_owner(ask, LEGACY_TICKET, Side.CRM)
    record, is_new = await ask.services.support.receive_ticket(enterprise, reading(read_legacy_ticket, await ask.json()))
    return answer(_outside(record), 201 if is_new else 200)


async def legacy_message(ask: Ask) -> web.StreamResponse:
    enterprise = await _legacy_owner(ask, LEGACY_MESSAGE)
    sender = ask.services.support.role(enterprise).other
    record, is_new = await ask.services.support.receive_message(enterprise, reading(lambda body: read_legacy_message(body, sender), await ask.json()))
    return answer(_outside(record), 201 if is_new else 200)


async def _owner(ask: Ask, only: Side | None = None) -> str:
    """The enterprise whose deploy_token this is, when its desk is at work and plays the right part."""
    scheme, _, token = ask.request.headers.get("Authorization", "").partition(" ")
    owner = await ask.services.inbound.find(token.strip(), "deploy_token") if scheme.lower() == "bearer" else None
    if owner is None:
        raise Unauthorized("the Authorization header must be `Bearer <deploy_token>`, with the token of this desk")
    tenancy = ask.services.tenants.get(owner.enterprise)
    settings = tenancy.integrations.get(INTEGRATION) if tenancy else None
    if tenancy is None or settings is None or not settings.enabled:
        raise NotFound("this desk is switched off")
    if tenancy.enterprise.paused:
        raise VochidError("this enterprise is paused: try again later", code="busy")
    role = ask.services.support.role(owner.enterprise)
    if only is not None and role is not only:
        raise VochidError(f"this side is {role}: only {only} takes this", code="wrong_role")
    return owner.enterprise


async def _legacy_owner(ask: Ask, path: str, only: Side | None = None) -> str:
    enterprise = await _owner(ask, only)
    tenancy = ask.services.tenants.get(enterprise)
    if tenancy is None or not getattr(tenancy.integrations[INTEGRATION], "legacy", False):
        raise NotFound("the legacy paths are switched off here: use /api/integration/…", code="legacy_off")
    caller = way_of(ask.request, ask.services.trusted_proxies).address
    agent = "".join(character for character in ask.request.headers.get("User-Agent", "") if character.isprintable())[:80]
    await ask.services.support.tickets.count_legacy(enterprise, path, f"{caller} {agent}".strip())
    return enterprise


def reading(read: Callable[[Any], T], body: Any) -> T:
    """A body as the adapter reads it. Raises VochidError with the field."""
    try:
        return read(body)
    except BadTicket as error:
        raise VochidError(str(error), code=error.code, field=error.field) from None


def _outside(record: dict[str, Any]) -> dict[str, Any]:
    """A record as the other side gets it: nothing that concerns only us."""
    return {key: value for key, value in record.items() if key not in ("agent", "author", "remote_id", "shared", "call", "about")}


_ID = {"type": "string", "format": "uuid"}
_ATTACHMENTS = {
    "type": "array", "maxItems": 10,
    "items": {
        "type": "object", "required": ["name", "url"],
        "properties": {"name": {"type": "string"}, "url": {"type": "string"}, "mime": {"type": "string"}, "size": {"type": ["integer", "null"]}},
    },
}  # fmt: skip
_SEQUENCE = {"type": "integer", "description": "ours, optional: the ticket's clock, which tells a late status from a new one"}

ROUTES = (
    Route(
        "POST", "/api/integration/tickets", tickets, "A ticket of the mini app, for role crm; the deploy_token opens it", open=True,
        body={
            "type": "object", "required": ["external_ticket_id", "subject", "message"],
            "properties": {
                "external_ticket_id": _ID, "subject": {"type": "string"}, "message": {"type": "string"}, "attachments": _ATTACHMENTS,
                "external_url": {"type": ["string", "null"]}, "project": {"type": "string"},
            },
        },
    ),
    Route(
        "POST", "/api/integration/messages", messages, "A message of the other side", open=True,
        body={
            "type": "object", "required": ["external_ticket_id", "message", "sender", "external_message_id"],
            "properties": {
                "external_ticket_id": _ID, "message": {"type": "string"}, "attachments": _ATTACHMENTS, "sender": {"enum": ["tma", "crm"]},
                "external_message_id": {"type": ["string", "integer"]}, "sequence": _SEQUENCE,
            },
        },
    ),
    Route(
        "POST", "/api/integration/status", status, "A ticket's status, set on the other side", open=True,
        body={
            "type": "object", "required": ["external_ticket_id", "status"],
            "properties": {"external_ticket_id": _ID, "status": {"enum": ["open", "in_progress", "closed"]}, "sequence": _SEQUENCE},
        },
    ),
    Route(
        "POST", LEGACY_TICKET, legacy_ticket, "The predecessor's form of a ticket", open=True,
        body={
            "type": "object", "required": ["ticket_id", "theme", "message"],
            "properties": {
                "ticket_id": _ID, "theme": {"type": "string"}, "message": {"type": "string"}, "attachments": {"type": "array"},
                "project": {"type": "string"}, "external_url": {"type": ["string", "null"]},
            },
        },
    ),
    Route(
        "POST", LEGACY_MESSAGE, legacy_message, "The predecessor's form of a message", open=True,
        body={
            "type": "object", "required": ["ticket_id", "message"],
            "properties": {"ticket_id": _ID, "message": {"type": "string"}, "attachments": {"type": "array"}, "project": {"type": "string"}},
        },
    ),
)  # fmt: skip
