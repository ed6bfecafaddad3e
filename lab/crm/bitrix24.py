"""A Bitrix24 portal in a box: enforces the documented contract on a real socket, with its authorisation server beside it.

What is documented is strict; what is doubtful has a switch (`Switches`), so that both readings can be tested. Facts and their sources:
docs/adapters/bitrix24.md.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import ssl
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

import aiohttp
from aiohttp import web

from lab.crm.bitrix24_crm import Office
from lab.crm.bitrix24_data import PAGE, Params, PortalCall, PortalData, PortalUser, RestError, Switches, Tokens, nested
from lab.crm.bitrix24_entities import CRM_EVENTS, EventQueue
from lab.crm.bitrix24_telephony import Telephony

MAX_BATCH = 50
# What a webhook may not do at all, and what it may not do where the portal is as strict as its documentation.
_APPLICATION_ONLY = ("event.bind", "event.unbind", "event.get", "telephony.externalline.", "app.info")
_DOCUMENTED_APPLICATION_ONLY = (
    "telephony.externalcall.register",
    "telephony.externalcall.finish",
    "telephony.externalcall.show",
    "telephony.externalcall.hide",
)
_SCOPES = {"telephony.": "telephony", "voximplant.": "telephony", "crm.": "crm", "user.": "user", "tasks.": "task"}
_REF = re.compile(r"\$result((?:\[[^\]]*\])+)")
OPERATING_BUCKET_S, OPERATING_BUCKETS = 60.0, 10


@dataclass
class Page:
    """A list method's result."""

    rows: list[Any]
    next: int | None
    total: int | None


@dataclass
class Received:
    """One HTTP request that got past the gate."""

    at: float
    method: str
    params: Any


SAMPLE_USERS = (
    PortalUser("1", "Olga Admin"), PortalUser("12", "Anna Sidorova", "150"), PortalUser("13", "Boris Petrov", "151"),
    PortalUser("14", "Vera Kim", "152"), PortalUser("15", "Gleb Orlov", "153"), PortalUser("16", "Dina Left", None, is_active=False),
)  # fmt: skip


class Bitrix24Sandbox:
    """One portal on one port of loopback. `requests`: HTTP requests, `calls_made`: methods, those inside batches too."""

    def __init__(self, users: tuple[PortalUser, ...] = SAMPLE_USERS) -> None:
        self.data = PortalData(tuple(PortalUser(u.id, u.name, u.phone, u.is_active, u.workday) for u in users))
        self.switches = Switches()
        self.webhook_user, self.webhook_code = "1", secrets.token_hex(8)
        self.client_id, self.client_secret = "local.0123456789abcdef.12345678", secrets.token_hex(25)
        self.application_token, self.member_id = secrets.token_hex(16), secrets.token_hex(16)
        self.app_handler = ""  # where the consent page sends the browser back to
        self.scopes = {"telephony", "crm", "user", "task"}
        self.requests: list[Received] = []
        self.calls_made: list[str] = []
        self.refusals: list[str] = []
        self.over_budget = 0  # requests that found the bucket full
        self.token_requests = 0
        self.operating: dict[str, dict[int, float]] = defaultdict(dict)
        self.cost_s: dict[str, float] = {}
        self._level, self._level_at = 0.0, time.monotonic()
        self._runner: web.AppRunner | None = None
        self.url = ""
        self.events = EventQueue(self)
        self._telephony = Telephony(self)
        self.methods = {**self._telephony.methods, **Office(self).methods}

    @property
    def webhook_url(self) -> str:
        return f"{self.url}/rest/{self.webhook_user}/{self.webhook_code}/"

    @property
    def secret(self) -> str:
        return self.webhook_code

    async def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> str:
        """Listens on loopback; gives the portal's address."""
        application = web.Application(middlewares=[self._front], client_max_size=16 * 1024 * 1024)
        application.router.add_route("*", "/rest/upload.json", self._upload)
        application.router.add_route("*", "/rest/{path:.+}", self._rest)
        application.router.add_get("/oauth/authorize/", self._authorize)
        application.router.add_route("*", "/oauth/token/", self._token)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=tls)
        await site.start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
        return self.url

    async def stop(self) -> None:
        await self.events.stop()
        if self._runner is None:
            return
        server = self._runner.server
        for connection in list(server.connections) if server is not None else ():
            if connection.transport is not None:
                connection.transport.abort()  # a client that keeps its TLS connection never says goodbye
        await self._runner.cleanup()
        await asyncio.sleep(0)

    # -- what a test does to it ----------------------------------------------------------------------------------------------------

    def settings(self, **more: Any) -> dict[str, Any]:
        """An integration's settings for this portal, by its webhook."""
        held = {user.id: user.phone for user in self.data.users.values() if user.phone}
        return {"webhook_url": self.webhook_url, "application_token": self.application_token, "user_extensions": held, **more}

    def application(self, **more: Any) -> dict[str, Any]:
        """Settings for the portal's local application."""
        held = {user.id: user.phone for user in self.data.users.values() if user.phone}
        return {"domain": self.url, "client_id": self.client_id, "client_secret": self.client_secret, "oauth_server": self.url, "user_extensions": held, **more}

    def grant(self) -> Tokens:
        """New tokens; the former refresh token is used up."""
        for each in self.data.grants:
            each.is_current = False
        tokens = Tokens(secrets.token_hex(16), secrets.token_hex(16), time.monotonic() + self.switches.token_lives_s)
        self.data.grants.append(tokens)
        return tokens

    def expire(self) -> None:
        """An hour passes for every access token there is."""
        for each in self.data.grants:
            each.expires_at = 0.0

    def tell(self, event: str, entity_id: int) -> None:
        """Puts an event about an entity into the portal's queue, where somebody wants to hear it."""
        if any(what == event for what, _ in self.data.handlers):
            self.events.put(event, entity_id)

    def listen(self, handler: str) -> None:
        """An outbound webhook for everything that happens to contacts, companies and deals."""
        self.data.handlers += [(event, handler) for event in CRM_EVENTS]

    def finished(self) -> list[PortalCall]:
        return self.data.finished()

    async def click(self, handler: str, user: str, phone: str, *, line: str = "", copies: int | None = None) -> tuple[str, list[int]]:
        """A user clicks on a number: the portal registers the call and sends the event; gives its CALL_ID and the answers' statuses."""
        call = PortalCall(self.data.new_call_id(), user, phone, 1, line, "", time.monotonic(), "", by_portal=True)
        self.data.calls[call.id] = call
        call.show([user])
        data = {
            "PHONE_NUMBER": phone, "PHONE_NUMBER_INTERNATIONAL": phone, "EXTENSION": "", "USER_ID": user, "CALL_LIST_ID": "0", "LINE_NUMBER": line,
            "CALL_ID": call.id, "CRM_ENTITY_TYPE": "LEAD", "CRM_ENTITY_ID": "0", **({"IS_MOBILE": "0"} if self.switches.event_keys else {}),
        }  # fmt: skip
        return call.id, await self.send("ONEXTERNALCALLSTART", data, handler, copies=copies)

    async def call_back(self, handler: str, phone: str, line: str) -> list[int]:
        """A visitor leaves a number in the call-back form."""
        data = {"PHONE_NUMBER": phone, "TEXT": "", "VOICE": "", "CRM_ENTITY_TYPE": "LEAD", "CRM_ENTITY_ID": "0", "LINE_NUMBER": line}
        return await self.send("ONEXTERNALCALLBACKSTART", data, handler)

    async def send(self, event: str, data: Mapping[str, str], handler: str, *, copies: int | None = None) -> list[int]:
        """Sends an event, once, whatever is answered; copies of one have their parameters in another order."""
        pairs = [("event", event), *((f"data[{name}]", value) for name, value in data.items()), ("ts", str(int(time.time())))]
        auth = {"domain": self.url.partition("//")[2], "client_endpoint": f"{self.url}/rest/", "server_endpoint": f"{self.url}/rest/",
                "member_id": self.member_id, "application_token": self.application_token}  # fmt: skip
        if self.switches.event_tokens:
            auth |= {"access_token": self.grant().access, "expires_in": "3600", "scope": "telephony", "status": "L"}
        pairs += [(f"auth[{name}]", value) for name, value in auth.items()]
        pairs += [("event_handler_id", "1055")] if self.switches.event_keys else []
        statuses = []
        async with aiohttp.ClientSession(trust_env=False) as session:
            for copy in range(copies or self.switches.event_copies):
                async with session.post(handler, data=pairs if copy % 2 == 0 else pairs[::-1]) as answer:
                    statuses.append(answer.status)
        return statuses

    # -- the gate --------------------------------------------------------------------------------------------------------------------

    @web.middleware
    async def _front(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        if self.switches.latency_s:
            await asyncio.sleep(self.switches.latency_s)
        if request.path.startswith("/oauth/"):
            return await handler(request)
        fault = self.switches.fail_next.popleft() if self.switches.fail_next else ""
        if fault and fault not in ("pass", "batch-lost") and not fault.startswith("done-then-"):
            return await self._fault(fault, request)
        if fault == "batch-lost" and "batch" not in request.path:
            self.switches.fail_next.appendleft(fault)
        answer = await handler(request)
        if fault == "done-then-silence" or (fault == "batch-lost" and "batch" in request.path):
            await asyncio.sleep(60)
        return answer

    async def _fault(self, fault: str, request: web.Request) -> web.StreamResponse:
        match fault:
            case "500" | "502" | "503":
                return web.Response(status=int(fault), text="<html><h1>Server error</h1></html>", content_type="text/html")
            case "500-json":
                return self._refusal(RestError(500, "INTERNAL_SERVER_ERROR", "Internal server error"))
            case "html-200":
                return web.Response(text="<html>maintenance</html>", content_type="text/html")
            case "truncated":
                return web.Response(text='{"result": tr', content_type="application/json")
            case "array":
                return web.Response(text="[]", content_type="application/json")
            case "redirect":
                return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})
            case "503-limit":
                return self._refusal(RestError(503, "QUERY_LIMIT_EXCEEDED", "Too many requests"))
            case "expired":
                return self._refusal(RestError(401, "expired_token", "The access token provided has expired"))
            case "error-in-200":
                return self._answer({"error": "ERROR_CORE", "error_description": "it went wrong inside"})
            case "silence":
                await request.read()
                await asyncio.sleep(60)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _drain(self) -> None:
        now = time.monotonic()
        self._level = max(0.0, self._level - (now - self._level_at) * self.switches.bucket_per_s)
        self._level_at = now

    def fill_bucket(self) -> None:
        """Somebody else at the same address has used up the portal's requests."""
        self._drain()
        self._level = float(self.switches.bucket_size)

    def _gate(self) -> None:
        switches = self.switches
        if switches.require_https and not self.url.startswith("https"):
            raise RestError(400, "INVALID_REQUEST", "Https required")
        if switches.is_deleted:
            raise RestError(500, "PORTAL_DELETED", "Portal was deleted")
        if switches.is_overloaded:
            raise RestError(503, "OVERLOAD_LIMIT", "REST API is blocked due to overload")
        if switches.is_free_plan:
            raise RestError(403, "ACCESS_DENIED", "REST API is available only on commercial plans")
        self._drain()
        if switches.limited and self._level + 1 > switches.bucket_size:
            self.over_budget += 1
            raise RestError(503, "QUERY_LIMIT_EXCEEDED", "Too many requests")
        self._level += 1

    def _authenticate(self, user: str | None, code: str | None, params: dict[str, Any]) -> bool:
        """Whether it is the application that speaks."""
        if code is not None:
            if code != self.webhook_code or user != self.webhook_user:
                raise RestError(401, "NO_AUTH_FOUND", "Wrong authorization data")
            return False
        token = str(params.pop("auth", "") or params.pop("AUTH", ""))
        if not token:
            raise RestError(401, "NO_AUTH_FOUND", "Wrong authorization data")
        found = next((each for each in self.data.grants if each.access == token), None)
        if found is None:
            raise RestError(401, "invalid_token", "Unable to get application by token")
        if time.monotonic() >= found.expires_at:
            raise RestError(401, "expired_token", "The access token provided has expired.")
        return True

    # -- methods ---------------------------------------------------------------------------------------------------------------------

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        started = time.time()
        parts = request.match_info["path"].strip("/").split("/")
        user, code = (parts[0], parts[1]) if len(parts) == 3 else (None, None)
        method = parts[-1].removesuffix(".json").lower()
        try:
            if len(parts) not in (1, 3):
                raise RestError(404, "ERROR_METHOD_NOT_FOUND", "Method not found!")
            self._gate()
            params = await _parameters(request)
            is_application = self._authenticate(user, code, params)
            self.requests.append(Received(started, method, params))
            if method == "batch":
                return self._answer(await self._batch(params, is_application), started)
            return self._answer(await self._one(method, params, is_application), started, method)
        except RestError as error:
            return self._refusal(error, started, method)

    async def _one(self, method: str, params: dict[str, Any], is_application: bool) -> dict[str, Any]:
        self.calls_made.append(method)
        handler = self.methods.get(method)
        if handler is None:
            raise RestError(404, "ERROR_METHOD_NOT_FOUND", "Method not found!")
        strict = _APPLICATION_ONLY if self.switches.webhook_may_register else _APPLICATION_ONLY + _DOCUMENTED_APPLICATION_ONLY
        if not is_application and method.startswith(strict):
            raise RestError(403, "WRONG_AUTH_TYPE", "Current authorization type is denied for this method Application context required")
        needed = next((scope for prefix, scope in _SCOPES.items() if method.startswith(prefix)), None)
        if needed and needed not in self.scopes:
            raise RestError(self.switches.scope_status, "insufficient_scope", "The request requires higher privileges than provided by the webhook token")
        if self._operating(method) > self.switches.operation_limit_s:
            raise RestError(429, "OPERATION_TIME_LIMIT", "Method is blocked due to operation time limit")
        self._spend(method, self.cost_s.get(method, 0.01))
        result = await handler(Params(params))
        if isinstance(result, Page):
            beside = {"next": result.next, "total": result.total}
            return {"result": result.rows, **{name: value for name, value in beside.items() if value is not None}}
        return {"result": result}

    async def _batch(self, params: dict[str, Any], is_application: bool) -> dict[str, Any]:
        cmd = Params(params).get("cmd", {})
        commands = dict(enumerate(cmd)) if isinstance(cmd, list) else cmd
        if not isinstance(commands, dict):
            raise RestError(400, "INVALID_ARG_VALUE", "cmd must be array")
        halt = Params(params).flag("halt", False)
        results: dict[str, Any] = {}
        errors: dict[str, Any] = {}
        totals: dict[str, Any] = {}
        nexts: dict[str, Any] = {}
        times: dict[str, Any] = {}
        for index, (key, text) in enumerate(commands.items()):
            method, _, query = str(text).partition("?")
            method = method.strip("/").removesuffix(".json").lower()
            try:
                if index >= MAX_BATCH:
                    raise RestError(400, "ERROR_BATCH_LENGTH_EXCEEDED", "Max batch length exceeded")
                if method == "batch":
                    raise RestError(405, "ERROR_BATCH_METHOD_NOT_ALLOWED", "Method is not allowed for batch usage")
                given = [(name, _resolved(value, results)) for name, value in parse_qsl(query, keep_blank_values=True)]
                done = await self._one(method, nested(given), is_application)
            except RestError as error:
                self.refusals.append(str(error))
                errors[str(key)] = {"error": error.code, "error_description": error.description}
                times[str(key)] = self._time(time.time(), method)
                if halt:
                    break
                continue
            results[str(key)] = done["result"]
            totals |= {str(key): done["total"]} if "total" in done else {}
            nexts |= {str(key): done["next"]} if "next" in done else {}
            times[str(key)] = self._time(time.time(), method)
        maps = {"result": results, "result_error": errors, "result_total": totals, "result_next": nexts, "result_time": times}
        return {"result": {name: value or self.switches.empty_map for name, value in maps.items()}}

    def page(self, rows: list[Any], params: Params) -> Page:
        start = int(params.text("start") or 0)
        if start < 0:
            return Page(rows[:PAGE], None, None)
        following = start + PAGE
        return Page(rows[start:following], following if following < len(rows) else None, len(rows))

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file = form.get("file")
        if not isinstance(file, web.FileField):
            return self._refusal(RestError(400, "ERROR_CORE", "File content is empty."))
        try:
            return self._answer({"result": self._telephony.uploaded(request.query.get("token", ""), file.filename)})
        except RestError as error:
            return self._refusal(error)

    # -- run time ----------------------------------------------------------------------------------------------------------------------

    def _operating(self, method: str) -> float:
        now = int(time.monotonic() // OPERATING_BUCKET_S)
        return sum(spent for minute, spent in self.operating[method].items() if now - minute < OPERATING_BUCKETS)

    def _spend(self, method: str, seconds: float) -> None:
        minute = int(time.monotonic() // OPERATING_BUCKET_S)
        self.operating[method][minute] = self.operating[method].get(minute, 0.0) + seconds

    def _time(self, started: float, method: str = "") -> dict[str, Any]:
        finish = time.time()
        return {
            "start": started, "finish": finish, "duration": finish - started, "processing": finish - started,
            "date_start": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
            "date_finish": datetime.fromtimestamp(finish, UTC).isoformat(timespec="seconds"),
            "operating_reset_at": int(finish + self.switches.operating_resets_s), "operating": self._operating(method),
        }  # fmt: skip

    def _answer(self, body: dict[str, Any], started: float | None = None, method: str = "") -> web.Response:
        return web.Response(text=json.dumps({**body, "time": self._time(started or time.time(), method)}), content_type="application/json")

    def _refusal(self, error: RestError, started: float | None = None, method: str = "") -> web.Response:
        self.refusals.append(str(error))
        body: dict[str, Any] = {"error": error.code, "error_description": error.description}
        if error.code == "OPERATION_TIME_LIMIT":
            body["time"] = self._time(started or time.time(), method)
        return web.Response(text=json.dumps(body), status=error.status, content_type="application/json")

    # -- OAuth 2.0 ---------------------------------------------------------------------------------------------------------------------

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        """The consent page of a person who agrees at once."""
        if request.query.get("client_id") != self.client_id:
            return web.Response(status=400, text="unknown application")
        code = secrets.token_hex(16)
        self.data.codes[code] = time.monotonic() + self.switches.code_lives_s
        query = {
            "code": code, "state": request.query.get("state", ""), "domain": self.url.partition("//")[2], "member_id": self.member_id,
            "scope": ",".join(sorted(self.scopes)), "server_domain": self.url.partition("//")[2],
        }  # fmt: skip
        return web.Response(status=302, headers={"Location": f"{self.app_handler}?{urlencode(query)}"})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        self.token_requests += 1
        given = dict(request.query)
        if request.method == "POST":
            with suppress(ValueError):
                given |= {key: str(value) for key, value in (await request.post()).items()}
        if self.switches.oauth_error_in_200:
            return web.json_response({"error": "wrong_client"})
        if given.get("client_id") != self.client_id or given.get("client_secret") != self.client_secret:
            return web.json_response({"error": "invalid_client", "error_description": "Client not found"}, status=400)
        if given.get("grant_type") == "authorization_code":
            if time.monotonic() >= self.data.codes.pop(given.get("code", ""), 0.0):
                return web.json_response({"error": "invalid_grant", "error_description": "Invalid code"}, status=400)
            return web.json_response(self._tokens_json(self.grant()))
        if given.get("grant_type") == "refresh_token":
            if "refresh_token" not in given:
                return web.json_response({"error": "invalid_request"}, status=400)
            known = next((each for each in self.data.grants if each.refresh == given["refresh_token"] and each.is_current), None)
            if known is None:
                return web.json_response({"error": "invalid_grant", "error_description": "Invalid refresh token"}, status=400)
            return web.json_response({**self._tokens_json(self.grant()), "expires": int(time.time()) + 3600, "user_id": int(self.webhook_user)})
        return web.json_response({"error": "invalid_request"}, status=400)

    def _tokens_json(self, tokens: Tokens) -> dict[str, Any]:
        return {
            "access_token": tokens.access, "refresh_token": tokens.refresh, "client_endpoint": f"{self.url}/rest/", "domain": "oauth.example",
            "expires_in": 3600, "member_id": self.member_id, "scope": ",".join(sorted(self.scopes)), "server_endpoint": f"{self.url}/rest/", "status": "L",
        }  # fmt: skip


async def _parameters(request: web.Request) -> dict[str, Any]:
    """Query and body, which is JSON, a form or multipart."""
    params: dict[str, Any] = nested(list(request.query.items()))
    if request.method == "POST":
        if request.content_type == "application/json":
            text = (await request.text()).strip()
            try:
                body = json.loads(text) if text else {}
            except ValueError:
                raise RestError(400, "INVALID_REQUEST", "the body is no JSON") from None
            params |= body if isinstance(body, dict) else {}
        else:
            params |= nested([(key, value) for key, value in (await request.post()).items() if isinstance(value, str)])
    return params


def _resolved(value: str, results: Mapping[str, Any]) -> str:
    """`$result[key][FIELD]` is what an earlier command gave; what is not there becomes empty."""

    def found(match: re.Match[str]) -> str:
        place: Any = results
        for part in re.findall(r"\[([^\]]*)\]", match[1]):
            if isinstance(place, list):
                place = place[int(part)] if part.isdecimal() and int(part) < len(place) else None
            else:
                place = place.get(part) if isinstance(place, Mapping) else None
        return "" if place is None or isinstance(place, (list, dict)) else str(place)

    return _REF.sub(found, value)
