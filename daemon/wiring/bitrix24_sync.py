"""Bitrix24's two-way sync over records, mappings, outbox and jobs: what changed here goes out, what changed there comes in."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from adapters.bitrix24.config import Bitrix24Settings
from adapters.bitrix24.sync_comments import Wording
from adapters.bitrix24.sync_fields import ENTITY
from adapters.bitrix24.sync_room import TASK
from daemon.errors import NotFound, VochidError
from daemon.model.call import iso
from daemon.model.crm_record import CrmRecord, RecordChange, RecordType
from daemon.model.delivery import Record
from daemon.store.crm_records import CrmRecordRepository
from daemon.store.integration_errors import IntegrationErrors
from daemon.store.mappings import SyncMappings
from daemon.store.pool import Connection, Database
from daemon.store.sync_jobs import SyncJob, SyncJobs
from daemon.tenants.service import Tenants
from daemon.wiring.bitrix24_plan import BITRIX24, entity_lane, lane, plan
from daemon.wiring.bitrix24_room import Room, objects_of

SERVICE_NAME = "Битрикс24"  # as the predecessor's answers named it


class Bitrix24Sync:
    """`wake` tells the dispatcher that something was committed; `wake_jobs` is set by the runner of jobs, `told` by the composition root: it hears of records
    that a sync has written, as they were and as they are."""

    def __init__(self, db: Database, tenants: Tenants, records: CrmRecordRepository, owner: str, wake: Callable[[str, str], None]) -> None:
        self._db = db
        self._tenants = tenants
        self._records = records
        self._wake = wake
        self.wake_jobs: Callable[[], None] = lambda: None
        self.told: Callable[[str, Sequence[CrmRecord]], None] = lambda *_: None
        self.mappings = SyncMappings(db)
        self.errors = IntegrationErrors(db, BITRIX24)
        self.jobs = SyncJobs(db, owner, BITRIX24)
        records.follower = self.follow

    def settings(self, enterprise: str) -> Bitrix24Settings | None:
        """The settings of a sync that is at work."""
        tenancy = self._tenants.get(enterprise)
        settings = tenancy.integrations.get(BITRIX24) if tenancy is not None and not tenancy.enterprise.paused else None
        return settings if isinstance(settings, Bitrix24Settings) and settings.enabled else None

    def room(self, enterprise: str) -> Room:
        """Our side of one attempt."""
        tenancy = self._tenants.get(enterprise)
        if tenancy is None:
            raise NotFound(f"there is no enterprise {enterprise}")
        one, settings = tenancy.enterprise, self.settings(enterprise)
        wording = Wording.RU if settings is None or settings.is_russian else Wording.EN
        return Room(self._db, self._records, self.mappings, self.errors, enterprise, one.timezone, one.country, wording, partial(self.told, enterprise))

    # -- what changed --------------------------------------------------------------------------------------------------------------

    async def follow(self, connection: Connection, enterprise: str, change: RecordChange) -> None:
        """A record changed here: it is put into the outbox in the same transaction. What the sync itself wrote only concerns others."""
        if change.after is None:
            await self.mappings.mark_deleted(connection, enterprise, change.type, change.id, "local")
        if self.settings(enterprise) is None:
            return
        records = await self._concerned(connection, enterprise, change)
        if change.after is not None and change.by != BITRIX24 and (change.before is None or change.fields):
            records = [lane(change.type, change.id), *records]
        await plan(connection, enterprise, records, "push")

    async def _concerned(self, connection: Connection, enterprise: str, change: RecordChange) -> list[Record]:
        """Whose entities show something of the changed record: a contract's number and company are in its objects' deals."""
        if change.type is RecordType.CONTRACT and change.before is not None:
            if change.after is None:
                return await self._agreed_on(connection, enterprise, "contract", change.before.fields["number"])
            return await objects_of(connection, enterprise, [change.id]) if {"number", "company_id"} & set(change.fields) else []
        if change.type is RecordType.COMPANY and change.after is None:
            known = await self.mappings.of_records(connection, enterprise, [(RecordType.COMPANY, change.id)])
            company = next((str(one.bitrix24_id) for one in known.values()), None)
            return await self._agreed_on(connection, enterprise, "company", company) if company is not None else []
        return []

    @staticmethod
    async def _agreed_on(connection: Connection, enterprise: str, name: str, value: str) -> list[Record]:
        rows = await connection.fetch(
            "select local_type, local_id from bitrix24_sync_mappings where tenant_id = $1 and agreed ->> $2 = $3", enterprise, name, value
        )
        return [lane(RecordType(row["local_type"]), row["local_id"]) for row in rows]

    async def heard(self, enterprise: str, entity_type: str, entity_id: int) -> bool:
        """An entity, or a task, changed there. False: the sync is switched off."""
        if self.settings(enterprise) is None or entity_type not in (*ENTITY.values(), TASK):
            return False
        async with self._db.tenant(enterprise) as connection:
            lanes = [entity_lane(TASK, entity_id)] if entity_type == TASK else await self.lanes(connection, enterprise, entity_type, [entity_id])
            await plan(connection, enterprise, lanes, "pull")
        self._wake(enterprise, BITRIX24)
        return True

    async def lanes(self, connection: Connection, enterprise: str, entity_type: str, ids: Sequence[int]) -> list[Record]:
        """The lanes of entities: of their records, where they have one."""
        known = await self.mappings.of_entities(connection, enterprise, entity_type, ids)
        return [lane(known[one].local_type, known[one].local_id) if one in known else entity_lane(entity_type, one) for one in ids]

    # -- what people ask for -------------------------------------------------------------------------------------------------------

    async def start(self, enterprise: str, direction: str, filters: Mapping[str, Any]) -> str:
        """Starts a sync of everything that `filters` name; gives the job's id. Raises VochidError (wrong_state) when it is off or one runs."""
        if self.settings(enterprise) is None:
            raise VochidError("bitrix24 is not set up, or switched off, for this enterprise", code="wrong_state")
        job = await self.jobs.start(enterprise, direction, filters)
        self.wake_jobs()
        return job

    async def job(self, enterprise: str, job: str) -> SyncJob:
        """Raises NotFound."""
        return await self.jobs.get(enterprise, job)

    async def retry(self, enterprise: str, error_id: int) -> None:
        """Tries what failed again, at once. Raises NotFound for an error that is not open."""
        async with self._db.tenant(enterprise) as connection:
            record = await self.errors.record_of(connection, enterprise, error_id)
            await connection.execute(
                "update deliveries set state = 'waiting', due_at = now(), finished_at = null, attempts = 0 "
                "where enterprise_number = $1 and integration = $2 and record = $3 and kind = 'sync' and state in ('waiting', 'dead')",
                enterprise, BITRIX24, record,
            )  # fmt: skip
            await plan(connection, enterprise, [Record.parse(record)], "push")
        self._wake(enterprise, BITRIX24)

    async def stats(self, enterprise: str) -> dict[str, Any]:
        """In the predecessor's words."""
        errors = await self.errors.stats(enterprise)
        return {
            "mappings": await self.mappings.stats(enterprise), "errors_count": errors["total"], "service_name": SERVICE_NAME, "generated_at": iso(time.time()),
        }  # fmt: skip

    async def waiting(self, enterprise: str) -> dict[str, int]:
        """Records in the outbox by state: waiting, sending, dead."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select state, count(*) from deliveries where enterprise_number = $1 and integration = $2 and kind = 'sync' "
                "and state in ('waiting', 'sending', 'dead') group by 1",
                enterprise, BITRIX24,
            )  # fmt: skip
        return {"waiting": 0, "sending": 0, "dead": 0} | {row["state"]: row["count"] for row in rows}
