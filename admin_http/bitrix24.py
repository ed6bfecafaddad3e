"""What a Bitrix24 portal sends by itself. It proves itself by its application token; the answer is at once, for the portal sends nothing twice."""

from __future__ import annotations

from urllib.parse import parse_qsl

from aiohttp import web

from adapters.bitrix24.inbound import BadInbound, read_event, token_of
from admin_http.api.routing import Ask, Route, answer
from admin_http.problems import Unauthorized
from daemon.errors import VochidError
from daemon.originate.clicks import CrmClick

BITRIX24 = "bitrix24"
MAX_PARAMETERS = 200


async def events(ask: Ask) -> web.StreamResponse:
    """Clicks on numbers and call-back requests; other events are taken and ignored."""
    pairs = _form(await ask.request.read())
    owner = await ask.services.inbound.find(token_of(pairs), "application_token", "installed")
    if owner is None or owner.integration != BITRIX24:
        raise Unauthorized("the application token is not known")
    try:
        event = read_event(pairs)
    except BadInbound as error:
        raise VochidError(str(error), code=error.code, field=error.field) from None
    tenancy = ask.services.tenants.get(owner.enterprise)
    settings = tenancy.integrations.get(BITRIX24) if tenancy else None
    if not event.wants_call or tenancy is None or tenancy.enterprise.paused or settings is None or not settings.enabled:
        return answer({"accepted": False})
    if settings.mode == "observe":
        return answer({"accepted": False, "detail": "nothing is dialled in mode observe"})
    click = CrmClick(owner.enterprise, BITRIX24, event.key, event.phone, event.user_id, event.line)
    if not ask.services.clicks.take(click):
        raise VochidError("too many clicks at once: nothing was dialled", code="limit")
    return answer({"accepted": True})


def _form(body: bytes) -> list[tuple[str, str]]:
    """The parameters; none when the body is no form, is not UTF-8, or has too many of them."""
    try:
        return parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        return []


_BODY = {"type": "object", "description": "application/x-www-form-urlencoded: event, data[…], auth[application_token]"}

ROUTES = (Route("POST", "/bitrix24/events", events, "Clicks on numbers and call-back requests of a Bitrix24 portal", body=_BODY, open=True),)
