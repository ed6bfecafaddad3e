"""One route, described once: for the router, for OpenAPI and for the contract tests."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import web

from admin_http.auth import NOBODY, SAFE_METHODS, Principal, enterprise_of, principal
from admin_http.services import Services
from admin_http.visitors import way_of
from daemon.errors import VochidError
from daemon.model.person import Role
from daemon.store.audit import Actor

MAX_LIMIT = 500
DEFAULT_LIMIT = 100
MAX_DEPTH = 20
KEPT_PREFIXES = ("/api", "/retailcrm/api", "/retailcrm-admin/api")
WEBHOOKS = "/retailcrm/"  # these stand as written too: it is what RetailCRM is told at the registration


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, with who asks and about which enterprise."""

    request: web.Request
    services: Services
    who: Principal
    enterprise: str

    @property
    def actor(self) -> Actor:
        """Who asks, for the audit."""
        return self.who.actor(way_of(self.request, self.services.trusted_proxies))

    def part(self, name: str) -> str:
        """A variable of the path."""
        return self.request.match_info[name]

    def id(self, name: str = "id") -> int:
        """A variable of the path that is a number; anything else names nothing."""
        text = self.part(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1

    def query(self, name: str) -> str | None:
        """A query parameter; empty counts as absent."""
        text = self.request.query.get(name) or None
        if text is not None and "\0" in text:
            raise VochidError(f"{name} has a NUL in it", code="bad_parameter", field=name)
        return text

    def limit(self) -> int:
        """`limit`, 1 to 500."""
        text = self.query("limit") or str(DEFAULT_LIMIT)
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_LIMIT):
            raise VochidError(f"limit is a number from 1 to {MAX_LIMIT}", code="bad_parameter", field="limit")
        return int(text)

    def flag(self, name: str) -> bool | None:
        """A boolean query parameter."""
        text = self.query(name)
        if text is None:
            return None
        if text.lower() not in ("true", "false", "1", "0"):
            raise VochidError(f"{name} is true or false", code="bad_parameter", field=name)
        return text.lower() in ("true", "1")

    def time(self, name: str) -> datetime | None:
        """An ISO 8601 time with offset."""
        text = self.query(name)
        if text is None:
            return None
        try:
            at = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that was not encoded
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            raise VochidError(f"{name} is a time with offset, like 2026-11-21T08:00:00+03:00", code="bad_parameter", field=name)
        return at

    def number(self, name: str) -> int | None:
        """A non-negative whole number."""
        text = self.query(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise VochidError(f"{name} is a number that this list gave", code="bad_parameter", field=name)
        return int(text)

    def choice(self, name: str, options: tuple[str, ...]) -> str | None:
        """One of `options`."""
        text = self.query(name)
        if text is not None and text not in options:
            raise VochidError(f"{name} is one of {', '.join(options)}", code="bad_parameter", field=name)
        return text

    async def json(self) -> Any:
        """The body. Raises VochidError for anything that is no JSON."""
        return parse_json(await self.request.read())

    async def json_or_none(self) -> Any:
        """The body, or None when there is none."""
        return parse_json(data) if (data := await self.request.read()).strip() else None


def parse_json(data: bytes) -> Any:
    """Strict JSON: UTF-8, no NaN, no name twice in one object, not nested beyond reason."""
    try:
        value = json.loads(data, parse_constant=_no_constant, object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        raise VochidError(f"the body is not JSON: {str(error)[:150]}", code="bad_json") from None
    if _depth(value) > MAX_DEPTH:
        raise VochidError(f"the body is nested deeper than {MAX_DEPTH}", code="bad_json")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


Handler = Callable[[Ask], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """`query` names its parameters with a word on each. `body`: a JSON schema, or None.

    kept: a path of the predecessor's RetailCRM service; it stands under each of KEPT_PREFIXES, and the enterprise's secret opens it.
    open: a webhook, which finds out by itself who sends it; its handler is asked with nobody and no enterprise.
    needs: the role; unless it is said, a viewer reads and an admin changes.
    statuses, media, gives: what a success looks like, for the description: its statuses, its content type, the JSON schema of its body.
    """

    method: str
    path: str
    handler: Handler
    says: str
    query: tuple[tuple[str, str], ...] = ()
    body: dict[str, Any] | None = None
    without_enterprise: bool = False
    kept: bool = False
    open: bool = False
    needs: Role | None = None
    statuses: tuple[int, ...] = ()
    media: str = "application/json"
    gives: dict[str, Any] = field(default_factory=dict)

    @property
    def needed(self) -> Role:
        """The least role that may ask."""
        return self.needs or (Role.VIEWER if self.method in SAFE_METHODS else Role.ADMIN)

    @property
    def paths(self) -> list[str]:
        """Where it is found."""
        if not self.kept:
            return [self.path]
        as_written = [self.path] if self.path.startswith(WEBHOOKS) else []
        return [*(prefix + self.path for prefix in KEPT_PREFIXES), *as_written]


def bind(route: Route, services: Services) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The aiohttp handler: authenticates, finds the enterprise, and that it exists."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if route.open:
            return await route.handler(Ask(request, services, NOBODY, ""))
        who = await principal(request, services, secret_too=route.kept)
        number = "" if route.without_enterprise else enterprise_of(request, who)
        who.must(route.needed)
        return await route.handler(Ask(request, services, who, number))

    return handle


def answer(value: Any, status: int = 200, **headers: str) -> web.Response:
    """JSON out."""
    return web.Response(text=json.dumps(value, ensure_ascii=False), status=status, content_type="application/json", headers=headers)


def page(items: list[Any], following: Any) -> web.Response:
    """A list's answer."""
    return answer({"items": items, "next": None if following is None else str(following)})
