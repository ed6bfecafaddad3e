"""The composition root: the one place that knows every room, and wires them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial

import aiohttp
import aiohttp.web
import asyncpg
import structlog

from adapters.base import CanConsent, CanRegister, HasLines, HasManagers
from adapters.registry import adapters
from admin_http.app import make_admin, make_operator
from admin_http.ports import Joined
from admin_http.services import Services
from admin_http.visitors import parse_networks
from daemon.asterisk.snippets import snippets_of
from daemon.calls.posting import PostedCalls
from daemon.calls.recorder import Recorder
from daemon.delivery.budgets import KNOWN_AFTER_S, Budgets
from daemon.delivery.desk import Desk
from daemon.delivery.dispatcher import Dispatcher
from daemon.delivery.outbox import Outbox
from daemon.doctor import check_pbx
from daemon.erasure import Erasure
from daemon.errors import VochidError
from daemon.explain import Explain
from daemon.live import Live
from daemon.people.service import People
from daemon.security.cabinet import CabinetLinks
from daemon.security.egress import EgressPolicy
from daemon.security.passwords import Passwords
from daemon.settings import Listen, Settings
from daemon.store.audit import AuditLog
from daemon.store.calls import CallRepository
from daemon.store.consents import Consents
from daemon.store.crm_records import CrmRecordRepository
from daemon.store.glance import glance, troubled
from daemon.store.inbound_tokens import InboundTokens
from daemon.store.leases import Leases
from daemon.store.people import PeopleRepository
from daemon.store.report_keeper import ReportKeeper
from daemon.store.reports import ReportRepository
from daemon.store.tokens import TokenRepository
from daemon.store.user_statuses import UserStatuses
from daemon.supervisor import Supervisor
from daemon.telemetry import metrics
from daemon.wiring.afterwards import Afterwards
from daemon.wiring.alerts import Alerts
from daemon.wiring.amocrm import AmoCrmDoors
from daemon.wiring.asks import PbxAsks
from daemon.wiring.bitrix24_jobs import open_bitrix24_sync
from daemon.wiring.clicks import open_clicks
from daemon.wiring.consent import Consenting
from daemon.wiring.crm import Crm, GuardedSessions
from daemon.wiring.crm_admin import crm_admin
from daemon.wiring.elsewhere import Elsewhere, Everywhere
from daemon.wiring.nodes import Nodes
from daemon.wiring.originate import Originating
from daemon.wiring.overview import Overview
from daemon.wiring.pbxs import Pbxs
from daemon.wiring.presence import PbxPresence
from daemon.wiring.recordings import open_recordings
from daemon.wiring.records import open_records
from daemon.wiring.resources import open_database, open_tenants, open_vault
from daemon.wiring.retention import keep_enterprises
from daemon.wiring.tickets import open_desk, tell_settled
from daemon.wiring.token_keeper import TokenKeeper

HOUSEKEEPING_S = 3_600.0
GAUGES_S = 5.0
BACKLOG_MOST = 20_000  # counted of what is open, shared out between the connections; a longer queue counts as its share
RELOAD_DEADLINE_S = 10.0  # the watchdog is not fed meanwhile
LAG_PROBE_S = 0.5
LOG_RETENTION_DAYS = 90
WARM_CONNECTIONS = 6  # of the pool: what a busy second uses; more are opened when they are needed
POSTED_CALL_S = 6 * 3_600.0  # a posted call of which nothing was heard for so long is over
DELIVERY_RETENTION_DAYS = 30
ALERT_RETENTION_DAYS = 90

log = structlog.get_logger()


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
        tenants = self._tenants = open_tenants(settings, db, vault)
        await tenants.load()
        sessions = GuardedSessions(egress)
        at_stop(sessions.close)
        live, outbox = Live(), Outbox(db, self.owner)
        leases = self._leases = Leases(db, self.owner)
        at_stop(leases.drop_all)
        background = Supervisor("app")
        at_stop(background.stop)
        nodes = Nodes(db, leases, live)
        at_stop(nodes.asks.stop)
        nodes.serve(background)
        await nodes.join()
        budgets = Budgets(db, self.owner, nodes.living, nodes.say_pause, KNOWN_AFTER_S)
        nodes.share(budgets)
        crm = Crm(tenants, adapters(), sessions, db, vault, budgets)
        dispatcher = Dispatcher(
            outbox,
            crm,
            lambda enterprise, name, state, reason: live.tell(enterprise, "integration", {"id": name, "state": state, "reason": reason}),
            tell_settled(live),
        )
        tenants.on_change(dispatcher.settings_changed)
        at_stop(dispatcher.stop)
        recordings = open_recordings(settings, db, tenants, outbox, crm, dispatcher, vault, egress)
        at_stop(recordings.stop)
        desk = self._desk = open_desk(db, tenants, crm, dispatcher, live, sessions, recordings, vault, settings.base_url)
        record_store = CrmRecordRepository(db)
        sync, sync_jobs = open_bitrix24_sync(db, tenants, crm, record_store, dispatcher, self.owner)
        at_stop(sync_jobs.stop)
        recorder = Recorder(db, leases, crm)
        afterwards = Afterwards(settings, db, tenants, recorder, crm, dispatcher)
        await afterwards.keep_house()
        at_stop(afterwards.stop)
        afterwards.start()
        self.pbxs = Pbxs(tenants, leases, recorder, dispatcher, live, afterwards, recordings.expect)
        at_stop(self.pbxs.stop)
        nodes.look_after(self.pbxs)
        elsewhere = Elsewhere(nodes, leases, tenants, self.pbxs)
        self._posted = PostedCalls(db, crm, self.owner, self.pbxs.stored, recordings.attach)
        originating = Originating(db, tenants, self.pbxs, elsewhere)
        elsewhere.places(originating.service)
        at_stop(originating.follower.stop)
        statuses = UserStatuses(db)
        presence = PbxPresence(self.pbxs.watches, elsewhere)
        asks = PbxAsks(tenants, crm, db, presence, elsewhere, statuses)
        at_stop(asks.stop)
        everywhere = Everywhere(nodes, asks.lookup, dispatcher)
        statuses.on_change(everywhere.status_changed)
        tenants.on_erased(asks.lookup.settings_changed)
        tenants.on_erased(lambda _: recordings.forget_copies())
        records, callers = open_records(db, record_store, tenants, asks.lookup)
        sync.told = records.told_all
        clicks = open_clicks(db, tenants, originating, asks, recorder, dispatcher)
        at_stop(clicks.stop)
        at_stop(background.stop, "pbxs", "tenants", "dispatcher")
        admin = crm_admin(tenants, crm, db, vault, egress, settings.base_url)
        overview = Overview(db, tenants, outbox, dispatcher, crm, nodes, leases, asks.lookup, everywhere)
        keeper = TokenKeeper(tenants, crm, outbox, dispatcher)
        passwords = Passwords()
        self._stack.callback(passwords.close)
        audit = AuditLog(db)
        self._people = People(PeopleRepository(db), audit, vault, passwords)
        inbound, reports = InboundTokens(db, vault), ReportRepository(db)
        joined = Joined(
            kinds={name: adapter.settings for name, adapter in adapters().items()},
            check_pbx=check_pbx,
            cabinet=CabinetLinks(vault, inbound, time.time),
            managers=admin.managers,
            registrations=admin.registrations,
            redirect=asks.smart_redirect,
            snippets=lambda enterprise, pbx: snippets_of(enterprise, pbx, settings.fastagi),
            consent=Consenting(crm, Consents(db, vault), admin.states, audit, settings.base_url, everywhere.cured, inbound),
            lines=admin.lines,
            with_lines=tuple(name for name, adapter in adapters().items() if isinstance(adapter, HasLines)),
            with_managers=tuple(name for name, adapter in adapters().items() if isinstance(adapter, HasManagers)),
            registering=tuple(name for name, adapter in adapters().items() if isinstance(adapter, CanRegister)),
            credentials=keeper.state,
            amocrm=AmoCrmDoors(db, tenants, crm, everywhere, dispatcher.wake, settings.base_url),
            bitrix24_sync=sync,
            consenting=tuple(name for name, adapter in adapters().items() if isinstance(adapter, CanConsent)),
        )
        services = Services(
            tenants=tenants,
            calls=CallRepository(db),
            outbox=outbox,
            tokens=TokenRepository(db),
            inbound=inbound,
            people=self._people,
            joined=joined,
            live=live,
            check=crm.check,
            glance=partial(glance, db),
            troubled=partial(troubled, db),
            originate=originating.service,
            clicks=clicks,
            posted=self._posted,
            statuses=statuses,
            smart_redirect=asks.smart_redirect,
            recordings=recordings,
            support=desk.desk,
            records=records,
            callers=callers,
            attachments=desk.attachments,
            registrations=admin.registrations,
            managers=admin.managers,
            states=admin.states,
            missed=afterwards.missed,
            close_missed=afterwards.close_missed,
            differences=afterwards.differences,
            explain=Explain(db, tenants),
            erasure=Erasure(db, tenants, audit, record_store),
            desk=Desk(db),
            reports=reports,
            connections=overview.connections,
            state=overview.state,
            refresh=overview.refresh,
            kinds={name: frozenset(adapter.policy.deadline_s) for name, adapter in adapters().items()},
            links=nodes.links,
            nodes=overview.nodes,
            is_ready=self.is_ready,
            admin_token=settings.admin_bearer(),
            wake=dispatcher.wake,
            integrations=tuple(adapters()),
            started_at=time.time(),
            base_url=settings.base_url,
            trusted_proxies=parse_networks(settings.networks("trusted_proxies")),
            devices=presence.states,
            live_calls=nodes.live_calls,
        )
        await self._listen(make_operator(services), settings.metrics)
        await self._listen(make_admin(services), settings.http)
        self._stack.callback(live.close)
        await asks.start(settings.fastagi)
        for name, run in {
            "tenants": tenants.run,
            "dispatcher": dispatcher.run,
            "limits": budgets.run,
            "pbxs": self.pbxs.run,
            "click-to-call": originating.follower.run,
            "decisions": asks.log.run,
            "credentials": keeper.run,
            "bitrix24 sync": sync_jobs.run,
            "reports": ReportKeeper(reports, lambda: {number: one.enterprise.timezone for number, one in tenants.all().items()}).run,
            "housekeeping": self._keep_house,
            "attachments": desk.attachments.run,
            "gauges": lambda: self._gauges(dispatcher),
            "loop lag": self._probe_lag,
        }.items():
            background.serve(name, run)
        if settings.alert_url is not None:
            background.serve("alerts", Alerts(db, vault, overview, settings.alert_url.get_secret_value(), settings.node).run)
        background.job("warm connections", db.warm(WARM_CONNECTIONS))
        self.ready = True
        log.info(
            "ready", http=str(settings.http), fastagi=str(settings.fastagi), metrics=str(settings.metrics), node=settings.node, data_dir=str(settings.data_dir)
        )
        if (link := await self._people.first_link()) is not None:
            log.warning("nobody can log in yet: open the link once, within 24 hours", link=f"{settings.base_url}/setup/{link}")

    async def reload(self) -> None:
        """Reads every enterprise's settings anew; where that fails the former ones go on."""
        try:
            async with asyncio.timeout(RELOAD_DEADLINE_S):
                await self._tenants.refresh()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            log.error("settings could not be read anew, the former ones go on", error=str(error)[:200])

    async def stop(self) -> None:
        """Not ready first; then no new work, PBXs logged off, what is known stored and told, leases given back."""
        self.ready = False
        await self._stack.aclose()
        log.info("stopped")

    async def is_ready(self) -> bool:
        """Whether the database answers and takes writes, and everything is up; PBXs and CRMs do not count."""
        if not self.ready or not self._leases.is_sure:
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
            await self._db.fetch("select forget_originates($1, $2)", LOG_RETENTION_DAYS, DELIVERY_RETENTION_DAYS)
            await self._db.fetch("select forget_alerts($1)", ALERT_RETENTION_DAYS)
            await self._posted.close_stale(POSTED_CALL_S)
            await self._desk.attachments.forget(self._tenants.all())
            await keep_enterprises(self._db, self._tenants.all())
            await self._people.repository.forget_expired()

    async def _gauges(self, dispatcher: Dispatcher) -> None:
        for name, adapter in adapters().items():  # a counter that begins with its first failure shows no increase
            for kind in adapter.policy.deadline_s:
                metrics.GIVEN_UP.labels(name, str(kind))
        while True:
            self._tenants.report()
            metrics.TASKS.set(len(asyncio.all_tasks()))
            rows = await self._db.fetch("select * from delivery_backlog($1)", BACKLOG_MOST)
            metrics.BACKLOG.clear()
            metrics.OLDEST.clear()
            for row in sorted(rows, key=lambda row: row["oldest_s"]):
                metrics.BACKLOG.labels(row["integration"], row["state"]).set(row["count"])
                metrics.OLDEST.labels(row["integration"]).set(row["oldest_s"])
            troubles = Counter((row["subject"], row["code"]) for row in await self._db.fetch("select * from connections_in_trouble(1e9)"))
            for gauge, counts in ((metrics.BREAKERS, dispatcher.held_back()), (metrics.TROUBLE, troubles)):
                gauge.clear()
                for labels, count in counts.items():
                    gauge.labels(*labels).set(count)
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
