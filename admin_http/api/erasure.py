"""A customer asks to be forgotten."""

from __future__ import annotations

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer
from daemon.errors import VochidError

_BODY = {
    "type": "object",
    "required": ["phone"],
    "properties": {"phone": {"type": "string"}, "dry_run": {"type": "boolean", "default": True}},
}
_GIVES = {
    "type": "object",
    "required": ["dry_run", "found", "recordings_left", "still_live", "in_settings", "stays"],
    "properties": {
        "dry_run": {"type": "boolean"}, "found": {"type": "object", "additionalProperties": {"type": "integer"}},
        "recordings_left": {"type": "array", "items": {"type": "object"}}, "still_live": {"type": "integer"}, "in_settings": {"type": "boolean"},
        "stays": {"type": "array", "items": {"type": "string"}},
    },
}  # fmt: skip


async def erase(ask: Ask) -> web.StreamResponse:
    """Only `"dry_run": false` erases."""
    body = await ask.json()
    phone, dry_run = (body.get("phone"), body.get("dry_run", True)) if isinstance(body, dict) else (None, True)
    if not isinstance(phone, str) or len(phone) > 40:
        raise VochidError("a phone number is needed, as text", code="bad_parameter", field="phone")
    if not isinstance(dry_run, bool):
        raise VochidError("dry_run is true or false", code="bad_parameter", field="dry_run")
    return answer(await ask.services.erasure.erase(ask.enterprise, phone, ask.actor, dry_run=dry_run))


ROUTES = (
    Route(
        "POST", "/api/enterprises/{n}/erasure", erase,
        "Forget a customer's number: what is stored about it, and with dry_run false it goes; a report of both", body=_BODY, gives=_GIVES,
    ),
)  # fmt: skip
