"""The one way to a CRM. Guarded by the connector that app.py hands in; bounded, redirect-free, and it writes down
every exchange with secrets masked.

Whether a failed request had left matters more than why it failed: `Unreachable` surely did not arrive, `Unanswered`
may have.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Protocol

import aiohttp

from daemon.model.delivery import Exchange

MAX_BODY_BYTES = 2 * 1024 * 1024
LOGGED_BODY_CHARS = 16_000
MASK = "***"


class Unreachable(Exception):
    """The request did not leave: no connection, no name, not allowed, no time."""


class Unanswered(Exception):
    """The request left and no usable answer came back."""


class Oversized(Unanswered):
    """The answer is longer than MAX_BODY_BYTES."""


class OverLimit(Exception):
    """Our own limiter for this account has no room before the deadline; nothing was sent. `after_s`: try then."""

    def __init__(self, after_s: float) -> None:
        super().__init__(f"the account's rate limit leaves no room for {after_s:.1f} s")
        self.after_s = after_s


class Observed(Exception):
    """Mode observe: the request was written down instead of sent."""


class Limiter(Protocol):
    """The rate limit of one CRM account, shared by everybody who speaks with it."""

    @property
    def turn(self) -> int:
        """Changes when places that were given for later are good no longer."""

    def reserve(self, bucket: str, now: float) -> float:
        """Takes a place and gives the seconds to wait for it; `now` is monotonic."""

    def give_back(self, bucket: str) -> None:
        """Returns the place taken last: it will not be used."""

    def pause(self, bucket: str, until: float) -> None:
        """No place of this bucket before `until` (monotonic)."""


class Sessions(Protocol):
    """The guarded aiohttp sessions."""

    def for_url(self, url: str) -> aiohttp.ClientSession:
        """The session for https, or the narrower one for plain http."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: its status, lower-case headers, and its body as text."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        """The body as JSON; ValueError when it is none."""
        return json.loads(self.text)

    @property
    def retry_after_s(self) -> float | None:
        """Retry-After in seconds, where the CRM gives one as a number."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.isascii() and value.isdigit() else None


@dataclass(slots=True)
class CrmHttp:
    """HTTP for one attempt: `deadline` (monotonic s) covers waiting for the limiter, connecting and reading."""

    sessions: Sessions
    limiter: Limiter
    deadline: float
    mask: Sequence[str] = ()
    observe: bool = False
    exchanges: list[Exchange] = field(default_factory=list)

    async def request(
        self,
        method: str,
        url: str,
        *,
        bucket: str,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        body: Any = None,
        private: bool = False,
    ) -> Response:
        """Sends once. Raises Unreachable, Unanswered (Oversized is one), OverLimit, or Observed in mode observe.

        private: neither what is sent nor the answer's body is written down, for credentials are in them.
        """
        written = {"method": method, "url": url, **({"query": dict(query)} if query and not private else {})}
        if form is not None and not private:
            written["form"] = _readable(form)
        if body is not None and not private:
            written["json"] = body
        if self.observe:
            self._write_down(written, {"observed": True}, 0.0)
            raise Observed
        await self._wait_for_room(bucket)
        started = time.monotonic()
        sent = SimpleNamespace(done=False)
        try:
            async with asyncio.timeout(max(0.05, self.deadline - started)):
                async with self.sessions.for_url(url).request(
                    method, url, headers=headers, params=query, data=form, json=body, allow_redirects=False, trace_request_ctx=sent
                ) as answer:
                    text = await _bounded(answer)
                    response = Response(answer.status, {key.lower(): value for key, value in answer.headers.items()}, text)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            what = "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
            what = self._masked(what)[:300]
            self._write_down(written, {"error": what, "request_left": sent.done}, started)
            raise (Oversized(what) if isinstance(error, _TooLong) else Unanswered(what) if sent.done else Unreachable(what)) from None
        self._write_down(written, {"status": response.status, "body": MASK if private else response.text}, started)
        return response

    def hold(self, bucket: str, for_s: float) -> None:
        """Nobody of this account sends anything of this bucket for so many seconds."""
        self.limiter.pause(bucket, time.monotonic() + for_s)

    def extended(self, more_s: float) -> CrmHttp:
        """The same line with a later deadline, for an exchange of credentials that must not be cut short; shares the exchanges."""
        return replace(self, deadline=self.deadline + more_s)

    async def _wait_for_room(self, bucket: str) -> None:
        while True:
            now, turn = time.monotonic(), self.limiter.turn
            wait_s = self.limiter.reserve(bucket, now)
            if now + wait_s >= self.deadline:
                self.limiter.give_back(bucket)
                raise OverLimit(wait_s)
            if wait_s <= 0:
                return
            await asyncio.sleep(wait_s)
            if self.limiter.turn == turn:
                return

    def _write_down(self, request: dict[str, Any], response: dict[str, Any], started: float) -> None:
        duration_ms = (time.monotonic() - started) * 1000 if started else 0.0
        self.exchanges.append(Exchange(self._clean(request), self._clean(response), round(duration_ms, 2)))

    def _clean(self, data: dict[str, Any]) -> dict[str, Any]:
        text = self._masked(json.dumps(data, ensure_ascii=False))
        if len(text) > LOGGED_BODY_CHARS:
            cut = {key: (str(value)[: LOGGED_BODY_CHARS // 2] + "…" if len(str(value)) > 200 else value) for key, value in data.items()}
            text = self._masked(json.dumps(cut, ensure_ascii=False))
        cleaned: dict[str, Any] = json.loads(text)
        return cleaned

    def _masked(self, text: str) -> str:
        for secret in self.mask:
            if len(secret) >= 4:
                text = text.replace(secret, MASK).replace(json.dumps(secret, ensure_ascii=False)[1:-1], MASK)
        return text


def _readable(form: Mapping[str, str]) -> dict[str, Any]:
    """Form fields for the log; RetailCRM's carry JSON inside."""
    readable: dict[str, Any] = {}
    for key, value in form.items():
        try:
            readable[key] = json.loads(value) if value[:1] in "[{" else value
        except ValueError:
            readable[key] = value
    return readable


class _TooLong(aiohttp.ClientPayloadError):
    pass


async def _bounded(answer: aiohttp.ClientResponse) -> str:
    data = bytearray()
    async for chunk in answer.content.iter_chunked(65_536):
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise _TooLong(f"the answer is longer than {MAX_BODY_BYTES} bytes")
    return data.decode("utf-8", "replace")


def trace_config() -> aiohttp.TraceConfig:
    """Notes on each request's context when its first bytes have left; for the sessions that app.py makes."""

    async def left(session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx.done = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(left)
    return trace
