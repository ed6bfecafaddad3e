"""Objects, contracts, users and companies at work: each change is checked, stored in one transaction with what follows it, and told to who shows callers."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from daemon.errors import VochidError
from daemon.model.call import iso
from daemon.model.crm_record import FIELDS, LOCAL, REFERENCES, CrmRecord, RecordType
from daemon.records.checks import checked, checked_key
from daemon.store.crm_records import CrmRecordRepository, RecordFilter
from daemon.store.pool import Connection, Database
from daemon.store.record_links import RecordLinks

CONTRACT_NUMBERS = "crm_contracts_enterprise_number_number_key"


class Records:
    """All enterprises' records. `country` gives an enterprise's, ISO 3166; `changed` is called with the enterprise and the phones that a change touched."""

    def __init__(self, db: Database, repository: CrmRecordRepository, country: Callable[[str], str], changed: Callable[[str, Sequence[str]], None]) -> None:
        self._db = db
        self._country = country
        self._changed = changed
        self.repository = repository
        self.links = RecordLinks(db)

    async def page(self, enterprise: str, kind: RecordType, asked: RecordFilter, *, before: int | None, limit: int) -> tuple[list[CrmRecord], int | None]:
        """Records, the newest first, those with a smaller id than `before`; and the `before` of the next page, None at the end."""
        found = await self.repository.page(enterprise, kind, asked, before=before, limit=limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def get(self, enterprise: str, kind: RecordType, record_id: int) -> CrmRecord:
        """One record. Raises NotFound."""
        return await self.repository.get(enterprise, kind, record_id)

    async def create(self, enterprise: str, kind: RecordType, sent: Any, key: Any = None) -> tuple[CrmRecord, bool]:
        """A new record of what was sent, and whether it is new: the same idempotency key again gives the record as it is now.

        Raises VochidError with the `field` at fault; code `taken` for a contract's number that is there already.
        """
        fields, known = checked(kind, sent, self._country(enterprise)), checked_key(key)
        async with self._changing(enterprise, kind) as connection:
            if known is not None and (made := await self.repository.of_key(connection, enterprise, kind, known)) is not None:
                return made, False
            made = await self.repository.make(connection, enterprise, kind, fields, LOCAL, key=known)
        self.told(enterprise, made)
        return made, True

    async def change(self, enterprise: str, kind: RecordType, record_id: int, sent: Any) -> tuple[CrmRecord, tuple[str, ...]]:
        """The record after the fields that were sent are written (null clears one), and the names of those that differ. Raises NotFound, VochidError."""
        async with self._changing(enterprise, kind) as connection:
            before = await self.repository.locked(connection, enterprise, kind, record_id)
            fields = checked(kind, sent, self._country(enterprise), before.fields)
            after = await self.repository.change(connection, enterprise, before, fields, LOCAL)
        self.told(enterprise, before, after)
        return after, tuple(name for name in FIELDS[kind] if before.fields[name] != after.fields[name])

    async def delete(self, enterprise: str, kind: RecordType, record_id: int) -> CrmRecord:
        """Takes a record away and gives it as it was; what pointed at it points at nothing. Raises NotFound, VochidError (`wrong_state`)."""
        async with self._changing(enterprise, kind) as connection:
            before = await self.repository.locked(connection, enterprise, kind, record_id)
            await self.repository.delete(connection, enterprise, before, LOCAL)
        self.told(enterprise, before)
        return before

    @asynccontextmanager
    async def _changing(self, enterprise: str, kind: RecordType) -> AsyncIterator[Connection]:
        """The transaction of one change; what the database refuses is said of the field."""
        try:
            async with self._db.tenant(enterprise) as connection:
                yield connection
        except asyncpg.ForeignKeyViolationError as error:
            if error.table_name != kind.table:
                raise
            name = next(name for name in REFERENCES if name in FIELDS[kind])
            raise VochidError(f"{name} names no {REFERENCES[name]} of this enterprise", code="bad_parameter", field=name) from None
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != CONTRACT_NUMBERS:
                raise
            raise VochidError("there is a contract with this number already", code="taken", field="number") from None

    def told(self, enterprise: str, *records: CrmRecord) -> None:
        """Who shows and looks up callers hears of a change that is stored: of the records as they were and as they are."""
        self.told_all(enterprise, records)

    def told_all(self, enterprise: str, records: Iterable[CrmRecord]) -> None:
        """As `told`, of several."""
        self._changed(enterprise, phones_of(records))


def phones_of(records: Iterable[CrmRecord]) -> list[str]:
    """The numbers by which callers find these records."""
    return sorted({record.fields["phone"] for record in records if record.fields.get("phone")})


def record_json(record: CrmRecord) -> dict[str, Any]:
    """A record as the contract has it, and when it was made and changed: never later than it was, so that a list `updated_since` has it again."""
    made, changed = (iso(math.floor(at * 1_000) / 1_000) for at in (record.created_at, record.updated_at))
    return {"id": record.id, **record.fields, "created_at": made, "updated_at": changed}
