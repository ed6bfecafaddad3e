"""The composition root: the one module that knows every room, and wires them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import aiohttp.web
import structlog

from adapters.base import Adapter, Connection, Tenant
from adapters.http import CrmHttp, Observed, trace_config
from adapters.registry import adapters
from admin_http.app import make_admin, make_operator
from admin_http.services import Services
from daemon.ami.fleet import Fleet
from daemon.ami.link import LinkHandler, LinkTarget
from daemon.calls.feed import PbxFeed
from daemon.calls.plan import Told
from daemon.calls.recorder import Recorder
from daemon.delivery.dispatcher import Dispatcher
from daemon.delivery.outbox import Outbox
from daemon.delivery.port import Attempt, CrmPort
from daemon.delivery.rate import AccountLimiter
from daemon.errors import VochidError
from daemon.live import Live
from daemon.model.delivery import Check, Delivered, Delivery, Outcome, Policy
from daemon.model.signal import CallChange
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault, load_keys
from daemon.settings import Listen, Settings
from daemon.store.calls import CallRepository
from daemon.store.connection_tokens import ConnectionTokens
from daemon.store.embedded import EmbeddedPostgres
from daemon.store.leases import Leases, PbxKey
from daemon.store.migrate import migrate
from daemon.store.pool import Database
from daemon.store.tokens import TokenRepository
from daemon.supervisor import Supervisor
from daemon.telemetry import metrics
from daemon.tenants.document import Enterprise, Pbx
from daemon.tenants.secret_fields import map_secrets
from daemon.tenants.service import Tenants

CONNECT_DEADLINE_S = 5.0
LEASE_RETRY_S = 2.0
HOUSEKEEPING_S = 3_600.0
GAUGES_S = 5.0
LAG_PROBE_S = 0.5
LOG_RETENTION_DAYS = 90
DELIVERY_RETENTION_DAYS = 30
CHECK_DEADLINE_S = 10.0

log = structlog.get_logger()


# -- CRMs ----------------------------------------------------------------------------------------------------------------


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
        connection = self._connection(deadline_s)
        try:
            outcomes: Sequence[Outcome] = await self.adapter.deliver(connection, batch)
        except Observed:
            outcomes = [Delivered("observed")] * len(batch)
        return Attempt(outcomes, connection.http.exchanges)

    async def reconcile(self, delivery: Delivery, deadline_s: float) -> Attempt:
        connection = self._connection(deadline_s)
        return Attempt([await self.adapter.reconcile(connection, delivery)], connection.http.exchanges)

    async def refresh(self, deadline_s: float) -> bool:
        refresh = getattr(self.adapter, "refresh", None)
        return bool(refresh is not None and await refresh(self._connection(deadline_s)))

    async def check(self) -> Sequence[Check]:
        """The connection test; really sends, in mode observe too."""
        connection = self._connection(CHECK_DEADLINE_S)
        connection.http.observe = False
        return await self.adapter.check(connection)

    def _connection(self, deadline_s: float) -> Connection:
        limiter = self.crm.limiters.setdefault(self.account, AccountLimiter(self.policy.rates))
        http = CrmHttp(self.crm.sessions, limiter, time.monotonic() + deadline_s, _secrets_of(self.settings), self.observe)
        return Connection(self.tenant, self.settings, http, self.crm.tokens(self.tenant.number, self.adapter.name))


class Crm:
    """All adapters over all tenants: ports for the dispatcher, plans for the recorder, checks for people."""

    def __init__(self, tenants: Tenants, kinds: Mapping[str, Adapter], sessions: GuardedSessions, db: Database, vault: Vault) -> None:
        self._tenants = tenants
        self._adapters = kinds
        self._db = db
        self._vault = vault
        self.sessions = sessions
        self.limiters: dict[str, AccountLimiter] = {}

    def tokens(self, enterprise: str, integration: str) -> ConnectionTokens:
        """Where this connection's renewing credentials are kept."""
        return ConnectionTokens(self._db, self._vault, enterprise, integration)

    def port(self, enterprise: str, integration: str) -> CrmPort | None:
        tenancy, adapter = self._tenants.get(enterprise), self._adapters.get(integration)
        if tenancy is None or adapter is None or tenancy.enterprise.paused:
            return None
        settings = tenancy.integrations.get(integration)
        if settings is None or not settings.enabled:
            return None
        return AdapterPort(self, adapter, _tenant(tenancy.enterprise), settings)

    def plan(self, enterprise: str, change: CallChange) -> Sequence[Told]:
        tenancy = self._tenants.get(enterprise)
        if tenancy is None or tenancy.enterprise.paused:
            return ()
        tenant = _tenant(tenancy.enterprise)
        return [
            Told(name, planned)
            for name, settings in tenancy.integrations.items()
            if settings.enabled
            for planned in self._adapters[name].plan(change, settings, tenant)
        ]

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


# -- PBXs ----------------------------------------------------------------------------------------------------------------


class Pbxs:
    """Keeps the fleet equal to what the tenants' documents say, for every PBX whose lease this process holds."""

    def __init__(self, tenants: Tenants, leases: Leases, recorder: Recorder, dispatcher: Dispatcher, live: Live) -> None:
        self._tenants = tenants
        self._leases = leases
        self._recorder = recorder
        self._dispatcher = dispatcher
        self._live = live
        self._feeds: dict[PbxKey, PbxFeed] = {}
        self._changed = asyncio.Event()
        self.fleet = Fleet(self._handler)
        tenants.on_change(lambda _: self._changed.set())

    @property
    def feeds(self) -> Mapping[PbxKey, PbxFeed]:
        return self._feeds

    async def run(self) -> None:
        """Follows the documents, and tries again for PBXs that another process still holds."""
        while True:
            await self._reconcile()
            try:
                await asyncio.wait_for(self._changed.wait(), LEASE_RETRY_S)
            except TimeoutError:
                continue
            self._changed.clear()

    async def stop(self) -> None:
        """Logs off everywhere and stores what waits."""
        await self.fleet.stop()
        await asyncio.gather(*(feed.stop() for feed in self._feeds.values()))
        self._feeds.clear()

    async def _reconcile(self) -> None:
        wanted = {(n, pbx.name): pbx for n, t in self._tenants.all().items() if not t.enterprise.paused for pbx in t.enterprise.pbxs if pbx.secret}
        for key in wanted.keys() - self._leases.held:
            await self._leases.take(key)
        targets = {key: _target(pbx) for key, pbx in wanted.items() if key in self._leases.held}
        for key in self._feeds.keys() & targets.keys():
            self._feeds[key].set_view(self._view(key))
        await self.fleet.set(targets)
        for key in [key for key in self._feeds if key not in targets]:
            await self._feeds.pop(key).stop()
        for key in self._leases.held - wanted.keys():
            await self._leases.drop(key)

    def _handler(self, key: PbxKey) -> LinkHandler:
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = PbxFeed(self._view(key), self._recorder, self._stored, self._state)
            feed.start()
        return feed

    def _view(self, key: PbxKey) -> Any:
        tenancy = self._tenants.get(key[0])
        assert tenancy is not None
        pbx = next(pbx for pbx in tenancy.enterprise.pbxs if pbx.name == key[1])
        return tenancy.enterprise.view(pbx)

    def _stored(self, enterprise: str, changes: list[CallChange], integrations: set[str]) -> None:
        for integration in integrations:
            self._dispatcher.wake(enterprise, integration)
        if self._live.has_watchers(enterprise):
            for change in changes:
                self._live.tell(enterprise, "call", change.call.to_json())

    def _state(self, enterprise: str, pbx: str, state: str, reason: str) -> None:
        self._live.tell(enterprise, "pbx", {"id": pbx, "state": state, "reason": reason})


def _target(pbx: Pbx) -> LinkTarget:
    assert pbx.secret is not None
    return LinkTarget(pbx.host, pbx.port, pbx.username, pbx.secret.get_secret_value(), pbx.tls, pbx.tls_fingerprint)


# -- the process ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_database(settings: Settings, *, own: bool, apply: bool) -> AsyncIterator[Database]:
    """The database of these settings: the embedded one, started when nobody runs it, or the one they name.

    own: as the daemon, which keeps the embedded server until it stops. apply: bring the schema up to date first.
    """
    async with AsyncExitStack() as stack:
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
        else:
            embedded = EmbeddedPostgres(settings.data_dir)
            await embedded.start(own=own)
            stack.push_async_callback(embedded.stop)
            url = embedded.url
        if apply:
            await migrate(url)
        db = await Database.open(url)
        stack.push_async_callback(db.close)
        yield db


def open_vault(settings: Settings) -> Vault:
    """The vault with the instance's keys."""
    configured = settings.secret_keys.get_secret_value() if settings.secret_keys else None
    return Vault(load_keys(configured, settings.secret_keys_file, settings.data_dir))


def open_tenants(settings: Settings, db: Database, vault: Vault) -> Tenants:
    """The tenants' service, not loaded yet."""
    kinds = {name: adapter.settings for name, adapter in adapters().items()}
    return Tenants(db, vault, EgressPolicy(settings.networks("egress_allow")), kinds)


class App:
    """The running daemon. What was started is stopped in the opposite order, whichever step failed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.owner = f"{settings.node}-{secrets.token_hex(6)}"
        self.ready = False
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Database, tenants, deliveries, PBXs, listeners; in this order, ready at the end."""
        settings, at_stop = self.settings, self._stack.push_async_callback
        egress, vault = EgressPolicy(settings.networks("egress_allow")), open_vault(settings)
        db = self._db = await self._stack.enter_async_context(open_database(settings, own=True, apply=True))
        await db.fetch("select keep_house($1, $2)", LOG_RETENTION_DAYS, DELIVERY_RETENTION_DAYS)
        tenants = open_tenants(settings, db, vault)
        await tenants.load()
        sessions = GuardedSessions(egress)
        at_stop(sessions.close)
        live, outbox, leases = Live(), Outbox(db, self.owner), Leases(db, self.owner)
        at_stop(leases.drop_all)
        background = Supervisor("app")
        at_stop(background.stop)
        crm = Crm(tenants, adapters(), sessions, db, vault)
        dispatcher = Dispatcher(
            outbox,
            crm,
            lambda enterprise, name, state, reason: live.tell(enterprise, "integration", {"id": name, "state": state, "reason": reason}),
            lambda enterprise, name, told, state: live.tell(
                enterprise, "delivery", {"id": told.id, "integration": name, "kind": str(told.kind), "call": told.call.id, "state": state}
            ),
        )
        tenants.on_change(dispatcher.settings_changed)
        at_stop(dispatcher.stop)
        self.pbxs = Pbxs(tenants, leases, Recorder(db, leases, crm), dispatcher, live)
        at_stop(self.pbxs.stop)
        at_stop(background.stop, "pbxs", "tenants", "dispatcher")
        services = Services(
            tenants=tenants, calls=CallRepository(db), outbox=outbox, tokens=TokenRepository(db), live=live, check=crm.check,
            links=lambda: {key: link.status for key, link in self.pbxs.fleet.links.items()}, is_ready=self.is_ready,
            admin_token=settings.admin_bearer(), wake=dispatcher.wake, integrations=tuple(adapters()), started_at=time.time(),
            live_calls=lambda number: sum(feed.live_calls for key, feed in self.pbxs.feeds.items() if key[0] == number),
        )  # fmt: skip
        await self._listen(make_operator(services), settings.metrics)
        await self._listen(make_admin(services), settings.http)
        for name, run in {
            "tenants": tenants.run, "leases": leases.run, "dispatcher": dispatcher.run, "pbxs": self.pbxs.run,
            "housekeeping": self._keep_house, "gauges": self._gauges, "loop lag": self._probe_lag,
        }.items():  # fmt: skip
            background.serve(name, run)
        self.ready = True
        log.info("ready", http=str(settings.http), metrics=str(settings.metrics), node=settings.node, data_dir=str(settings.data_dir))

    async def stop(self) -> None:
        """Not ready first; then no new work, PBXs logged off, what is known stored and told, leases given back."""
        self.ready = False
        await self._stack.aclose()
        log.info("stopped")

    async def is_ready(self) -> bool:
        """Whether the database answers and everything is up; PBXs and CRMs do not count."""
        if not self.ready:
            return False
        try:
            return await asyncio.wait_for(self._db.fetchval("select true"), 2) is True
        except Exception:
            return False

    async def _listen(self, application: aiohttp.web.Application, listen: Listen) -> None:
        runner = aiohttp.web.AppRunner(application, access_log=None, shutdown_timeout=3)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        try:
            await aiohttp.web.TCPSite(runner, listen.host, listen.port, reuse_address=True).start()
        except OSError as error:
            raise VochidError(f"cannot listen on {listen}: {error.strerror}. Is another vochid running?", code="listen") from None

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            await self._db.fetch("select keep_house($1, $2)", LOG_RETENTION_DAYS, DELIVERY_RETENTION_DAYS)

    async def _gauges(self) -> None:
        while True:
            rows = await self._db.fetch("select * from delivery_backlog()")
            metrics.BACKLOG.clear()
            metrics.OLDEST.clear()
            for row in rows:
                metrics.BACKLOG.labels(row["integration"], row["state"]).set(row["count"])
                metrics.OLDEST.labels(row["integration"]).set(row["oldest_s"])
            states = [str(link.status.state) for link in self.pbxs.fleet.links.values()]
            metrics.LINKS.clear()
            for state in set(states):
                metrics.LINKS.labels(state).set(states.count(state))
            await asyncio.sleep(GAUGES_S)

    async def _probe_lag(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(LAG_PROBE_S)
            metrics.LOOP_LAG.observe(max(0.0, time.monotonic() - before - LAG_PROBE_S))
