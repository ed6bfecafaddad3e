"""The dialplan's question over HTTP, for PBXs that ask so (the predecessor's path)."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from admin_http.api.routing import Ask, Route, answer
from daemon.errors import NotFound, VochidError

_CHANNEL = re.compile(r"[A-Za-z0-9_]{1,32}/[A-Za-z0-9_.@:+;/#*-]{1,200}")
_PHONE = re.compile(r"[\x20-\x7e]{0,64}")  # what it names is judged by the lookup: a withheld number is a question too


async def smart_redirect(ask: Ask) -> web.StreamResponse:
    """Answers as FastAGI does; with `channel`, and where allow_redirect holds, the call is sent there."""
    body = await ask.json()
    if not isinstance(body, dict):
        raise VochidError("the body is an object with enterprise_number, phone and, if the call is to be redirected, channel", code="bad_json")
    number = _text(body, "enterprise_number") or ask.who.enterprise
    if not number:
        raise VochidError("enterprise_number is missing", code="bad_parameter", field="enterprise_number")
    if not ask.who.may_see(number) or ask.services.tenants.get(number) is None:
        raise NotFound("there is no such enterprise")
    phone, channel = _text(body, "phone"), _text(body, "channel")
    if phone is None or not _PHONE.fullmatch(phone):
        raise VochidError("phone is the caller's number as text, at most 64 characters", code="bad_parameter", field="phone")
    if channel is not None and not _CHANNEL.fullmatch(channel):
        raise VochidError("channel is a channel's name, like PJSIP/provider-0000001a", code="bad_parameter", field="channel")
    if ask.who.session is not None:  # a person tries; a PBX asks for every call
        ask.services.joined.probes.take(number, ask.who.name)
    decision = await ask.services.smart_redirect(number, phone, channel)
    return answer({"status": str(decision.status), "extension": decision.extension, "name": decision.name or None})


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise VochidError(f"{name} is text", code="bad_parameter", field=name)
    return value


ROUTES = (
    Route(
        "POST", "/smart-redirect", smart_redirect, "Who should take this call, and whether that person can", without_enterprise=True, kept=True,
        body={
            "type": "object", "required": ["enterprise_number", "phone"],
            "properties": {"enterprise_number": {"type": "string"}, "phone": {"type": "string"}, "channel": {"type": "string"}},
        },
    ),
)  # fmt: skip
