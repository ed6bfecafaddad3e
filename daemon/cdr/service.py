"""Completes what was not seen from the PBX's own CDR: after a gap by itself, and on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import structlog

from daemon.calls.recorder import Recorder
from daemon.cdr.conversations import call_of, conversations
from daemon.cdr.matching import names_to_add, to_store
from daemon.cdr.rows import made_absolute
from daemon.cdr.sources import CdrUnreadable, Read, source_of
from daemon.errors import NotFound, SettingsError
from daemon.store.backfill import BackfillRepository
from daemon.telemetry import metrics
from daemon.tenants.document import Enterprise, Pbx
from daemon.tenants.service import Tenants

SLICE = timedelta(days=1)
MARGIN = timedelta(hours=4)  # a call's rows may begin before its slice and after it
MAX_WINDOW = timedelta(days=31)
MAX_GAP = timedelta(days=7)
SETTLED = timedelta(seconds=30)  # younger calls may be being written down
PASSES_S = (35.0, 600.0)  # after a resync; again later, as some PBXs write CDR in batches
POLL_S = 5.0
MAX_GAPS = 10_000
BATCH = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a window: rows read, calls they tell of, calls stored, completed or given a recording."""

    rows: int = 0
    calls: int = 0
    stored: int = 0

    def __add__(self, other: Done) -> Done:
        return Done(self.rows + other.rows, self.calls + other.calls, self.stored + other.stored)


class Backfill:
    """`wake(enterprise, integrations)` is called when there is something to be told."""

    def __init__(self, tenants: Tenants, store: BackfillRepository, recorder: Recorder, wake: Callable[[str, set[str]], None]) -> None:
        self._tenants = tenants
        self._store = store
        self._recorder = recorder
        self._wake = wake
        self._gaps: dict[tuple[str, str, int], tuple[float, float, float]] = {}

    async def window(
        self, enterprise: str, since: datetime, until: datetime, *, pbx: str | None = None, progress: Callable[[int, int], None] = lambda *_: None
    ) -> Done:
        """Completes the calls that started in a window, of one PBX or of all that have a CDR source; `progress(done, of)` counts slices.

        Raises NotFound, SettingsError for a window or an enterprise that cannot be, CdrUnreadable.
        """
        tenancy = self._tenants.get(enterprise)
        if tenancy is None:
            raise NotFound(f"there is no enterprise {enterprise}")
        until = min(until, datetime.now(UTC) - SETTLED)
        if not since < until:
            raise SettingsError("the window is empty: `from` must lie before `to`, and both in the past", field="from")
        if until - since > MAX_WINDOW:
            raise SettingsError(f"the window is longer than {MAX_WINDOW.days} days: ask for it in parts", field="from")
        sources = [(one, read) for one in tenancy.enterprise.pbxs if pbx in (None, one.name) and (read := source_of(one.cdr)) is not None]
        if not sources:
            raise SettingsError("no PBX of it has a CDR source (pbxs[].cdr)", field="pbxs")
        slices = _slices(since, until)
        total = Done()
        for number, (one, read) in enumerate(sources):
            for index, (begin, end) in enumerate(slices):
                progress(number * len(slices) + index, len(sources) * len(slices))
                total += await self._slice(tenancy.enterprise, one, read, begin, end)
        progress(len(sources) * len(slices), len(sources) * len(slices))
        return total

    async def _slice(self, enterprise: Enterprise, pbx: Pbx, read: Read, since: datetime, until: datetime) -> Done:
        rows = await read(since - MARGIN, until + MARGIN)
        view, zone = enterprise.view(pbx), ZoneInfo(enterprise.timezone)
        begin, end = since.timestamp(), until.timestamp()
        told = await asyncio.to_thread(lambda: [call_of(one, view) for one in conversations(made_absolute(rows, zone)) if begin <= one[0].start < end])
        seen = await self._store.seen(enterprise.number, pbx.name, since - MARGIN, until + MARGIN)
        fresh = to_store(told, seen.calls)
        stored = 0
        for index in range(0, len(fresh), BATCH):
            count, integrations = await self._recorder.record_late(enterprise.number, pbx.name, fresh[index : index + BATCH])
            stored += count
            self._wake(enterprise.number, integrations)
        for call in names_to_add(told, seen.calls):
            told_of = await self._recorder.add_recording(call)
            stored += told_of is not None
            self._wake(enterprise.number, told_of or set())
        metrics.BACKFILLED.labels(enterprise.number).inc(stored)
        return Done(len(rows), len(told), stored)

    # -- gaps ------------------------------------------------------------------------------------------------------------

    def gap(self, enterprise: str, pbx: str, since: float, until: float) -> None:
        """Between these Unix times a PBX was not seen: to be completed when its CDR can be expected."""
        for number, delay_s in enumerate(PASSES_S):
            key = (enterprise, pbx, number)
            former = self._gaps.get(key)
            begin = min(since, former[0]) if former else since
            if former is not None or len(self._gaps) < MAX_GAPS:
                self._gaps[key] = (max(begin, until - MAX_GAP.total_seconds()), until, time.monotonic() + delay_s)

    async def run(self) -> None:
        """Completes gaps, one at a time, when they are due."""
        while True:
            await asyncio.sleep(POLL_S)
            now = time.monotonic()
            for key in [key for key, (_, _, due) in self._gaps.items() if due <= now]:
                since, until, _ = self._gaps.pop(key)
                await self._complete(key[0], key[1], since, until)

    async def _complete(self, enterprise: str, pbx: str, since: float, until: float) -> None:
        tenancy = self._tenants.get(enterprise)
        found = next((one for one in tenancy.enterprise.pbxs if one.name == pbx), None) if tenancy else None
        if found is None or source_of(found.cdr) is None:
            return
        begin, end = datetime.fromtimestamp(since, UTC), datetime.fromtimestamp(until, UTC)
        try:
            done = await self.window(enterprise, begin - MARGIN, end, pbx=pbx)  # calls that ended in the gap began before it
            log.info("gap completed", pbx=f"{enterprise}/{pbx}", since=begin.isoformat(), rows=done.rows, calls=done.calls, stored=done.stored)
        except (CdrUnreadable, SettingsError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            log.warning("gap not completed", pbx=f"{enterprise}/{pbx}", since=begin.isoformat(), error=str(error)[:200])


def _slices(since: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    found = []
    while since < until:
        found.append((since, min(since + SLICE, until)))
        since += SLICE
    return found
