"""The FastAGI listener. Asterisk waits without a limit of its own, so every step here has a deadline; thin shell.

Whoever is refused is told `failure`, which makes AGISTATUS FAILURE: a bare close would read as SUCCESS. Then the socket is
read to its end for a moment, because closing it with unread bytes would reset the connection and lose that word.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

import structlog

from daemon.errors import VochidError
from daemon.fastagi.wire import FAILURE, AgiError, AgiReader, Answered, CommandError, HungUp, Request, set_variable
from daemon.settings import Listen
from daemon.supervisor import Supervisor
from daemon.telemetry import metrics

ENV_DEADLINE_S = 5.0
ANSWER_DEADLINE_S = 2.0  # of the PBX, for one command
DRAIN_S = 0.2
MAX_DIALOGUES = 4_000
MAX_DIALOGUES_PER_PEER = 1_500
BACKLOG = 2_048

log = structlog.get_logger()

Variables = dict[str, str]


class Peers(Protocol):
    """Who may ask."""

    def is_known(self, address: str) -> bool:
        """Whether any enterprise lets this address ask: others are refused before they have said a word."""

    def may_ask(self, address: str, enterprise: str) -> bool:
        """Whether this enterprise lets it ask."""


Route = Callable[[Request], Awaitable[Variables]]


class Refused(Exception):
    """The peer is told `failure`; the text is for the log and the metric."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class FastAgi:
    """Answers dialogues. `routes` by script name; each gives the variables to set, in their order, within its own budget."""

    def __init__(self, peers: Peers, routes: dict[str, Route]) -> None:
        self._peers = peers
        self._routes = routes
        self._supervisor = Supervisor("fastagi")
        self._by_peer: Counter[str] = Counter()
        self._server: asyncio.Server | None = None

    @property
    def dialogues(self) -> int:
        """How many are open now."""
        return self._by_peer.total()

    async def start(self, listen: Listen) -> None:
        """Listens. Raises VochidError when it cannot."""
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Dialogue(self), listen.host, listen.port, backlog=BACKLOG, reuse_address=True
            )
        except OSError as error:
            raise VochidError(f"cannot listen on {listen}: {error.strerror}. Is another vochid running?", code="listen") from None

    async def stop(self) -> None:
        """Listens no more and closes what is open: the calls go on by their normal route."""
        if self._server is not None:
            self._server.close()
        await self._supervisor.stop()

    def admit(self, address: str) -> str | None:
        """Counts a new dialogue; gives the reason when it must be refused."""
        full = self._by_peer.total() >= MAX_DIALOGUES or self._by_peer[address] >= MAX_DIALOGUES_PER_PEER
        self._by_peer[address] += 1
        metrics.FASTAGI_OPEN.inc()
        if not self._peers.is_known(address):
            return "peer"
        return "overload" if full else None

    def leave(self, address: str) -> None:
        """The dialogue's socket is closed."""
        self._by_peer[address] -= 1
        metrics.FASTAGI_OPEN.dec()
        if self._by_peer[address] <= 0:
            del self._by_peer[address]

    def begin(self, dialogue: _Dialogue) -> None:
        """Runs a dialogue to its end."""
        self._supervisor.job("dialogue", self._run(dialogue))

    async def _run(self, dialogue: _Dialogue) -> None:
        outcome, began = "answered", time.monotonic()
        try:
            if dialogue.refused is not None:
                raise Refused(dialogue.refused)
            await self._converse(dialogue)
        except Refused as why:
            outcome = why.reason
            log.debug("fastagi refused", peer=dialogue.address, reason=str(why))
            await dialogue.fail()
        except _Gone:
            outcome = "gone"
        except BaseException:  # the daemon stops, or a bug: the dialplan is told all the same
            outcome = "stopped"
            dialogue.write(FAILURE)
            raise
        finally:
            metrics.FASTAGI.labels(outcome).inc()
            metrics.FASTAGI_SECONDS.observe(time.monotonic() - began)
            dialogue.close()

    async def _converse(self, dialogue: _Dialogue) -> None:
        try:
            request = await dialogue.next(ENV_DEADLINE_S)
            if not isinstance(request, Request):
                raise Refused("protocol", "no environment")
            route = self._routes.get(request.script)
            if route is None:
                raise Refused("script", "there is no such script")
            if not self._peers.may_ask(dialogue.address, request.enterprise):
                raise Refused("peer")
            for name, value in (await route(request)).items():
                dialogue.write(set_variable(name, value))
                answer = await dialogue.next(ANSWER_DEADLINE_S)
                while isinstance(answer, HungUp):  # out of band: the answer itself still comes
                    answer = await dialogue.next(ANSWER_DEADLINE_S)
                if not isinstance(answer, Answered) or answer.code != 200:
                    raise Refused("command", f"{name} was not set")
        except AgiError as error:
            raise Refused("protocol", str(error)) from None
        except CommandError as error:
            raise Refused("command", str(error)) from None
        except TimeoutError:
            raise Refused("slow", "the PBX did not go on in time") from None


class _Gone(Exception):
    """The PBX closed the connection."""


class _Dialogue(asyncio.Protocol):
    """One connection: its bytes as items, in order."""

    def __init__(self, server: FastAgi) -> None:
        self.address = ""
        self.refused: str | None = None
        self._server = server
        self._reader = AgiReader()
        self._transport: asyncio.Transport | None = None
        self._items: list[Request | Answered | HungUp | AgiError] = []
        self._news = asyncio.Event()
        self._is_over = False
        self._is_ignored = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = plain_address(peer[0]) if peer else ""
        self.refused = self._server.admit(self.address)
        self._is_ignored = self.refused is not None
        self._server.begin(self)

    def data_received(self, data: bytes) -> None:
        if self._is_ignored:
            return
        try:
            self._items += self._reader.feed(data)
        except AgiError as error:
            self._items.append(error)
            self._is_ignored = True
        self._news.set()

    def eof_received(self) -> bool:
        self._is_over = True
        self._news.set()
        return True  # half open: a PBX that only shut its sending side still hears `failure`

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self._news.set()
        self._server.leave(self.address)

    async def next(self, deadline_s: float) -> Request | Answered | HungUp:
        """The next item. Raises AgiError, TimeoutError, _Gone."""
        async with asyncio.timeout(deadline_s):
            while not self._items:
                if self._is_over:
                    raise _Gone
                self._news.clear()
                await self._news.wait()
        item = self._items.pop(0)
        if isinstance(item, AgiError):
            raise item
        return item

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def fail(self) -> None:
        """Says `failure` and reads to the end for DRAIN_S at most."""
        self._is_ignored = True
        self.write(FAILURE)
        try:
            async with asyncio.timeout(DRAIN_S):
                while not self._is_over:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() > 0:  # the peer does not read: no socket waits for that
            self._transport.abort()
        else:
            self._transport.close()


def plain_address(text: str) -> str:
    """An address as it is written in settings: without a zone, and IPv4 inside IPv6 as IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
