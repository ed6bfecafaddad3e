"""Adapters over tenants: ports for the dispatcher, plans for the recorder, checks for people."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import aiohttp
import aiohttp.web

from adapters.base import Adapter, CanLookUp, Connection, Desk, LookupFailed, Tenant
from adapters.http import CrmHttp, Observed, trace_config
from daemon.calls.plan import Told
from daemon.delivery.budgets import Budgets
from daemon.delivery.port import Attempt
from daemon.errors import NotFound, VochidError
from daemon.lookup.ports import SourceFailed
from daemon.model.call import Call
from daemon.model.crm import Responsible
from daemon.model.delivery import Check, Delivered, Delivery, Exchange, Kind, Outcome, Planned, Policy, Throttled
from daemon.model.integration import IntegrationSettings
from daemon.model.signal import CallChange
from daemon.recordings.look import WAIT_S
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.amocrm_tokens import INTEGRATION as AMOCRM
from daemon.store.amocrm_tokens import AmoCrmTokens
from daemon.store.connection_tokens import ConnectionTokens
from daemon.store.originates import OriginateRepository
from daemon.store.pool import Database
from daemon.tenants.document import Enterprise
from daemon.tenants.secret_fields import map_secrets
from daemon.tenants.service import Tenants

CONNECT_DEADLINE_S = 5.0
CHECK_DEADLINE_S = 10.0
EXCHANGES_AT_ONCE = 3  # of tokens: each holds a connection of the database meanwhile


class RecordingsForCrms(Protocol):
    """What deliveries need of the recordings room."""

    def has_source(self, enterprise: str, pbx: str) -> bool:
        """Whether recordings of this PBX can be had."""

    async def for_crm(self, call: Call, *, mp3: bool) -> tuple[str, ...]:
        """Links to a call's recordings."""


class GuardedSessions:
    """aiohttp sessions whose sockets are checked after DNS: no redirects, no proxies, no cookies."""

    def __init__(self, egress: EgressPolicy) -> None:
        self._secure = self._session(egress, plain=False)
        self._plain = self._session(egress, plain=True)

    def for_url(self, url: str) -> aiohttp.ClientSession:
        """The session for this URL's scheme: plain http goes only where the operator allows it."""
        return self._plain if url.startswith("http://") else self._secure

    async def close(self) -> None:
        await self._secure.close()
        await self._plain.close()

    def _session(self, egress: EgressPolicy, *, plain: bool) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            socket_factory=egress.socket_factory(plain=plain), limit=0, limit_per_host=0, ttl_dns_cache=60, keepalive_timeout=55, happy_eyeballs_delay=None
        )
        return aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE_S),
            headers={"User-Agent": "vochid"},
            trace_configs=[trace_config()],
        )


@dataclass(slots=True)
class AdapterPort:
    """One connection, for the dispatcher."""

    crm: Crm
    adapter: Adapter
    tenant: Tenant
    settings: Any

    @property
    def account(self) -> str:
        return f"{self.adapter.name} {self.adapter.account(self.settings)}"

    @property
    def policy(self) -> Policy:
        return self.adapter.policy

    @property
    def observe(self) -> bool:
        return bool(self.settings.mode == "observe")

    async def deliver(self, batch: Sequence[Delivery], deadline_s: float) -> Attempt:
        began = time.monotonic()
        batch = await asyncio.gather(*map(self._complete, batch))
        connection = self._connection(began + deadline_s - time.monotonic(), [link for delivery in batch for link in delivery.recordings])
        try:
            outcomes: Sequence[Outcome] = await self.adapter.deliver(connection, batch)
        except Observed:
            outcomes = [Delivered("observed")] * len(batch)
        for outcome in outcomes:
            if isinstance(outcome, Throttled) and not outcome.own_kind:  # here the connection rests by itself
                self.crm.budgets.tell_pause(self.account, list(self.policy.rates), outcome.after_s)
                break
        return Attempt(outcomes, connection.http.exchanges)

    async def reconcile(self, delivery: Delivery, deadline_s: float) -> Attempt:
        connection = self._connection(deadline_s)
        return Attempt([await self.adapter.reconcile(connection, await self._with_click(delivery))], connection.http.exchanges)

    async def refresh(self, deadline_s: float) -> bool:
        refresh = getattr(self.adapter, "refresh", None)
        return bool(refresh is not None and await refresh(self._connection(deadline_s)))

    async def responsible(self, phone: str, deadline_s: float, note: Callable[[Exchange, str | None], None]) -> Responsible | None:
        """Who looks after the number; `note` hears every exchange, with the error if it came to one. Raises SourceFailed."""
        assert isinstance(self.adapter, CanLookUp)
        connection, failed = self._connection(deadline_s), None
        try:
            return await self.adapter.responsible(connection, phone)
        except LookupFailed as error:
            failed = str(error)
            raise SourceFailed(failed, outage=error.outage) from None
        finally:
            for exchange in connection.http.exchanges:
                note(exchange, failed)

    async def check(self) -> Sequence[Check]:
        """The connection test; really sends, in mode observe too."""
        connection = self._connection(CHECK_DEADLINE_S)
        connection.http.observe = False
        return await self.adapter.check(connection)

    async def _complete(self, delivery: Delivery) -> Delivery:
        return await self._with_recordings(await self._with_click(delivery))

    async def _with_click(self, delivery: Delivery) -> Delivery:
        """A call that the CRM itself asked for brings the CRM's own name for it, as `click` in its memory."""
        call = delivery.about
        if not isinstance(call, Call) or not call.click_to_call or "click" in delivery.memory:
            return delivery
        click = await self.crm.originates.click_of(self.tenant.number, self.adapter.name, call.linkedid)
        return replace(delivery, memory={**delivery.memory, "click": click}) if click else delivery

    async def _with_recordings(self, delivery: Delivery) -> Delivery:
        """Links are made when they are handed over: they are never stored, and what was revoked meanwhile is not given away."""
        call, room = delivery.about, self.crm.recordings
        if room is None or not isinstance(call, Call) or not call.recordings or not self.settings.send.recordings:
            return delivery
        if delivery.kind not in (Kind.JOURNAL, Kind.RECORDING):
            return delivery
        return replace(delivery, recordings=await room.for_crm(call, mp3=self.policy.mp3))

    def _connection(self, deadline_s: float, masked: Sequence[str] = ()) -> Connection:
        limiter = self.crm.budgets.limiter(self.account, self.policy.rates)
        http = CrmHttp(self.crm.sessions, limiter, time.monotonic() + deadline_s, [*_secrets_of(self.settings), *masked], self.observe)
        desk = self.crm.desks(self.tenant.number) if self.crm.desks is not None and self.adapter.name == "tickets" else None
        room = self.crm.syncs.get(self.adapter.name)
        sync = room(self.tenant.number) if room is not None else None
        return Connection(self.tenant, self.settings, http, self.crm.tokens(self.tenant.number, self.adapter.name), desk, sync)


class Crm:
    """All adapters over all tenants: ports for the dispatcher, plans for the recorder, checks for people."""

    def __init__(
        self, tenants: Tenants, kinds: Mapping[str, Adapter], sessions: GuardedSessions, db: Database, vault: Vault, budgets: Budgets | None = None
    ) -> None:
        self._tenants = tenants
        self._adapters = kinds
        self._db = db
        self._vault = vault
        self._exchanges = asyncio.Semaphore(EXCHANGES_AT_ONCE)
        self.sessions = sessions
        self.originates = OriginateRepository(db)
        self.budgets = budgets or Budgets(db, "alone")
        self.recordings: RecordingsForCrms | None = None  # app.py sets it: that room needs these plans in turn
        self.desks: Callable[[str], Desk] | None = None  # likewise
        self.syncs: dict[str, Callable[[str], Any]] = {}  # likewise, by integration

    def tokens(self, enterprise: str, integration: str) -> ConnectionTokens:
        """Where this connection's renewing credentials are kept."""
        kept = AmoCrmTokens if integration == AMOCRM else ConnectionTokens
        return kept(self._db, self._vault, enterprise, integration, self._exchanges)

    def port(self, enterprise: str, integration: str) -> AdapterPort | None:
        tenancy, adapter = self._tenants.get(enterprise), self._adapters.get(integration)
        if tenancy is None or adapter is None or tenancy.enterprise.paused:
            return None
        settings = tenancy.integrations.get(integration)
        if settings is None or not settings.enabled:
            return None
        return AdapterPort(self, adapter, _tenant(tenancy.enterprise), settings)

    def reach(self, enterprise: str, integration: str, secrets: Sequence[str] = ()) -> tuple[Adapter, IntegrationSettings, Callable[[float], Connection]]:
        """An integration's adapter, its settings, and how to open a connection for so many seconds; `secrets` are masked too. Raises NotFound."""
        tenancy, adapter = self._tenants.get(enterprise), self._adapters.get(integration)
        settings = tenancy.integrations.get(integration) if tenancy else None
        if tenancy is None or adapter is None or settings is None:
            raise NotFound(f"enterprise {enterprise} has no integration {integration}")
        port = AdapterPort(self, adapter, _tenant(tenancy.enterprise), settings)

        def connect(deadline_s: float) -> Connection:
            connection = port._connection(deadline_s)
            connection.http.mask = [*connection.http.mask, *secrets]
            return connection

        return adapter, settings, connect

    def plan(self, enterprise: str, change: CallChange) -> Sequence[Told]:
        tenancy = self._tenants.get(enterprise)
        if tenancy is None or tenancy.enterprise.paused:
            return ()
        tenant = _tenant(tenancy.enterprise)
        return [
            Told(name, planned, self._hold_s(change.call, planned))
            for name, settings in {**tenancy.integrations, **tenancy.locked}.items()
            if settings.enabled
            for planned in self._adapters[name].plan(change, settings, tenant)
        ]

    def _hold_s(self, call: Call, planned: Planned) -> float:
        """How long to wait for the call's recordings: they release it when they are whole."""
        waits = planned.with_recordings and call.recordings and self.recordings is not None and self.recordings.has_source(call.enterprise, call.pbx)
        return WAIT_S if waits else 0.0

    def rates(self, enterprise: str, integration: str) -> tuple[str, list[dict[str, Any]]]:
        """The connection's CRM account, and how much of its limits is used now, by all enterprises that share it, through this daemon."""
        port = self.port(enterprise, integration)
        used = self.budgets.used(port.account, time.monotonic()) if port is not None else {}
        rows = [{"bucket": bucket, "used": count, "count": rate.count, "period_s": rate.period_s} for bucket, (count, rate) in used.items()]
        return (port.account if port is not None else ""), rows

    async def check(self, enterprise: str, integration: str, sent: Any | None) -> Sequence[Check]:
        """Tests the settings that are stored, or those that were sent."""
        document, _ = await self._tenants.document(enterprise, sealed=True)
        stored = document["integrations"].get(integration)
        if sent is None and stored is None:
            raise VochidError(f"{integration} is not set up for enterprise {enterprise}", code="not_found")
        settings = await self._tenants.candidate(enterprise, integration, sent if sent is not None else stored)
        tenancy = self._tenants.get(enterprise)
        assert tenancy is not None
        return await AdapterPort(self, self._adapters[integration], _tenant(tenancy.enterprise), settings).check()


def _tenant(enterprise: Enterprise) -> Tenant:
    codes = {line.number: line.default_code for line in enterprise.lines if line.default_code}
    return Tenant(enterprise.number, enterprise.name, enterprise.timezone, enterprise.country, codes)


def _secrets_of(settings: Any) -> list[str]:
    """Every secret of an integration, to be masked wherever it turns up."""
    found: list[str] = []
    map_secrets(type(settings), dict(settings), lambda value, _: found.append(value.get_secret_value()))
    return found
