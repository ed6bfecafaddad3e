"""The other side of a ticket desk in a box, in either role: takes exactly what the contract names, and keeps what it took.

Strict: a field more or less, another type, another sender than the role's, an unknown ticket, a repeated id are answered as a careful
implementation would. `Switches` are what the contract leaves open, and faults.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

TICKET_FIELDS = frozenset({"external_ticket_id", "subject", "message", "attachments", "external_url", "project"})
MESSAGE_FIELDS = frozenset({"external_ticket_id", "message", "attachments", "sender", "external_message_id"})
STATUS_FIELDS = frozenset({"external_ticket_id", "status"})
ATTACHMENT_FIELDS = frozenset({"name", "url", "mime", "size"})
STATUSES = ("open", "in_progress", "closed")
FAULTS = ("500", "503-later", "429", "html-200", "reset", "silence", "done-then-silence", "redirect")


class Refused(Exception):
    """The body is not what the contract says."""


@dataclass
class Switches:
    """`id_at`: where the answers hold the id; `takes_status`: whether a crm serves statuses, which the contract does not ask of it;
    `fail_next`: answers the next requests in its own way, 'pass' lets one through."""

    id_at: str = "id"
    takes_status: bool = True
    wrong_role: bool = False
    fail_next: deque[str] = field(default_factory=deque)


@dataclass
class Kept:
    """A ticket as this side has it."""

    number: int
    ticket: dict[str, Any]
    messages: list[dict[str, Any]] = field(default_factory=list)
    status: str = "open"


class TicketSandbox:
    """One side. `role` is the part it plays: a crm takes tickets and messages of tma, a tma takes messages of crm and statuses."""

    def __init__(self, role: str, token: str = "deploy-token-of-the-lab") -> None:
        self.role = role
        self.token = token
        self.switches = Switches()
        self.tickets: dict[str, Kept] = {}
        self.repeated = 0
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._numbers = 100

    async def start(self) -> str:
        """Listens on a free port; gives its address."""
        application = web.Application(client_max_size=4 * 1024 * 1024)
        application.router.add_post("/api/integration/{what}", self._take)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{port}"
        return self.url

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def messages(self) -> list[str]:
        """Every message's text, tickets' first ones included, ticket by ticket in the order in which it took them."""
        return [message["message"] for kept in self.tickets.values() for message in kept.messages]

    def knows(self, external_ticket_id: str, subject: str = "known before") -> None:
        """As tma: a ticket of its own that the other side has already."""
        self._numbers += 1
        self.tickets[external_ticket_id] = Kept(self._numbers, {"subject": subject})

    # -- what it says by itself ------------------------------------------------------------------------------------------------

    async def say(self, base_url: str, what: str, body: dict[str, Any], **headers: str) -> tuple[int, Any]:
        """POSTs to the other side; status and JSON of the answer."""
        url, headers = f"{base_url}/api/integration/{what}", {"Authorization": f"Bearer {self.token}", **headers}
        async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    # -- what it takes -------------------------------------------------------------------------------------------------------------

    async def _take(self, request: web.Request) -> web.StreamResponse:
        fault = self.switches.fail_next.popleft() if self.switches.fail_next else "pass"
        if fault not in ("pass", "done-then-silence"):
            return await self._fail(request, fault)
        answer = await self._answer(request)
        if fault == "done-then-silence":
            await asyncio.sleep(30)
        return answer

    async def _answer(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"detail": "Invalid token"}, status=401)
        what = request.match_info["what"]
        serves = {"crm": ("tickets", "messages", *(["status"] if self.switches.takes_status else [])), "tma": ("messages", "status")}[self.role]
        if self.switches.wrong_role:
            return web.json_response({"code": "wrong_role", "detail": "not in this role"}, status=404)
        if what not in serves:
            return web.json_response({"detail": "Not Found"}, status=404)
        try:
            body = await request.json()
            if not isinstance(body, dict):
                raise Refused("not an object")
            if body:
                self.requests.append((what, body, dict(request.headers)))
            return {"tickets": self._ticket, "messages": self._message, "status": self._status}[what](body)
        except (ValueError, Refused) as error:
            return web.json_response({"detail": f"validation: {error}"}, status=422)

    async def _fail(self, request: web.Request, fault: str) -> web.StreamResponse:
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        if fault == "silence":
            await asyncio.sleep(30)
        answers = {
            "500": web.Response(status=500, text="oops"), "503-later": web.Response(status=503, headers={"Retry-After": "1"}),
            "429": web.Response(status=429, headers={"Retry-After": "1"}), "html-200": web.Response(text="<html>hello</html>", content_type="text/html"),
            "redirect": web.Response(status=302, headers={"Location": "https://elsewhere.example/"}),
        }  # fmt: skip
        return answers.get(fault, web.Response(status=500))

    def _ticket(self, body: dict[str, Any]) -> web.Response:
        _exactly(body, TICKET_FIELDS)
        key = _uuid(body["external_ticket_id"])
        for name in ("subject", "message", "project"):
            _want(isinstance(body[name], str), name)
        _want(body["external_url"] is None or isinstance(body["external_url"], str), "external_url")
        _attachments(body["attachments"])
        if key in self.tickets:
            self.repeated += 1
            return self._said(self.tickets[key].number, {"status": self.tickets[key].status}, 200)
        self._numbers += 1
        self.tickets[key] = Kept(self._numbers, body, [{"message": body["message"], "sender": "tma", "external_message_id": None}])
        return self._said(self._numbers, {"status": "open"}, 201)

    def _message(self, body: dict[str, Any]) -> web.Response:
        _exactly(body, MESSAGE_FIELDS)
        key = _uuid(body["external_ticket_id"])
        _want(isinstance(body["message"], str), "message")
        _attachments(body["attachments"])
        _want(body["sender"] == {"crm": "tma", "tma": "crm"}[self.role], "sender")
        if self.role == "crm":
            _uuid(body["external_message_id"])
        else:
            _want(type(body["external_message_id"]) is int, "external_message_id")
        if key not in self.tickets:
            return web.json_response({"detail": "no such ticket"}, status=404)
        kept = self.tickets[key]
        if any(message["external_message_id"] == body["external_message_id"] for message in kept.messages):
            self.repeated += 1
            return self._said(kept.number, {}, 200)
        kept.messages.append(body)
        self._numbers += 1
        return self._said(self._numbers, {}, 201)

    def _status(self, body: dict[str, Any]) -> web.Response:
        _exactly(body, STATUS_FIELDS)
        key = _uuid(body["external_ticket_id"])
        _want(body["status"] in STATUSES, "status")
        if key not in self.tickets:
            return web.json_response({"detail": "no such ticket"}, status=404)
        self.tickets[key].status = body["status"]
        return self._said(self.tickets[key].number, {"status": body["status"]}, 200)

    def _said(self, number: int, more: dict[str, Any], status: int) -> web.Response:
        record = {"id": number, **more}
        return web.json_response(record if self.switches.id_at == "id" else {self.switches.id_at.partition(".")[0]: record}, status=status)


def _exactly(body: dict[str, Any], fields: frozenset[str]) -> None:
    if set(body) != fields:
        raise Refused(f"fields: {sorted(set(body) ^ fields)}")


def _want(ok: bool, name: str) -> None:
    if not ok:
        raise Refused(name)


def _uuid(value: Any) -> str:
    _want(isinstance(value, str) and str(uuid.UUID(value)) == value, "not a uuid in canonical form")
    return str(value)


def _attachments(value: Any) -> None:
    _want(isinstance(value, list), "attachments")
    for item in value:
        _want(isinstance(item, dict) and set(item) == ATTACHMENT_FIELDS, "attachment")
        _want(isinstance(item["size"], int) and all(isinstance(item[name], str) for name in ("name", "url", "mime")), "attachment")
