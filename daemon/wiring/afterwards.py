"""What is done about calls after the event: traces put away, missed calls closed, gaps completed, CRMs compared."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from adapters.registry import adapters
from daemon.ami.masking import Masker
from daemon.calls.reconcile import Reconciliation
from daemon.calls.recorder import Recorder
from daemon.calls.tracer import Tracer
from daemon.cdr.service import Backfill
from daemon.delivery.dispatcher import Dispatcher
from daemon.security.egress import EgressPolicy
from daemon.settings import Settings
from daemon.store.backfill import BackfillRepository
from daemon.store.leases import Leases
from daemon.store.missed import MissedRepository
from daemon.store.pool import Database
from daemon.supervisor import Supervisor
from daemon.telemetry import metrics
from daemon.tenants.service import Tenants
from daemon.wiring.crm import Crm, GuardedSessions
from daemon.wiring.resources import open_database, open_tenants, open_vault

HOUSEKEEPING_S = 3_600.0
RECONCILE_S = 3_600.0
DAY = timedelta(days=1)
UNDERWAY = timedelta(minutes=10)  # younger calls may be on their way to the CRM

log = structlog.get_logger()


class Afterwards:
    """Owned by the app, which starts and stops it."""

    def __init__(self, settings: Settings, db: Database, tenants: Tenants, recorder: Recorder, crm: Crm, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._db = db
        self._recorder = recorder
        self._dispatcher = dispatcher
        self._tenants = tenants
        self._store = BackfillRepository(db)
        self._work = Supervisor("afterwards")
        self.backfill = Backfill(tenants, self._store, recorder, self.wake)
        self.reconciliation = Reconciliation(self._store, crm)
        self.missed = MissedRepository(db)
        self.masker = Masker() if settings.trace_mask else None

    def tracer(self) -> Tracer | None:
        """A tracer for one PBX; None when traces are switched off."""
        return Tracer() if self._settings.trace_days else None

    async def close_missed(self, enterprise: str, call_id: str, by: str | None) -> dict[str, Any]:
        """Somebody says that a customer needs no call back. Raises NotFound."""
        item = await self.missed.done(enterprise, call_id, by)
        self.wake(enterprise, await self._recorder.tell_closed(enterprise))
        return item

    def wake(self, enterprise: str, integrations: set[str]) -> None:
        """There is something to be told."""
        for integration in integrations:
            self._dispatcher.wake(enterprise, integration)

    def gap(self, enterprise: str, pbx: str, since: float, until: float) -> None:
        """Between these Unix times a PBX was not seen."""
        self.backfill.gap(enterprise, pbx, since, until)

    def start(self) -> None:
        """Completes gaps, compares, keeps house, until `stop`."""
        self._work.serve("backfill", self.backfill.run)
        self._work.serve("reconciliation", self._reconcile)
        self._work.serve("housekeeping", self._housekeeping)

    async def differences(self, enterprise: str, since: datetime | None, until: datetime | None, limit: int) -> list[dict[str, Any]]:
        """Calls that a CRM's journal should have and did not confirm, of the last day unless a window is given, oldest first."""
        until = until or datetime.now(UTC) - UNDERWAY
        found = []
        async for difference in self.reconciliation.differences(enterprise, since or until - DAY, until):
            found.append(difference.to_json())
            if len(found) >= limit:
                break
        return found

    async def _reconcile(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_S)
            until = datetime.now(UTC) - UNDERWAY
            counts: Counter[tuple[str, str]] = Counter()
            for number, tenancy in list(self._tenants.all().items()):
                if tenancy.enterprise.paused:
                    continue
                async for difference in self.reconciliation.differences(number, until - DAY, until):
                    counts[difference.integration, difference.state] += 1
            metrics.UNCONFIRMED.clear()
            for (integration, state), count in counts.items():
                metrics.UNCONFIRMED.labels(integration, state).set(count)
            if counts:
                log.warning("calls that no CRM confirmed", **{f"{integration}_{state}": count for (integration, state), count in counts.items()})

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            await self.keep_house()

    async def keep_house(self) -> None:
        """Room for the traces of a week to come; what is past its time goes."""
        await self._db.fetch("select keep_traces($1)", self._settings.trace_days)

    async def stop(self) -> None:
        """Ends what `start` began."""
        await self._work.stop()


@asynccontextmanager
async def open_backfill(settings: Settings) -> AsyncIterator[tuple[Tenants, Backfill]]:
    """Tenants and backfill for one command; a running daemon finds what is to be told by itself."""
    async with open_database(settings, own=False, apply=True) as db:
        vault = open_vault(settings)
        tenants = open_tenants(settings, db, vault)
        await tenants.load()
        sessions = GuardedSessions(EgressPolicy(settings.networks("egress_allow")))
        try:
            recorder = Recorder(db, Leases(db, "cli"), Crm(tenants, adapters(), sessions, db, vault))
            yield tenants, Backfill(tenants, BackfillRepository(db), recorder, lambda *_: None)
        finally:
            await sessions.close()
