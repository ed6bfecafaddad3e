"""The PBX asks: the FastAGI listener and all that it takes to answer."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Iterator

import asyncpg

from daemon.errors import VochidError
from daemon.fastagi.routes import make_routes
from daemon.fastagi.server import FastAgi
from daemon.lookup.decision import Decision, Status
from daemon.lookup.service import Lookup, Question
from daemon.settings import Listen
from daemon.store.decisions import DecisionLog
from daemon.store.known_customers import KnownCustomers
from daemon.store.past_calls import PastCalls
from daemon.store.pool import Database
from daemon.store.user_statuses import UserStatuses
from daemon.tenants.service import Tenants
from daemon.wiring.crm import Crm
from daemon.wiring.elsewhere import Elsewhere
from daemon.wiring.lookup import LookupSources
from daemon.wiring.presence import PbxPresence

MAX_ADDRESSES = 10_000
FLUSH_DEADLINE_S = 3.0


class PbxAsks:
    """Way 3 of the house: a question over FastAGI or HTTP, looked up, answered, written down."""

    def __init__(self, tenants: Tenants, crm: Crm, db: Database, presence: PbxPresence, elsewhere: Elsewhere, statuses: UserStatuses) -> None:
        self._tenants = tenants
        self._presence = presence
        self._elsewhere = elsewhere
        self.log = DecisionLog(db)
        sources = LookupSources(tenants, crm, KnownCustomers(db), PastCalls(db), self.log)
        self.lookup = Lookup(tenants, sources, presence, statuses, self.log)
        tenants.on_change(self.lookup.settings_changed)
        statuses.on_change(self.lookup.status_changed)
        self._fastagi = FastAgi(FastAgiPeers(tenants), make_routes(self.lookup))

    async def start(self, listen: Listen) -> None:
        """Listens."""
        await self._fastagi.start(listen)

    async def stop(self) -> None:
        """Open dialogues are told `failure`, and what was decided is stored."""
        await self._fastagi.stop()
        await self.lookup.stop()
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError):
            await asyncio.wait_for(self.log.flush(), FLUSH_DEADLINE_S)

    async def smart_redirect(self, enterprise: str, phone: str, channel: str | None) -> Decision:
        """As FastAGI answers; with the name of a live channel of a PBX where allow_redirect holds, the call is sent there too.

        Raises VochidError: the channel is not live, or the PBX refuses.
        """
        pbx = await self._presence.pbx_with(enterprise, channel) if channel else None
        if channel and pbx is None:
            raise VochidError("there is no such live channel on a PBX of this enterprise", code="no_such_channel", field="channel")
        decision = await self.lookup.ask(Question(enterprise, phone, channel or "", via="http"))
        tenancy = self._tenants.get(enterprise)
        if pbx is None or channel is None or tenancy is None or decision.status is not Status.FOUND or decision.extension is None:
            return decision
        settings = next((each for each in tenancy.enterprise.pbxs if each.name == pbx), None)
        if settings is not None and settings.allow_redirect:
            await self._elsewhere.redirect((enterprise, pbx), channel, decision.extension)
        return decision


class FastAgiPeers:
    """Who may ask over FastAGI, by every enterprise's own list."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._allowed: dict[str, frozenset[str]] = {}  # address -> enterprises that let it ask
        tenants.on_change(lambda _: self._allowed.clear())

    def is_known(self, address: str) -> bool:
        return bool(self._enterprises(address))

    def may_ask(self, address: str, enterprise: str) -> bool:
        return enterprise in self._enterprises(address)

    def _enterprises(self, address: str) -> frozenset[str]:
        known = self._allowed.get(address)
        if known is None:
            if len(self._allowed) >= MAX_ADDRESSES:
                self._allowed.clear()
            known = self._allowed[address] = frozenset(self._who_lets(ipaddress.ip_address(address)))
        return known

    def _who_lets(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Iterator[str]:
        for number, tenancy in self._tenants.all().items():
            if any(address in ipaddress.ip_network(peer) for pbx in tenancy.enterprise.pbxs for peer in pbx.fastagi_peers):
                yield number
