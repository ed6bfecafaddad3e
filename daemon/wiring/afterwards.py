"""What is done about calls after the event: traces put away, missed calls closed, gaps completed, CRMs compared."""

from __future__ import annotations

import asyncio
from typing import Any

from daemon.ami.masking import Masker
from daemon.calls.recorder import Recorder
from daemon.calls.tracer import Tracer
from daemon.delivery.dispatcher import Dispatcher
from daemon.settings import Settings
from daemon.store.missed import MissedRepository
from daemon.store.pool import Database
from daemon.tenants.service import Tenants
from daemon.wiring.crm import Crm

HOUSEKEEPING_S = 3_600.0


class Afterwards:
    """Owned by the app; its `run` is a service."""

    def __init__(self, settings: Settings, db: Database, tenants: Tenants, recorder: Recorder, crm: Crm, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._db = db
        self._recorder = recorder
        self._dispatcher = dispatcher
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

    async def run(self) -> None:
        """Housekeeping."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            await self.keep_house()

    async def keep_house(self) -> None:
        """Room for the traces of a week to come; what is past its time goes."""
        await self._db.fetch("select keep_traces($1)", self._settings.trace_days)

    async def stop(self) -> None:
        """Nothing is begun any more."""
