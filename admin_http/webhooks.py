"""What CRMs and PBXs send by themselves. Each proves itself with what it carries, so these routes are open; nothing is believed before that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from adapters.retailcrm.inbound import BadInbound, Pairs, read_click, read_status, token_of
from admin_http.api.clicks import OWN, placed_answer
from admin_http.api.routing import Ask, Route, answer, parse_json
from admin_http.auth import principal
from admin_http.problems import Unauthorized
from admin_http.services import Services
from daemon.calls.posted import read_posted
from daemon.errors import NotFound, VochidError
from daemon.originate.service import Asked

RETAILCRM = "retailcrm"
MAX_PARAMETERS = 50
T = TypeVar("T")


async def make_call(ask: Ask) -> web.StreamResponse:
    """RetailCRM's makeCallUrl."""
    return await _click(ask, RETAILCRM)


async def make_call_external(ask: Ask) -> web.StreamResponse:
    """The PBX agent's own form of the same."""
    return await _click(ask, OWN)


async def _click(ask: Ask, source: str) -> web.StreamResponse:
    pairs = await _parameters(ask.request)
    enterprise = await _owner(ask.services, _reading(token_of, pairs))
    click = _reading(read_click, pairs)
    asked = Asked(click.phone, source, extension=click.extension, user_id=click.user_id, line=click.line)
    return placed_answer(await ask.services.originate.click(enterprise, asked))


async def change_status(ask: Ask) -> web.StreamResponse:
    """RetailCRM's changeUserStatusUrl."""
    pairs = await _parameters(ask.request)
    enterprise = await _owner(ask.services, _reading(token_of, pairs))
    change = _reading(read_status, pairs)
    user = change.user_id or _user_of(ask.services, enterprise, change.extension)
    if user is None:
        raise VochidError(f"No user has the extension {change.extension}", code="unknown_extension", field="code")
    await ask.services.statuses.set(enterprise, RETAILCRM, user, change.status)
    return answer({"success": True})


def _user_of(services: Services, enterprise: str, extension: str | None) -> str | None:
    tenancy = services.tenants.get(enterprise)
    settings = tenancy.integrations.get(RETAILCRM) if tenancy else None
    return next((user for user, held in settings.user_extensions.items() if held and held == extension), None) if settings else None


async def events(ask: Ask) -> web.StreamResponse:
    """Calls as PBXs without a link post them."""
    body, problem = None, None
    try:
        body = parse_json(await ask.request.read())
    except VochidError as error:
        problem = error
    number = await _poster(ask, body, problem)
    tenancy = ask.services.tenants.get(number)
    if tenancy is None:
        raise NotFound(f"there is no enterprise {number}")
    event = read_posted(body, tenancy.enterprise.timezone)
    view = tenancy.enterprise.posting_view()
    if view is not None:
        await ask.services.posted.take(view, event)
    return answer({"accepted": True}, 202)


async def _poster(ask: Ask, body: Any, problem: VochidError | None) -> str:
    """The enterprise that the event is for, when who posts may speak for it: token, secret in the header, or the payload's Token.

    `problem`: why the body could not be read, told to nobody but who has proved himself.
    """
    named = body.get("enterprise_number") if isinstance(body, dict) else None
    token = payload.get("Token") if isinstance(body, dict) and isinstance(payload := body.get("payload"), dict) else None
    has_header = "Authorization" in ask.request.headers or "X-Enterprise-Secret" in ask.request.headers
    if not has_header and isinstance(token, str):
        owner = await ask.services.inbound.find(token, "secret")
        if owner is None:
            raise Unauthorized("the payload's Token is not known")
        if named is not None and named != owner.enterprise:
            raise NotFound("there is no such enterprise")
        return owner.enterprise
    who = await principal(ask.request, ask.services, secret_too=True)
    if problem is not None:
        raise problem
    if named is None and who.enterprise is not None:
        return who.enterprise
    if not isinstance(named, str):
        raise VochidError("enterprise_number is needed, as text", code="missing_parameter", field="enterprise_number")
    if not who.may_see(named):
        raise NotFound("there is no such enterprise")
    return named


async def _owner(services: Services, token: str) -> str:
    """Whose clientId this is: the value issued at registration, the enterprise's secret, or, where that is allowed, its number."""
    owner = await services.inbound.find(token, "client_id", "secret")
    if owner is not None:
        return owner.enterprise
    tenancy = services.tenants.get(token)
    settings = tenancy.integrations.get(RETAILCRM) if tenancy else None
    if settings is not None and settings.enabled and getattr(settings, "accept_number_as_client_id", False):
        return token
    raise Unauthorized("the clientId is not known")


async def _parameters(request: web.Request) -> list[tuple[str, Any]]:
    """Everything that was sent, from the query and the body, which is a form or JSON."""
    pairs: list[tuple[str, Any]] = list(request.query.items())
    if request.content_type.startswith("multipart/"):
        pairs += _form(await _post(request))
    elif (data := await request.read()).strip():
        if request.content_type == "application/json" or data.lstrip()[:1] == b"{":
            body = parse_json(data)
            if not isinstance(body, dict):
                raise VochidError("the body is a form or a JSON object", code="bad_json")
            pairs += body.items()
        else:
            pairs += _form(await _post(request))
    if len(pairs) > MAX_PARAMETERS:
        raise VochidError(f"more than {MAX_PARAMETERS} parameters", code="bad_parameter")
    return pairs


async def _post(request: web.Request) -> Any:
    try:
        return await request.post()
    except (HttpProcessingError, ValueError, LookupError) as error:  # broken multipart, an unknown charset, bytes that are no text
        raise VochidError(f"the body is not a form: {str(error)[:100]}", code="bad_form") from None


def _form(form: Any) -> list[tuple[str, Any]]:
    return [(str(name), value) for name, value in form.items()]


def _reading(read: Callable[[Pairs], T], pairs: Pairs) -> T:
    try:
        return read(pairs)
    except BadInbound as error:
        raise VochidError(str(error), code=error.code, field=error.field) from None


_CLICK = (
    ("clientId", "what registration issued, or the enterprise's secret"), ("phone", "the number to dial"),
    ("code", "the extension that calls; wins over userId"), ("userId", "the CRM user who calls"), ("externalPhone", "the own line to call from"),
)  # fmt: skip
_STATUS = (*_CLICK[:1], ("userId", "the CRM user"), ("code", "the extension"), ("status", "free, busy, dinner or break"))
_EVENT = {"type": "object", "required": ["event_type", "payload"], "properties": {"event_type": {"enum": ["dial", "bridge", "hangup", "download"]}}}

ROUTES = (
    Route("GET", "/retailcrm/make-call", make_call, "RetailCRM's click-to-call", query=_CLICK, statuses=(200, 202), kept=True, open=True),
    Route("POST", "/retailcrm/make-call", make_call, "RetailCRM's click-to-call: query, form or JSON", query=_CLICK, statuses=(200, 202), kept=True, open=True),
    Route("GET", "/retailcrm/status", change_status, "A manager's status in RetailCRM", query=_STATUS, kept=True, open=True),
    Route("POST", "/retailcrm/status", change_status, "A manager's status in RetailCRM: query, form or JSON", query=_STATUS, kept=True, open=True),
    Route("GET", "/api/makecallexternal", make_call_external, "Click-to-call by the enterprise's secret", query=_CLICK[:3], statuses=(200, 202), open=True),
    Route("POST", "/events", events, "Calls of a PBX that posts them itself", body=_EVENT, statuses=(202,), kept=True, open=True),
)
