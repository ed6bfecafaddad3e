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
    """Clicks on numbers, call-back requests, and changes of what is synced; other events are taken and ignored."""
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
    if event.entity is not None and ask.services.joined.bitrix24_sync is not None:
        return answer({"accepted": await ask.services.joined.bitrix24_sync.heard(owner.enterprise, *event.entity)})
    if not event.wants_call or tenancy is None or tenancy.enterprise.paused or settings is None or not settings.enabled:
        return answer({"accepted": False})
    if settings.mode == "observe":
        return answer({"accepted": False, "detail": "nothing is dialled in mode observe"})
    click = CrmClick(owner.enterprise, BITRIX24, event.key, event.phone, event.user_id, event.line)
    if not ask.services.clicks.take(click):
        raise VochidError("too many clicks at once: nothing was dialled", code="limit")
    return answer({"accepted": True})


async def install_address(ask: Ask) -> web.StreamResponse:
    """An address for the first installation of the portal's local application: the portal posts its tokens there."""
    assert ask.services.joined.consent is not None
    return answer({"url": await ask.services.joined.consent.address(ask.enterprise, BITRIX24, ask.actor)})


async def installed(ask: Ask) -> web.StreamResponse:
    """The portal installs the application and brings its tokens and its application token."""
    state = ask.request.query.get("state", "")
    if not state:
        raise Unauthorized("the state is missing: whose installation it is")
    assert ask.services.joined.consent is not None
    brought = {name: value for name, value in _form(await ask.request.read()) if value.isprintable()}
    done = await ask.services.joined.consent.finish(BITRIX24, state, None, {**{name: v for name, v in ask.request.query.items() if v.isprintable()}, **brought})
    if not done.told.ok:
        raise VochidError(f"the portal was not connected: {done.told.detail}", code="not_connected")
    return answer({"accepted": True})


def _form(body: bytes) -> list[tuple[str, str]]:
    """The parameters; none when the body is no form, is not UTF-8, or has too many of them."""
    try:
        return parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        return []


_ADDRESS = "/api/enterprises/{n}/integrations/bitrix24/install-address"
_STATE = (("state", "from install-address; single use, ten minutes"),)
_BODY = {"type": "object", "description": "application/x-www-form-urlencoded: event, data[…], auth[application_token]"}

_INSTALLED = {"type": "object", "description": "application/x-www-form-urlencoded: AUTH_ID … or auth[…], as the portal sends them"}

ROUTES = (
    Route("POST", "/bitrix24/events", events, "Clicks on numbers, call-back requests and changed entities of a Bitrix24 portal", body=_BODY, open=True),
    Route("POST", "/bitrix24/install", installed, "A Bitrix24 portal brings its application's tokens", query=_STATE, body=_INSTALLED, open=True),
    Route("POST", _ADDRESS, install_address, "An address for the first installation of a portal's local application: once, ten minutes"),
)
