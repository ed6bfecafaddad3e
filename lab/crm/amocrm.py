"""An amoCRM account in a box: enforces the documented contract, shows what it received.

What is documented is strict; what is doubtful has a switch (`Switches`). Facts and their sources: docs/adapters/amocrm.md.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from lab.crm.amocrm_calls import Calls
from lab.crm.amocrm_data import Errors, sample_account
from lab.crm.amocrm_entities import Entities
from lab.crm.amocrm_oauth import OAuth
from lab.crm.amocrm_page import AmoPage

PER_SECOND = 7
BAN_AFTER, BAN_S = 20, 60.0  # so many 429s within a minute, and the address is blocked for so long
MAX_BATCH = 250


@dataclass
class Switches:
    """Doubtful points both ways, and faults. `fail_next` answers the next requests in its own way; 'pass' lets one through."""

    not_found_details: bool = True  # status and detail in the item of a number that nobody knows
    mixed_status: int = 200
    nulls_in_calls: bool = True
    event_body: bool = False
    json_429: bool = False
    server_time: bool = True
    empty_status: int = 204
    next_on_last_page: bool = False
    rate_limited: bool = True
    customers: bool = True
    users_readable: bool = True
    renamed_to: str = ""  # the account has another address by now: this one knows it no more
    latency_s: float = 0.0
    max_batch: int = MAX_BATCH
    fail_next: deque[str] = field(default_factory=deque)


FAULTS = ("500", "502", "504", "html-200", "truncated", "reset", "silence", "redirect", "429", "402", "403", "blocked", "401")


@dataclass
class Received:
    """One accepted request."""

    at: float
    path: str
    data: Any


class AmoCrmSandbox:
    """One account on one port of loopback. `clock` may be replaced to let days pass, `limit_clock` to let no second of its limits pass."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.switches = Switches()
        self.account = sample_account(lambda: self.clock())
        self.oauth = OAuth(self)
        self.calls = Calls(self)
        self.entities = Entities(self)
        self.page = AmoPage(self)
        self.refusals: list[str] = []
        self.requests: list[str] = []
        self.passed: Counter[str] = Counter()  # requests that the gate let in
        self.too_soon_s: list[float] = []  # by how much each came too soon that it did not
        self._times: deque[float] = deque()
        self._over: deque[float] = deque()
        self._banned_until = 0.0
        self.limit_clock: Callable[[], float] = time.monotonic
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self, port: int = 0, ssl: Any = None) -> str:
        """Listens on loopback; gives the account's address."""
        application = web.Application(middlewares=[self._front], client_max_size=8 * 1024 * 1024)
        for part in (self.oauth, self.calls, self.entities, self.page):
            part.add_to(application)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=ssl)
        await site.start()
        self.url = f"http{'s' if ssl else ''}://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
        return self.url

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    # -- the gate ------------------------------------------------------------------------------------------------------------------

    @web.middleware
    async def _front(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        if request.path == "/" or (request.path.startswith(("/-/", "/oauth", "/favicon")) and not request.path.startswith("/oauth2")):
            return await handler(request)
        self.requests.append(f"{request.method} {request.path}")
        if self.switches.latency_s:
            await asyncio.sleep(self.switches.latency_s)
        fault = self.switches.fail_next.popleft() if self.switches.fail_next else ""
        if fault and fault != "pass" and not fault.startswith("done-then-"):
            return await self._fault(fault, request)
        if self.switches.renamed_to and request.path.startswith("/api/"):
            return web.Response(status=404, text="<html>", content_type="text/html")
        refused = self._gate(request)
        if refused is not None:
            return refused
        try:
            answer = await handler(request)
        except web.HTTPMethodNotAllowed:
            answer = self.refuse(405, "Method Not Allowed")
        except web.HTTPNotFound:
            answer = self.refuse(404, "Not Found")
        if fault == "done-then-silence":
            await asyncio.sleep(60)
        if fault == "done-then-500":
            return await self._fault("500", request)
        if fault == "done-then-reset" and request.transport is not None:
            request.transport.abort()
        return answer

    def _gate(self, request: web.Request) -> web.Response | None:
        now = self.limit_clock()
        if now < self._banned_until:
            return web.Response(status=403, text="<html><h1>403 Forbidden</h1></html>", content_type="text/html")
        while self._times and self._times[0] <= now - 1.0:
            self._times.popleft()
        if self.switches.rate_limited and len(self._times) >= PER_SECOND:
            self.too_soon_s.append(self._times[0] + 1.0 - now)
            return self._too_many(now)
        self._times.append(now)
        self.passed["api"] += 1
        if request.path.startswith("/oauth2"):
            return None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not self.oauth.is_valid(token):
            return self.refuse(401, "Unauthorized")
        return None

    def _too_many(self, now: float) -> web.Response:
        while self._over and self._over[0] <= now - 60:
            self._over.popleft()
        self._over.append(now)
        if len(self._over) >= BAN_AFTER:
            self._banned_until = now + BAN_S
        self.refusals.append("429")
        return self._response_429()

    def _response_429(self) -> web.Response:
        if self.switches.json_429:
            return self.problem(429, {"title": "Too Many Requests", "status": 429, "detail": "Too many requests"})
        return web.Response(status=429, text="Too many requests", content_type="text/html")

    async def _fault(self, fault: str, request: web.Request) -> web.StreamResponse:
        match fault:
            case "500":
                return self.problem(500, {"title": "Internal Server Error", "status": 500, "detail": "An unknown error occurred."})
            case "502" | "504":
                return web.Response(status=int(fault), text="<html><h1>Bad Gateway</h1></html>", content_type="text/html")
            case "html-200":
                return web.Response(text="<html>maintenance</html>", content_type="text/html")
            case "truncated":
                return web.Response(text='{"_embedded": {"ca', content_type="application/hal+json")
            case "redirect":
                return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})
            case "429":
                return self._response_429()
            case "401":
                return self.refuse(401, "Unauthorized")
            case "402":
                return self.problem(402, {"title": "Payment Required", "status": 402, "detail": "The account is not paid"})
            case "403":
                return self.problem(403, {"title": "Forbidden", "status": 403, "detail": "Not enough rights"})
            case "blocked":
                return web.Response(status=403, text="<html><h1>403 Forbidden</h1></html>", content_type="text/html")
            case "silence":
                await request.read()
                await asyncio.sleep(60)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    # -- answers -------------------------------------------------------------------------------------------------------------------

    def answer(self, body: Any, status: int = 200) -> web.Response:
        return web.Response(text=json.dumps(body, ensure_ascii=False), status=status, content_type="application/hal+json")

    def problem(self, status: int, body: dict[str, Any]) -> web.Response:
        # Without a charset, as clients in the field compare the type.
        return web.Response(body=json.dumps(body, ensure_ascii=False).encode(), status=status, headers={"Content-Type": "application/problem+json"})

    def refuse(self, status: int, detail: str) -> web.Response:
        self.refusals.append(f"{status} {detail}")
        return self.problem(status, {"title": detail, "type": f"https://httpstatus.es/{status}", "status": status, "detail": detail})

    def invalid(self, found: list[tuple[str, Errors]]) -> web.Response:
        """A validation problem: by request_id, what is wrong with which field."""
        self.refusals += [f"400 {path}: {code}" for _, errors in found for code, path, _ in errors]
        listed = [
            {"request_id": number, "errors": [{"code": code, "path": path, "detail": detail} for code, path, detail in errors]} for number, errors in found
        ]
        return self.problem(
            400,
            {
                "validation-errors": listed, "title": "Bad Request", "type": "https://httpstatus.es/400", "status": 400,
                "detail": "Request validation failed",
            },
        )  # fmt: skip

    async def items(self, request: web.Request) -> list[Any] | web.Response:
        """The array that every write method takes, even for one item."""
        try:
            body = await request.json()
        except ValueError:
            return self.refuse(400, "Invalid JSON")
        if request.content_type != "application/json" or not isinstance(body, list) or not body:
            return self.refuse(400, "Expected an array of items")
        if len(body) > self.switches.max_batch:
            return await self._too_heavy(request)
        return body

    async def _too_heavy(self, request: web.Request) -> web.Response:
        self.refusals.append("504 too many items")
        return web.Response(status=504, text="<html><h1>Gateway Time-out</h1></html>", content_type="text/html")

    def page_of(self, request: web.Request, name: str, items: list[dict[str, Any]]) -> web.Response:
        """A page of a list; an empty one is 204 without a body."""
        query = request.query
        limit, number = int(query.get("limit", "50")), int(query.get("page", "1"))
        if not 1 <= limit <= 250 or number < 1:
            return self.invalid([("0", [("InvalidValue", "limit", "This value should be between 1 and 250.")])])
        shown = items[(number - 1) * limit : number * limit]
        if not shown and self.switches.empty_status == 204:
            return web.Response(status=204)
        links: dict[str, Any] = {"self": {"href": str(request.url)}}
        if number * limit < len(items) or (self.switches.next_on_last_page and shown):
            links["next"] = {"href": str(request.url.update_query(page=number + 1))}
        return self.answer({"_page": number, "_links": links, "_embedded": {name: shown}})
