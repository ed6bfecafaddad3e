"""amoCRM: a widget's clicks, changes of the account told by webhook, and orders that become contact, lead and note."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from adapters.amocrm.inbound import BadInbound, Clicker, Unproved, claimed, is_switched_off, read_changed, read_clicker, read_order
from admin_http.api.clicks import placed_answer
from admin_http.api.routing import Ask, Route, answer
from admin_http.ports import AmoCrmPort
from admin_http.problems import Unauthorized, from_error
from daemon.errors import NotFound, VochidError
from daemon.originate.service import Asked

AMOCRM = "amocrm"
ONE_TIME = "X-Auth-Token"
MAX_PHONE = 64
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST", "Access-Control-Allow-Headers": "X-Auth-Token, X-Requested-With, Content-Type",
    "Access-Control-Max-Age": "600",
}  # fmt: skip


def _doors(ask: Ask) -> AmoCrmPort:
    if ask.services.joined.amocrm is None:
        raise NotFound("amoCRM is not part of this vochid")
    return ask.services.joined.amocrm


async def may_call(ask: Ask) -> web.StreamResponse:
    """A browser asks whether the account's page may: only a page of an account that is connected here."""
    origin = ask.request.headers.get("Origin", "")
    if not _doors(ask).is_account(origin):
        raise Unauthorized("no account with this address is connected here")
    return web.Response(status=204, headers={**_shared_with(origin), **_PREFLIGHT})


async def make_call(ask: Ask) -> web.StreamResponse:
    """A click on a number in a card: rings the user's extension, then the number."""
    enterprise, clicker, is_single_use, headers = await _clicker(ask)
    try:
        body = await ask.json() if ask.request.content_type == "application/json" else await _form(ask.request)
        phone = body.get("phone") if isinstance(body, dict) else None
        if not isinstance(phone, str) or not phone.strip() or len(phone) > MAX_PHONE:
            raise VochidError("phone is missing: the number to dial", code="missing_parameter", field="phone")
        # The same token again is the same click: it is answered with what became of the first one, and nothing is dialled.
        key = f"{AMOCRM}:{clicker.token_id}" if is_single_use else None
        response = placed_answer(await ask.services.originate.click(enterprise, Asked(phone.strip(), AMOCRM, user_id=clicker.user_id, idempotency_key=key)))
    except VochidError as error:
        response = from_error(error)
    response.headers.update(headers)
    return response


async def call_state(ask: Ask) -> web.StreamResponse:
    """What became of the user's own click."""
    enterprise, clicker, _, headers = await _clicker(ask)
    try:
        request = await ask.services.originate.get(enterprise, ask.query("request_id") or "")
        tenancy = ask.services.tenants.get(enterprise)
        held = tenancy.integrations[AMOCRM].user_extensions.get(clicker.user_id) if tenancy else None
        if request.source != AMOCRM or request.extension != held:
            raise NotFound("there is no such request")
        response = answer({"request_id": request.id, "state": str(request.state), "reason": request.reason or ""})
    except VochidError as error:
        response = from_error(error)
    response.headers.update(headers)
    return response


async def _clicker(ask: Ask) -> tuple[str, Clicker, bool, dict[str, str]]:
    """The enterprise, who clicks, whether tokens count once, and the headers that let the account's page read the answer.
    Raises Unauthorized."""
    doors, token = _doors(ask), ask.request.headers.get(ONE_TIME, "")
    try:
        said = claimed(token)
    except Unproved as error:
        raise Unauthorized(str(error)) from None
    why = "no account with this address is connected here"
    found: list[tuple[str, Clicker, Any]] = []
    for number, settings in doors.accounts(said.host, said.client_id):
        if settings.client_id is None or settings.client_secret is None:
            continue
        try:
            clicker = read_clicker(
                token, settings.client_secret.get_secret_value(), host=settings.host, client_id=settings.client_id, audience=doors.audience(settings),
                account_id=await doors.account_id(number, settings), now=time.time(),
            )  # fmt: skip
        except Unproved as error:
            why = str(error)
            continue
        found.append((number, clicker, settings))
    if not found:
        raise Unauthorized(why)
    # Two enterprises may share an account: the user belongs to the one that gives an extension.
    number, clicker, settings = next((one for one in found if one[2].user_extensions.get(one[1].user_id)), found[0])
    origin = ask.request.headers.get("Origin", "")
    same = origin.rstrip("/").lower() == settings.base_url.lower()
    return number, clicker, bool(settings.single_use_clicks), _shared_with(origin) if same else {}


def _shared_with(origin: str) -> dict[str, str]:
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


async def webhook(ask: Ask) -> web.StreamResponse:
    """Customers or their responsible users changed: what is remembered of them is asked anew."""
    owner = await ask.services.inbound.find(ask.query("clientId") or "", "client_id")
    if owner is None or owner.integration != AMOCRM:
        raise Unauthorized("the clientId is not known")
    tenancy = ask.services.tenants.get(owner.enterprise)
    settings: Any = tenancy.integrations.get(AMOCRM) if tenancy else None
    if settings is None:
        raise Unauthorized("the clientId is not known")
    form = await _form(ask.request)
    try:
        change = read_changed([(name, value) for name, value in form.items() if isinstance(value, str)])
    except BadInbound as error:
        raise VochidError(str(error), code=error.code, field=error.field) from None
    known = await _doors(ask).account_id(owner.enterprise, settings)
    if known is not None and change.account_id != known:
        raise Unauthorized("the change is of another account")
    _doors(ask).changed(owner.enterprise, None if change.is_vague else change.phones)
    return answer({"success": True})


async def switched_off(ask: Ask) -> web.StreamResponse:
    """The integration was switched off in the account. It is found by its client_id, proved by its signature, and looked at."""
    account, client_id, signature = (ask.query(name) or "" for name in ("account_id", "client_uuid", "signature"))
    doors, found = _doors(ask), []
    for number, settings in doors.of_integration(client_id):
        secret = settings.client_secret.get_secret_value() if settings.client_secret else None
        if secret and is_switched_off(account, client_id, signature, secret) and account == await doors.account_id(number, settings):
            found.append(number)
    if not found:
        raise Unauthorized("no account is connected here that would say this")
    return answer({"success": True, "switched_off": any([await doors.switched_off(number) for number in found])})


async def _form(request: web.Request) -> dict[str, Any]:
    try:
        return dict(await request.post())
    except (HttpProcessingError, ValueError, LookupError) as error:  # broken multipart, an unknown charset, bytes that are no text
        raise VochidError(f"the body is not a form: {str(error)[:100]}", code="bad_form") from None


async def put_order(ask: Ask) -> web.StreamResponse:
    """201 for a new order, 200 for one that was sent before, with how far it is."""
    tenancy = ask.services.tenants.get(ask.enterprise)
    if tenancy is None:
        raise NotFound(f"there is no enterprise {ask.enterprise}")
    try:
        order = read_order(await ask.json(), tenancy.enterprise.country)
    except BadInbound as error:
        raise VochidError(str(error), code=error.code, field=error.field) from None
    made = await _doors(ask).order(ask.enterprise, order)
    return answer(made, 201 if made["created"] else 200)


_ORDER = {
    "type": "object", "required": ["number", "contact"], "additionalProperties": False,
    "properties": {
        "number": {"type": "string"},
        "contact": {"type": "object", "properties": {name: {"type": "string"} for name in ("name", "phone", "email")}},
        "lead": {"type": "object", "properties": {"name": {"type": "string"}, "price": {"type": "integer"}}},
        "note": {"type": "string"},
    },
}  # fmt: skip
_CLICK = "/amocrm/make-call"

ROUTES = (
    Route("OPTIONS", _CLICK, may_call, "The account's page asks whether it may place calls (CORS)", open=True),
    Route("POST", _CLICK, make_call, "amoCRM's widget: click-to-call with its X-Auth-Token", open=True),
    Route("GET", _CLICK, call_state, "amoCRM's widget: what became of the click", query=(("request_id", "as the click was answered"),), open=True),
    Route(
        "GET",
        "/amocrm/disabled",
        switched_off,
        "amoCRM tells that the integration was switched off in the account",
        open=True,
        query=(("account_id", "the account's number"), ("client_uuid", "the integration's client_id"), ("signature", "HMAC-SHA256 with its secret")),
    ),
    Route("POST", "/amocrm/webhook", webhook, "Changes in amoCRM, as a form", query=(("clientId", "what registration issued"),), open=True),
    Route("POST", "/api/enterprises/{n}/amocrm/orders", put_order, "An order: contact, lead and note in amoCRM, once by its number", body=_ORDER),
)
