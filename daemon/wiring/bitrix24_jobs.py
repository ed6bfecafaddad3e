"""Long syncs with Bitrix24, worked off through the outbox page by page.

A job's cursor and counts are stored in the transaction that plans its next page, so that another daemon goes on exactly where one was killed. A delivery
of a job has the job's key, and is counted once, when it has come to its end: total = done + failed when the job is over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import structlog

from adapters.bitrix24.sync_fields import ENTITY
from adapters.bitrix24.sync_list import PAGE, IdPage, count, page_of_ids
from adapters.bitrix24.sync_rules import error_type
from daemon.delivery.dispatcher import Dispatcher
from daemon.errors import VochidError
from daemon.model.crm_record import RecordType
from daemon.model.delivery import AuthExpired, Outcome, Record, Rejected, Throttled
from daemon.store.crm_records import CrmRecordRepository
from daemon.store.integration_errors import Failure
from daemon.store.pool import Connection, Database
from daemon.store.sync_jobs import SyncJob
from daemon.supervisor import Supervisor
from daemon.tenants.service import Tenants
from daemon.wiring.bitrix24_plan import BITRIX24, job_key, lane, plan
from daemon.wiring.bitrix24_sync import Bitrix24Sync
from daemon.wiring.crm import Crm

POLL_S = 2.0
TICK_S, FULL_TICK_S = 0.25, 1.0  # between two steps of a job: of one that has little left in the outbox, and of one that has pages there
ASK_DEADLINE_S = 20.0
MAX_OPEN = 6 * PAGE  # of a job in the outbox at a time: one page under way, one behind it, and some that wait for their second try
FAR_OFF_S = 180.0
MAX_FAILED_PAGES = 12
MAX_PAUSE_S = 60.0  # between tries of a page: 2 s at first, twice as long each time; ten minutes in all
# What others point at goes first.
ORDER = (RecordType.COMPANY, RecordType.USER, RecordType.CONTRACT, RecordType.OBJECT)

log = structlog.get_logger()


class Bitrix24Jobs:
    """Works on every job that nobody else works on."""

    def __init__(self, db: Database, crm: Crm, sync: Bitrix24Sync, wake: Callable[[str, str], None]) -> None:
        self._db = db
        self._crm = crm
        self._sync = sync
        self._wake = wake
        self._woken = asyncio.Event()
        self._at_work: set[str] = set()
        self._supervisor = Supervisor("bitrix24 sync")
        sync.wake_jobs = self._woken.set

    async def run(self) -> None:
        """Looks for jobs that are new, or whose daemon is gone."""
        while True:
            self._woken.clear()
            for enterprise, job in await self._sync.jobs.claim():
                if job not in self._at_work:
                    self._at_work.add(job)
                    self._supervisor.job(job, self._work(enterprise, job))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), POLL_S)

    async def stop(self) -> None:
        """Leaves jobs where they are: they are taken over."""
        await self._supervisor.stop()

    async def _work(self, enterprise: str, job: str) -> None:
        failed_pages = 0
        try:
            while True:
                wait_s = await self._step(enterprise, job, failed_pages)
                if wait_s is None:
                    return
                failed_pages = failed_pages + 1 if wait_s > FULL_TICK_S else 0
                await asyncio.sleep(wait_s)
        finally:
            self._at_work.discard(job)

    # -- one step ------------------------------------------------------------------------------------------------------------------

    async def _step(self, enterprise: str, job: str, failed_pages: int) -> float | None:
        """Counts what came to its end, and plans a page when there is room; gives the seconds until the next step, None when there is none."""
        one = await self._held(enterprise, job)
        if one is None:
            return None
        if self._sync.settings(enterprise) is None:
            await self._over(one, "bitrix24 was switched off")
            return None
        page: _Page | None = None
        if len(_open(one)) < MAX_OPEN and (one.total is None or _at(one) is not None):
            asked = await self._page(one)
            if not isinstance(asked, _Page):
                if isinstance(asked, (AuthExpired, Rejected)) or (failed_pages + 1 >= MAX_FAILED_PAGES and not isinstance(asked, Throttled)):
                    await self._over(one, getattr(asked, "reason", "the portal could not be asked"), error_type(asked))
                    return None
                return max(1.0, asked.after_s) if isinstance(asked, Throttled) else min(MAX_PAUSE_S, 2.0 ** (failed_pages + 1))
            page = asked
        async with self._db.tenant(enterprise) as connection:
            held = await self._sync.jobs.held(connection, enterprise, job)
            if held is None:
                return None
            counted = await self._counted(connection, held)
            if page is not None and held.cursor.get("place", 0) == one.cursor.get("place", 0) and held.cursor.get("after", 0) == one.cursor.get("after", 0):
                counted = await self._planned(connection, counted, page)
            if not _open(counted) and _at(counted) is None:
                counted = replace(counted, state="done", total=counted.done + counted.failed)
            if counted != held:
                await self._sync.jobs.advance(connection, counted)
        if page is not None:
            self._wake(enterprise, BITRIX24)
        if counted.state == "done":
            log.info("sync done", enterprise=enterprise, integration=BITRIX24, operation=f"sync_{one.direction}", done=counted.done, failed=counted.failed)
            return None
        if page is not None and page.records:
            return 0.0
        return TICK_S if len(_open(counted)) < PAGE else FULL_TICK_S

    async def _held(self, enterprise: str, job: str) -> SyncJob | None:
        async with self._db.tenant(enterprise) as connection:
            return await self._sync.jobs.held(connection, enterprise, job)

    async def _counted(self, connection: Connection, job: SyncJob) -> SyncJob:
        """Those of its deliveries that came to their end; one that is not there any more was kept long enough after its end. One whose record's next try is far
        off counts as failed: it is an open error, and a long sync does not wait an hour for it."""
        if not (keys := _open(job)):
            return job
        rows = await connection.fetch(
            """select d.key, case when d.state = 'waiting' and exists (
                   select from deliveries head where head.enterprise_number = $1 and head.integration = $2 and head.lane = d.lane and head.id <= d.id
                   and head.state = 'waiting' and head.attempts > 0 and head.due_at > now() + make_interval(secs => $4)) then 'later' else d.state end as state
                 from deliveries d where d.enterprise_number = $1 and d.integration = $2 and d.key = any ($3)""",
            job.enterprise, BITRIX24, keys, FAR_OFF_S,
        )  # fmt: skip
        states = {row["key"]: row["state"] for row in rows}
        ended = [key for key in keys if states.get(key) not in ("waiting", "sending")]
        if not ended:
            return job
        done, gone = sum(states.get(key, "delivered") in ("delivered", "observed") for key in ended), set(ended)
        still = [key for key in keys if key not in gone]
        return replace(job, cursor={**job.cursor, "open": still}, done=job.done + done, failed=job.failed + len(ended) - done)

    async def _planned(self, connection: Connection, job: SyncJob, page: _Page) -> SyncJob:
        records = page.records
        if job.direction == "from" and page.ids:
            records = await self._sync.lanes(connection, job.enterprise, page.entity_type, page.ids)
        # Two entities may lead into one lane only if both are the same record's; each lane is planned once.
        await plan(connection, job.enterprise, records, "push" if job.direction == "to" else "pull", job=job.id)
        keys = [job_key(job.id, record) for record in dict.fromkeys(records)]
        total = page.total if job.total is None else job.total
        open_keys = list(dict.fromkeys([*_open(job), *keys]))
        cursor = {"place": page.place, "after": page.after, "open": open_keys}
        return replace(job, cursor=cursor, total=max(total or 0, job.done + job.failed + len(open_keys)))

    async def _over(self, job: SyncJob, error: str, kind: str | None = None) -> None:
        async with self._db.tenant(job.enterprise) as connection:
            if await self._sync.jobs.held(connection, job.enterprise, job.id) is not None:
                await self._sync.jobs.advance(connection, replace(job, state="failed", error=error))
                if kind is not None:
                    failure = Failure(f"job/{job.id}", f"sync_{job.direction}", kind, error, MAX_FAILED_PAGES, None)
                    await self._sync.errors.note(connection, job.enterprise, failure)
        log.warning("sync failed", enterprise=job.enterprise, integration=BITRIX24, operation=f"sync_{job.direction}", error=error)

    # -- pages ---------------------------------------------------------------------------------------------------------------------

    async def _page(self, job: SyncJob) -> _Page | Outcome:
        return await self._page_to(job) if job.direction == "to" else await self._page_from(job)

    async def _page_to(self, job: SyncJob) -> _Page:
        """Records by id, ascending."""
        place, after, filters = job.cursor.get("place", 0), job.cursor.get("after", 0), job.filters
        async with self._db.tenant(job.enterprise) as connection:
            total = None
            if job.total is None:
                total = sum([await connection.fetchval(_select("count(*)", kind), job.enterprise, 0, *_wanted(filters)) for kind in _kinds(job)])
            kinds = _kinds(job)
            if place >= len(kinds):
                return _Page(place, 0, total=total)
            rows = await connection.fetch(f"{_select('id', kinds[place])} order by id limit {PAGE}", job.enterprise, after, *_wanted(filters))
        records = [lane(kinds[place], row["id"]) for row in rows]
        if len(records) < PAGE:
            return _Page(place + 1, 0, records, total=total)
        return _Page(place, rows[-1]["id"], records, total=total)

    async def _page_from(self, job: SyncJob) -> _Page | Outcome:
        """Entities by ID, ascending."""
        place, after = job.cursor.get("place", 0), job.cursor.get("after", 0)
        types = list(dict.fromkeys(ENTITY[kind] for kind in _kinds(job)))
        try:
            _, _, connect = self._crm.reach(job.enterprise, BITRIX24)
        except VochidError as error:
            return Throttled(str(error), POLL_S)
        total = None
        if job.total is None:
            counts = await count(connect(ASK_DEADLINE_S), types, job.filters)
            if not isinstance(counts, Mapping):
                return counts
            total = sum(counts.values())
        if place >= len(types):
            return _Page(place, 0, total=total)
        found = await page_of_ids(connect(ASK_DEADLINE_S), types[place], after, job.filters)
        if not isinstance(found, IdPage):
            return found
        following = (place + 1, 0) if found.is_last else (place, found.after)
        return _Page(*following, ids=list(found.ids), entity_type=types[place], total=total)


@dataclass(frozen=True, slots=True)
class _Page:
    """What is planned next: records, or entities by their ids; `place` and `after`: where the page behind it begins; `total`: where it was counted."""

    place: int
    after: int
    records: list[Record] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    entity_type: str = ""
    total: int | None = None


def _open(job: SyncJob) -> list[str]:
    """Keys of what it planned and has not counted yet."""
    return list(job.cursor.get("open", ()))


def _at(job: SyncJob) -> int | None:
    """Which of its types it is at; None when all were gone through."""
    place = int(job.cursor.get("place", 0))
    kinds = _kinds(job)
    return place if place < (len(kinds) if job.direction == "to" else len({ENTITY[kind] for kind in kinds})) else None


def _kinds(job: SyncJob) -> list[RecordType]:
    wanted = set(job.filters.get("types") or map(str, ORDER))
    return [kind for kind in ORDER if str(kind) in wanted]


def _select(what: str, kind: RecordType) -> str:
    return (
        f"select {what} from {kind.table} where enterprise_number = $1 and id > $2 and ($3::bigint[] is null or id = any ($3)) "
        "and ($4::timestamptz is null or updated_at >= $4)"
    )


def _wanted(filters: Mapping[str, Any]) -> tuple[list[int] | None, datetime | None]:
    since = filters.get("updated_since")
    return (list(filters["ids"]) if filters.get("ids") else None), (datetime.fromisoformat(since) if since else None)


def open_bitrix24_sync(
    db: Database, tenants: Tenants, crm: Crm, records: CrmRecordRepository, dispatcher: Dispatcher, owner: str
) -> tuple[Bitrix24Sync, Bitrix24Jobs]:
    """The sync and the runner of its jobs; `crm` and `records` are told of it."""
    sync = Bitrix24Sync(db, tenants, records, owner, dispatcher.wake)
    crm.syncs[BITRIX24] = sync.room
    return sync, Bitrix24Jobs(db, crm, sync, dispatcher.wake)
