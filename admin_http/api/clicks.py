"""Click-to-call for programs and people: place a call, see what became of it."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer
from admin_http.api.shapes import PLACED
from daemon.errors import VochidError
from daemon.originate.service import Asked, Placed
from daemon.originate.states import State

OWN = "api"
_FIELDS = ("extension", "phone", "idempotency_key")
_WAITING = (State.UNKNOWN, State.RESERVED)


def placed_answer(placed: Placed) -> web.Response:
    """200 when the PBX has taken it, 202 while nobody can tell."""
    return answer({"success": True, "request_id": placed.request_id, "state": str(placed.state)}, 202 if placed.state in _WAITING else 200)


async def place_call(ask: Ask) -> web.StreamResponse:
    """Rings `extension`, then `phone`."""
    body = await ask.json()
    if not isinstance(body, dict):
        raise VochidError("the body is an object with extension and phone", code="bad_json")
    return placed_answer(await ask.services.originate.click(ask.enterprise, _asked(body)))


def _asked(body: dict[str, Any]) -> Asked:
    if unknown := next((name for name in body if name not in _FIELDS), None):
        raise VochidError(f"there is no parameter {unknown[:50]}", code="bad_parameter", field=unknown[:50])
    for name in _FIELDS:
        value = body.get(name)
        if value is None and name == "idempotency_key":
            continue
        if not isinstance(value, str) or not value:
            raise VochidError(f"{name} is needed, as text", code="missing_parameter" if value in (None, "") else "bad_parameter", field=name)
    return Asked(body["phone"], OWN, extension=body["extension"], idempotency_key=body.get("idempotency_key"))


async def get_request(ask: Ask) -> web.StreamResponse:
    return answer((await ask.services.originate.get(ask.enterprise, ask.part("id"))).to_json())


_CALLS = "/api/enterprises/{n}/calls"
_BODY = {
    "type": "object", "required": ["extension", "phone"], "additionalProperties": False,
    "properties": {name: {"type": "string"} for name in _FIELDS},
}  # fmt: skip

ROUTES = (
    Route(
        "POST",
        _CALLS,
        place_call,
        "Click-to-call: ring an extension, then a number; 202 while the outcome is unknown",
        body=_BODY,
        statuses=(200, 202),
        gives=PLACED,
    ),
    Route("GET", _CALLS + "/requests/{id}", get_request, "What became of a click"),
)
