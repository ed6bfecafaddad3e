"""A RetailCRM account in a box: enforces the documented contract, shows what it received.

What is documented is strict; what is doubtful has a switch (`Switches`), so that both readings can be tested. Facts and
their sources: docs/adapters/retailcrm.md.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from lab.crm.retailcrm_api import AccountApi
from lab.crm.retailcrm_data import sample_account
from lab.crm.retailcrm_managers import Managers
from lab.crm.retailcrm_page import PATHS, AccountPage

EVENT_TYPES = ("in", "out", "hangup")
HANGUP_STATUSES = ("answered", "busy", "cancel", "failed", "no answered")
RESULTS = ("answered", "busy", "failed", "no answer", "not allowed", "unknown")
MAX_CALLS = 50
EVENT_FIELDS = frozenset({"phone", "type", "codes", "userIds", "hangupStatus", "externalPhone", "site", "callExternalId", "webAnalyticsData"})
CALL_FIELDS = frozenset(
    {"date", "type", "phone", "code", "userId", "result", "duration", "durationWaiting", "externalId", "recordUrl", "externalPhone", "site",
     "source", "clientId"}
)  # fmt: skip
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


@dataclass
class Switches:
    """Doubtful points both ways, and faults. `fail_next` answers the next requests in its own way; 'pass' lets one through."""

    telephony_enabled: bool = True
    telephony_disabled_status: int = 200
    optional_keys: bool = False
    partial_status: int = 200
    rate_limited: bool = True
    rate_limit_status: int = 503
    account_exists: bool = True
    latency_s: float = 0.0
    refuse_batches: bool = False
    callback_method: str = "GET"
    module_required: bool = False  # telephony methods answer only while a module is registered, as on a real account
    check_logo: bool = False  # fetch the module's logo and look at it
    fail_next: deque[str] = field(default_factory=deque)


FAULTS = ("500", "500-json", "502", "html-200", "truncated", "reset", "silence", "done-then-silence", "redirect", "429", "errors-array", "wrong-type")


@dataclass
class Received:
    """One accepted request."""

    at: float
    path: str
    data: Any


class RetailCrmSandbox:
    """One account with one API key on one port of loopback."""

    def __init__(self, api_key: str = "sandbox-key-0123456789abcdef", codes: tuple[str, ...] = ()) -> None:
        self.api_key = api_key
        self.codes = frozenset(codes)
        self.switches = Switches()
        self.events: list[Received] = []
        self.journal: dict[str, dict[str, Any]] = {}
        self.links: dict[str, str] = {}  # by externalId, the recording that was told last
        self.uploads: list[Received] = []
        self.refusals: list[str] = []
        self.duplicates = 0
        self.account = sample_account()
        self.managers = Managers(self.account)
        self.clock: Callable[[], float] = time.monotonic  # of its limits
        self.page = AccountPage(self)
        self.passed: Counter[str] = Counter()  # requests that the gate let in, by the bucket of its limit
        self.too_soon_s: list[float] = []  # by how much each came too soon that it did not
        self._times: dict[str, deque[float]] = {"telephony": deque(), "other": deque()}
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self, port: int = 0) -> str:
        """Listens on loopback; gives the account's address."""
        application = web.Application(middlewares=[self._front], client_max_size=8 * 1024 * 1024)
        self.page.add_to(application)
        AccountApi(self).add_to(application)
        application.router.add_get("/api/api-versions", self._versions)
        application.router.add_get("/api/credentials", self._credentials)
        application.router.add_post("/api/v5/telephony/call/event", self._event)
        application.router.add_post("/api/v5/telephony/calls/upload", self._upload)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
        return self.url

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def click(
        self, telephony: str, client_id: str, phone: str, *, user_id: str = "", code: str = "", external_phone: str = "", method: str = "GET"
    ) -> tuple[int, dict[str, Any]]:
        """A manager clicks on a number: the CRM's server asks `telephony` (the daemon's address) to place the call; gives the answer."""
        sent = {"clientId": client_id, "userId": user_id, "code": code, "phone": phone, "externalPhone": external_phone}
        values = {name: value for name, value in sent.items() if value}
        where = {"params": values} if method == "GET" else {"data": values}
        async with (
            aiohttp.ClientSession(trust_env=False) as session,
            session.request(method, f"{telephony}/retailcrm/api/retailcrm/make-call", **where) as answer,  # type: ignore[arg-type]
        ):
            return answer.status, await answer.json(content_type=None)

    def popups(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Accepted call events, oldest first."""
        return [item.data for item in self.events if kind is None or item.data["type"] == kind]

    # -- the gate ------------------------------------------------------------------------------------------------------

    @web.middleware
    async def _front(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        if request.path == "/" or request.path.startswith(PATHS):
            return await handler(request)
        if request.path == "/favicon.ico":
            return web.Response(status=204)
        if self.switches.latency_s:
            await asyncio.sleep(self.switches.latency_s)
        if not self.switches.account_exists:
            return web.Response(status=405, text="<html><body>405 Not Allowed</body></html>", content_type="text/html")
        fault = self.switches.fail_next.popleft() if self.switches.fail_next else ""
        if fault and fault != "pass" and not fault.startswith("done-then-"):
            return await self._fault(fault, request)
        refused = await self._gate(request)
        if refused is not None:
            return refused
        try:
            answer = await handler(request)
        except web.HTTPMethodNotAllowed:
            answer = self.refuse(405, "Method Not Allowed")
        except web.HTTPNotFound:
            answer = self.refuse(404, "API method not found")
        if fault == "done-then-silence":
            await asyncio.sleep(60)
        if fault == "done-then-500":
            return await self._fault("500", request)
        return answer

    async def _gate(self, request: web.Request) -> web.Response | None:
        form = await request.post() if request.method == "POST" and "form" in request.content_type else {}
        key = request.headers.get("X-API-KEY") or request.query.get("apiKey") or form.get("apiKey")
        if request.path != "/api/api-versions":
            if key is None:
                return self.refuse(403, '"apiKey" is missing.')
            if key != self.api_key:
                return self.refuse(403, 'Wrong "apiKey" value.')
        bucket, limit = ("telephony", 40) if request.path.startswith("/api/v5/telephony") else ("other", 10)
        now, times = self.clock(), self._times[bucket]
        while times and times[0] <= now - 1.0:
            times.popleft()
        if self.switches.rate_limited and len(times) >= limit:
            self.too_soon_s.append(times[0] + 1.0 - now)
            return self.refuse(self.switches.rate_limit_status, "Rate limit exceeded")
        times.append(now)
        self.passed[bucket] += 1
        return None

    async def _fault(self, fault: str, request: web.Request) -> web.StreamResponse:
        match fault:
            case "500" | "502":
                return web.Response(status=int(fault), text="<html><h1>Server error</h1></html>", content_type="text/html")
            case "500-json":
                return self.answer({"success": False, "errorMsg": "Internal error"}, 500)
            case "html-200":
                return web.Response(text="<html>maintenance</html>", content_type="text/html")
            case "truncated":
                return web.Response(text='{"success": tr', content_type="application/json")
            case "wrong-type":
                return web.Response(text='{"success": true}', content_type="text/plain")
            case "redirect":
                return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})
            case "429":
                return self.answer({"success": False, "errorMsg": "Rate limit exceeded"}, 429)
            case "errors-array":
                return self.answer({"success": False, "errorMsg": "Failed to activate module", "errors": ["Not enough funds"]}, 400)
            case "silence":
                await request.read()
                await asyncio.sleep(60)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    # -- answers -------------------------------------------------------------------------------------------------------

    def answer(self, body: dict[str, Any], status: int = 200) -> web.Response:
        return web.Response(text=json.dumps(body, ensure_ascii=False), status=status, content_type="application/json")

    def refuse(self, status: int, message: str, errors: Any = None) -> web.Response:
        self.refusals.append(f"{status} {message}{' ' + json.dumps(errors, ensure_ascii=False) if errors else ''}")
        return self.answer({"success": False, "errorMsg": message, **({"errors": errors} if errors else {})}, status)

    async def structure(self, request: web.Request, name: str) -> Any:
        """The form field that carries JSON, or a refusal."""
        if request.content_type != "application/x-www-form-urlencoded":
            return self.refuse(400, f"Parameter '{name}' is missing")
        form = await request.post()
        if any(key.startswith(f"{name}[") for key in form):
            return self.refuse(400, f'Input value "{name}" contains a non-scalar value')
        value = form.get(name)
        if not isinstance(value, str) or not value:
            return self.refuse(400, f"Parameter '{name}' is missing")
        try:
            return json.loads(value)
        except ValueError:
            return self.refuse(400, "Errors in the entity format", {name: "This value should be valid JSON."})

    async def _versions(self, _: web.Request) -> web.Response:
        return self.answer({"success": True, "versions": ["3.0", "4.0", "5.0"]})

    async def _credentials(self, _: web.Request) -> web.Response:
        scopes = ["telephony_read", "telephony_write", "user_read", "integration_read", "integration_write"]
        paths = ["/api/telephony/call/event", "/api/telephony/calls/upload"]
        return self.answer({"success": True, "scopes": scopes, "credentials": paths, "siteAccess": "access_full"})

    async def _event(self, request: web.Request) -> web.Response:
        event = await self.structure(request, "event")
        if isinstance(event, web.Response):
            return event
        if self._is_off:
            return self.refuse(self.switches.telephony_disabled_status, "Telephony not enabled")
        if errors := event_errors(event):
            return self.refuse(400, "Errors in the entity format", errors)
        self.events.append(Received(time.time(), request.path, event))
        known = self.codes | set(self.account.codes.values())
        unknown = [code for code in event.get("codes", []) if known and code not in known]
        body: dict[str, Any] = {"success": True}
        if unknown or self.switches.optional_keys:
            body |= {"notExistCodes": unknown, "notExistUsers": []}
        return self.answer(body)

    async def _upload(self, request: web.Request) -> web.Response:
        calls = await self.structure(request, "calls")
        if isinstance(calls, web.Response):
            return calls
        if self._is_off:
            return self.refuse(self.switches.telephony_disabled_status, "Telephony not enabled or not supports calls upload")
        if not isinstance(calls, list) or not calls or len(calls) > MAX_CALLS:
            return self.refuse(400, "Errors in the input parameters", {"calls": f"1 to {MAX_CALLS} calls"})
        if self.switches.refuse_batches and len(calls) > 1:
            return self.refuse(400, "Validation error")
        wrong = {f"calls[{i}].{name}": text for i, call in enumerate(calls) for name, text in call_errors(call).items()}
        if wrong and self.switches.partial_status == 200:
            return self.refuse(400, "Errors in the entity format", wrong)
        return self._keep(calls, wrong)

    def _keep(self, calls: list[dict[str, Any]], wrong: dict[str, str]) -> web.Response:
        bad = {int(name[6 : name.index("]")]) for name in wrong}
        duplicates, fresh = [], 0
        for index, call in enumerate(calls):
            if index in bad:
                continue
            if call.get("recordUrl"):
                self.links[call["externalId"]] = call["recordUrl"]
            if call["externalId"] in self.journal:
                duplicates.append(call["externalId"])
            else:
                fresh += 1
                self.journal[call["externalId"]] = call
        self.duplicates += len(duplicates)
        self.uploads.append(Received(time.time(), "calls/upload", [call.get("externalId") for call in calls]))
        body: dict[str, Any] = {"success": not wrong, "processedCallsCount": fresh}
        if duplicates or self.switches.optional_keys:
            body["duplicateCalls"] = duplicates
        if wrong:
            return self.answer({**body, "errorMsg": "Calls are loaded with errors", "errors": wrong}, self.switches.partial_status)
        return self.answer(body)

    # -- helpers of the other methods -------------------------------------------------------------------------------------

    @property
    def _is_off(self) -> bool:
        return not self.switches.telephony_enabled or (self.switches.module_required and self.account.telephony is None)

    async def is_svg(self, url: str) -> bool:
        """Whether an image that a browser would draw as SVG is at this address."""
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), trust_env=False) as session, session.get(url) as answer:
                return answer.status == 200 and answer.content_type == "image/svg+xml" and "<svg" in await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return False


def event_errors(event: Any) -> dict[str, str]:
    """What is wrong with a call event, by field."""
    if not isinstance(event, dict):
        return {"event": "This value should be of type array."}
    errors = {name: "This field was not expected." for name in event if name not in EVENT_FIELDS}
    errors |= _text_errors(event, ("phone", "externalPhone", "callExternalId", "site"), required=("phone",))
    if event.get("type") not in EVENT_TYPES:
        errors["type"] = "The value you selected is not a valid choice."
    codes, users = event.get("codes"), event.get("userIds")
    if not codes and not users:
        errors["codes"] = "Either codes or userIds must be given."
    elif codes is not None and not (isinstance(codes, list) and all(isinstance(c, str) and c for c in codes)):
        errors["codes"] = "This value should be a list of strings."
    if event.get("type") == "hangup" and event.get("hangupStatus") not in HANGUP_STATUSES:
        errors["hangupStatus"] = "The value you selected is not a valid choice."
    return errors


def call_errors(call: Any) -> dict[str, str]:
    """What is wrong with a journal entry, by field."""
    if not isinstance(call, dict):
        return {"": "This value should be of type array."}
    errors = {name: "This field was not expected." for name in call if name not in CALL_FIELDS}
    errors |= _text_errors(call, ("phone", "externalId", "code", "externalPhone", "recordUrl", "site"), required=("phone", "externalId"))
    if not isinstance(call.get("date"), str) or not _DATE.fullmatch(call["date"]):
        errors["date"] = "This value is not a valid datetime."
    if call.get("type") not in ("in", "out"):
        errors["type"] = "The value you selected is not a valid choice."
    if call.get("result") not in RESULTS:
        errors["result"] = "The value you selected is not a valid choice."
    for name in ("duration", "durationWaiting"):
        if name in call and not (isinstance(call[name], int) and not isinstance(call[name], bool) and call[name] >= 0):
            errors[name] = "This value should be a non-negative integer."
    return errors


def _text_errors(item: dict[str, Any], names: tuple[str, ...], required: tuple[str, ...]) -> dict[str, str]:
    errors = {}
    for name in names:
        value = item.get(name)
        if name in required and not value:
            errors[name] = "This value should not be blank."
        elif value is not None and (not isinstance(value, str) or len(value) > 255):
            errors[name] = "This value should be a string of at most 255 characters."
    return errors
