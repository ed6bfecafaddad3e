"""One PBX's connection: drives a Session over a socket, and comes back when it is lost. Thin shell.

The reader never waits: bytes are parsed and handed to the handler inside `data_received`. Asterisk drops a client
that does not read for 100 ms (manager.conf `writetimeout`), so nothing here may block.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, assert_never, cast, runtime_checkable

import structlog

from daemon.ami.actions import Action, Logoff
from daemon.ami.pace import SHARE, Pace
from daemon.ami.reconnect import STABLE_AFTER_S, lost_delay_s, refused_delay_s
from daemon.ami.session import (
    ACTION_DEADLINE_S,
    ActionFailed,
    Answer,
    Answered,
    Broken,
    LoggedIn,
    Output,
    Refused,
    RefusedFor,
    Session,
    State,
    Unseen,
    Write,
)
from daemon.ami.wire import Frame, Skipped

CONNECT_DEADLINE_S = 8.0
MIN_TICK_S = 0.01
TURN_BYTES = 4 * 1024  # read from one PBX between two turns of the event loop: one that floods must not hold up what others wait for
USER_TIMEOUT_MS = 20_000

log = structlog.get_logger()


class LinkState(StrEnum):
    """What an operator sees of a link."""

    CONNECTING = "connecting"
    READY = "ready"
    WAITING = "waiting"
    REFUSED = "refused"
    IN_USE = "in_use"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class LinkTarget:
    """Where a PBX is and how to log in. `tls_fingerprint`: SHA-256 of its certificate, pinned instead of a CA check."""

    host: str
    port: int
    username: str
    secret: str
    tls: bool = False
    tls_fingerprint: str | None = None

    def __repr__(self) -> str:
        return f"LinkTarget({self.username}@{self.host}:{self.port}, tls={self.tls})"


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """State of a link with its reason, since when (Unix time, s), and the failures in a row. `node`: the daemon that has it, where several are asked."""

    state: LinkState = LinkState.STOPPED
    reason: str = ""
    since: float = 0.0
    failures: int = 0
    version: str = ""
    node: str = ""


class LinkHandler(Protocol):
    """Who listens to a link. Called synchronously; an exception is logged and never closes the link."""

    def on_ready(self, link: Link) -> None:
        """Logged in over `link`; events flow from here on."""

    def on_event(self, frame: Frame, at: float) -> None:
        """One event, received at Unix time `at` in seconds."""

    def on_unseen(self, skipped: Skipped) -> None:
        """A frame could not be read: the model has missed something."""

    def on_down(self, reason: str) -> None:
        """The connection is gone."""


@runtime_checkable
class HearsBytes(Protocol):
    """A listener that wants the raw stream after login too, for a tape."""

    def on_bytes(self, data: bytes, at: float) -> None:
        """What one read of the socket gave, at Unix time `at` in seconds."""


class LinkDown(Exception):
    """The PBX is not connected, or the connection went before the answer: the outcome is unknown."""


class NotConnected(LinkDown):
    """There was no connection to begin with: surely nothing was sent."""


class ActionTimeout(LinkDown):
    """No answer in time: the outcome is unknown."""


class _Protocol(asyncio.Protocol):
    """Feeds one connection's bytes to its session and obeys the outputs."""

    def __init__(self, session: Session, handler: LinkHandler, on_state: Callable[[Output], None], pinned: str | None, share: Callable[[], float]) -> None:
        self._pinned = pinned
        self._share = share
        self._session = session
        self._handler = handler
        self._on_bytes = handler.on_bytes if isinstance(handler, HearsBytes) else None
        self._on_state = on_state
        self._transport: asyncio.Transport | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._ticks_at = math.inf  # by the monotonic clock
        self.waiters: dict[str, asyncio.Future[Answer]] = {}
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.verdict: Output | None = None
        self._pace = Pace(time.monotonic())
        self._rest = b""  # read from the socket and not heard yet
        self._next_turn: asyncio.Handle | None = None  # while there is one, reading is paused

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is none by inheritance
        if self._pinned and (problem := _pin_problem(transport, self._pinned)):  # before a byte is read or written
            self._session.lost()
            self.verdict = Broken(problem)
            self.abort()
        self.look_at_clock()

    def data_received(self, data: bytes) -> None:
        if self._next_turn is None:
            self._take(data)
        else:  # it was on its way when reading was paused
            self._rest += data

    def _take(self, data: bytes) -> None:
        """Hears a piece. What is left, here and in the socket, has its turn with the loop's next round; when the PBX floods, only after a rest."""
        began = time.monotonic()
        self._hear(data[:TURN_BYTES])
        now = time.monotonic()
        rest_s = self._pace.rest_s(now - began, now, self._share())
        self._rest = data[TURN_BYTES:]
        if (not self._rest and not rest_s) or self._transport is None or self._transport.is_closing():
            return
        self._transport.pause_reading()
        loop = asyncio.get_running_loop()
        self._next_turn = loop.call_later(rest_s, self._go_on) if rest_s else loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """The next turn."""
        self._next_turn = None
        if self._transport is None or self._transport.is_closing():
            return
        data, self._rest = self._rest, b""
        if data:
            self._take(data)
        if self._next_turn is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _hear(self, data: bytes) -> None:
        at = time.time()
        if self._on_bytes is not None and self._session.state is State.READY:
            tapped = self._on_bytes
            self._guarded(lambda: tapped(data, at))
        self._obey(self._session.receive(data, time.monotonic()), at)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._clock is not None:
            self._clock.cancel()
        if self._next_turn is not None:
            self._next_turn.cancel()
        rest, self._rest = self._rest, b""
        if rest and self.verdict is None:  # it had arrived
            self._hear(rest)
        self._obey(self._session.lost(), time.time())
        reason = self.verdict.what if isinstance(self.verdict, Broken) else str(exc or "closed by the PBX")
        if not self.closed.done():
            self.closed.set_result(reason)

    def _tick(self) -> None:
        self._ticks_at = math.inf
        self._obey(self._session.tick(time.monotonic()), time.time())
        if self._session.state is not State.CLOSED:
            self.look_at_clock()

    def look_at_clock(self) -> None:
        """A timer for what is due next, and no task that wakes: of a thousand still links a hundred tick in a second."""
        now = time.monotonic()
        wait_s = max(MIN_TICK_S, self._session.due_in(now))
        if now + wait_s < self._ticks_at:
            if self._clock is not None:
                self._clock.cancel()
            self._ticks_at = now + wait_s
            self._clock = asyncio.get_running_loop().call_later(wait_s, self._tick)

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _obey(self, outputs: list[Output], at: float) -> None:
        for output in outputs:
            match output:
                case Frame():
                    self._deliver(output, at)
                case Write(data):
                    self.write(data)
                case Answered(action_id, answer):
                    waiter = self.waiters.pop(action_id, None)
                    if waiter is not None and not waiter.done():
                        waiter.set_result(answer)
                case ActionFailed(action_id, reason):
                    waiter = self.waiters.pop(action_id, None)
                    if waiter is not None and not waiter.done():
                        waiter.set_exception(ActionTimeout(reason) if reason == "timeout" else LinkDown(reason))
                case Unseen(skipped):
                    self._guarded(lambda skipped=skipped: self._handler.on_unseen(skipped))  # type: ignore[misc]
                case LoggedIn():
                    self._on_state(output)
                    self.look_at_clock()
                case Refused() | Broken():
                    self.verdict = output
                    self.abort()
                case _:
                    assert_never(output)

    def _deliver(self, frame: Frame, at: float) -> None:
        try:
            self._handler.on_event(frame, at)
        except Exception:
            log.error("event handler failed, link kept", event_name=frame.event, exc_info=True)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            log.error("link handler failed, link kept", exc_info=True)


class Link:
    """Keeps one PBX connected for as long as `run` runs. `gate` limits how many links connect at once, `share` says how much of the loop's
    time it may have when its PBX floods."""

    def __init__(self, name: str, target: LinkTarget, handler: LinkHandler, gate: asyncio.Semaphore, share: Callable[[], float] = lambda: SHARE) -> None:
        self.name = name
        self.target = target
        self.status = LinkStatus()
        self._handler = handler
        self._gate = gate
        self._share = share
        self._protocol: _Protocol | None = None
        self._session: Session | None = None
        self._ready_at: float | None = None

    @property
    def is_ready(self) -> bool:
        return self.status.state is LinkState.READY

    async def request(self, action: Action, deadline_s: float = ACTION_DEADLINE_S) -> Answer:
        """Sends an action once and waits for its answer.

        Raises NotConnected when there is no connection, LinkDown when it is lost first, ActionTimeout after `deadline_s`; the action
        is never sent again.
        """
        session, protocol = self._session, self._protocol
        if session is None or protocol is None or session.state is not State.READY:
            raise NotConnected(f"{self.name} is not connected")
        action_id, write = session.send(action, time.monotonic(), deadline_s)
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        protocol.waiters[action_id] = waiter
        protocol.write(write.data)
        protocol.look_at_clock()
        return await waiter

    async def run(self) -> None:
        """Connects, serves, and comes back with full-jitter delays; refused logins have a slow lane of their own."""
        failures = refusals = 0
        while True:
            try:
                self._set(LinkState.CONNECTING, failures=failures)
                reason, verdict = await self._once()
            except (OSError, ssl.SSLError, TimeoutError) as error:
                reason, verdict = _describe(error), None
            was_ready_s = time.monotonic() - self._ready_at if self._ready_at is not None else 0.0
            if self._ready_at is not None:
                self._ready_at = None
                refusals = 0
                self._notify_down(reason)
            failures = 0 if was_ready_s >= STABLE_AFTER_S else failures + 1
            if isinstance(verdict, Refused):
                refusals += 1
                state = LinkState.REFUSED if verdict.reason is RefusedFor.CREDENTIALS else LinkState.IN_USE
                delay_s = refused_delay_s(verdict.reason, refusals, random.random())
                reason = verdict.message
            else:
                state, delay_s = LinkState.WAITING, lost_delay_s(max(failures - 1, 0), random.random())
            self._set(state, reason=reason, failures=failures)
            level = log.warning if failures <= 1 or isinstance(verdict, Refused) else log.debug
            level("pbx link down", pbx=self.name, state=str(state), reason=reason, retry_in_s=round(delay_s, 1))
            await asyncio.sleep(delay_s)

    async def _once(self) -> tuple[str, Output | None]:
        async with self._gate:
            protocol = await asyncio.wait_for(self._connect(), CONNECT_DEADLINE_S)
        self._protocol = protocol
        try:
            return await asyncio.shield(protocol.closed), protocol.verdict
        except asyncio.CancelledError:
            if self._session is not None and self._session.state is State.READY:
                protocol.write(self._session.send(Logoff(), time.monotonic())[1].data)
            raise
        finally:
            self._protocol = self._session = None
            protocol.abort()

    async def _connect(self) -> _Protocol:
        session = Session(self.target.username, self.target.secret, secrets.token_hex(6), time.monotonic())
        self._session = session
        loop = asyncio.get_running_loop()
        context = _tls_context(self.target) if self.target.tls else None
        transport, protocol = await loop.create_connection(
            lambda: _Protocol(session, self._handler, self._logged_in, self.target.tls_fingerprint if self.target.tls else None, self._share),
            self.target.host,
            self.target.port,
            ssl=context,
        )
        _keep_alive(transport.get_extra_info("socket"))
        return protocol

    def _logged_in(self, output: Output) -> None:
        self._ready_at = time.monotonic()
        version = output.version if isinstance(output, LoggedIn) else ""
        self._set(LinkState.READY, version=version)
        log.info("pbx link up", pbx=self.name, ami_version=version)
        try:
            self._handler.on_ready(self)
        except Exception:
            log.error("link handler failed, link kept", exc_info=True)

    def _notify_down(self, reason: str) -> None:
        try:
            self._handler.on_down(reason)
        except Exception:
            log.error("link handler failed", exc_info=True)

    def _set(self, state: LinkState, *, reason: str = "", failures: int = 0, version: str = "") -> None:
        since = self.status.since if self.status.state is state else time.time()
        self.status = replace(self.status, state=state, reason=reason, failures=failures, version=version or self.status.version, since=since)


def _tls_context(target: LinkTarget) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if target.tls_fingerprint:  # the pin is the check; PBX certificates are mostly self-signed
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _pin_problem(transport: asyncio.BaseTransport, expected: str) -> str | None:
    certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    found = hashlib.sha256(certificate or b"").hexdigest()
    if secrets.compare_digest(found, expected.replace(":", "").lower()):
        return None
    return f"the certificate's fingerprint is {found}, not the pinned one"


def _keep_alive(sock: socket.socket | None) -> None:
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def _describe(error: BaseException) -> str:
    return "no answer to the connection attempt" if isinstance(error, TimeoutError) else str(error)[:200]
