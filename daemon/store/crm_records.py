"""An enterprise's own records in PostgreSQL. Every change says who made it, field by field, and is told to who follows records, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from daemon.errors import NotFound, VochidError
from daemon.model.crm_record import DATES, FIELDS, LOCAL, REFERENCES, CrmRecord, Fields, RecordChange, RecordType
from daemon.store.pool import Connection, Database

# Called inside the transaction that changes a record, with its connection: what is planned of the change is stored with it or not at all.
Follower = Callable[[Connection, str, RecordChange], Awaitable[None]]
MAX_POINTING = 1_000  # records that lose what they point at in one transaction


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """What is asked for; None: anything. `search` looks into the texts; `company_id` finds contracts and the objects under them, `contract_id` objects."""

    search: str | None = None
    phone: str | None = None
    company_id: int | None = None
    contract_id: int | None = None
    ids: Sequence[int] | None = None
    updated_since: float | None = None


class CrmRecordRepository:
    """Reads records, and changes them inside the caller's transaction (`Database.tenant`)."""

    def __init__(self, db: Database, follower: Follower | None = None) -> None:
        self._db = db
        self.follower = follower  # set by the composition root

    async def get(self, enterprise: str, kind: RecordType, record_id: int) -> CrmRecord:
        """One record. Raises NotFound."""
        async with self._db.tenant(enterprise) as connection:
            return await self.locked(connection, enterprise, kind, record_id, lock="")

    async def page(self, enterprise: str, kind: RecordType, asked: RecordFilter, *, before: int | None = None, limit: int = 100) -> list[CrmRecord]:
        """Records, the newest first, those with a smaller id than `before`."""
        where, arguments = ["enterprise_number = $1"], [enterprise]

        def add(condition: str, value: Any) -> None:
            arguments.append(value)
            where.append(condition.format(f"${len(arguments)}"))

        if before is not None:
            add("id < {}", before)
        if asked.search:
            texts = [name for name in FIELDS[kind] if name not in DATES and name not in REFERENCES]
            add("(" + " or ".join(f"strpos(folded({name}), folded({{0}})) > 0" for name in texts) + ")", asked.search)
        if kind is RecordType.OBJECT and asked.company_id is not None:
            add("contract_id in (select c.id from crm_contracts c where c.enterprise_number = $1 and c.company_id = {})", asked.company_id)
        for name in ("phone", "company_id", "contract_id"):
            if (value := getattr(asked, name)) is not None and name in FIELDS[kind]:
                add(f"{name} = {{}}", value)
        if asked.ids is not None:
            add("id = any ({}::bigint[])", list(asked.ids))
        if asked.updated_since is not None:
            add("updated_at >= to_timestamp({}::double precision)", asked.updated_since)
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(f"select * from {kind.table} where {' and '.join(where)} order by id desc limit {int(limit)}", *arguments)
        return [_record(kind, row) for row in rows]

    async def locked(self, connection: Connection, enterprise: str, kind: RecordType, record_id: int, *, lock: str = "for update") -> CrmRecord:
        """One record, held until the transaction ends. Raises NotFound."""
        row = await connection.fetchrow(f"select * from {kind.table} where enterprise_number = $1 and id = $2 {lock}", enterprise, record_id)
        if row is None:
            raise NotFound(f"there is no {kind} {record_id}")
        return _record(kind, row)

    async def of_key(self, connection: Connection, enterprise: str, kind: RecordType, key: str) -> CrmRecord | None:
        """The record made with this idempotency key; None when there is none, and nobody else makes it until the transaction ends."""
        await connection.execute("select pg_advisory_xact_lock(hashtextextended('record ' || $1 || ' ' || $2, 0))", enterprise, key)
        row = await connection.fetchrow(f"select * from {kind.table} where enterprise_number = $1 and idempotency_key = $2", enterprise, key)
        return _record(kind, row) if row is not None else None

    async def make(
        self, connection: Connection, enterprise: str, kind: RecordType, fields: Fields, by: str, at: float | None = None, key: str | None = None
    ) -> CrmRecord:
        """Stores a new record. `at`: Unix seconds of the change, now when None. `key`: as for `of_key`. Raises asyncpg's UniqueViolationError and
        ForeignKeyViolationError."""
        known = {name: fields.get(name) for name in FIELDS[kind]}
        changes = {name: {"at": at or time.time(), "by": by} for name, value in known.items() if value is not None}
        columns = [*known, "changes", "idempotency_key"]
        row = await connection.fetchrow(
            f"insert into {kind.table} (enterprise_number, {', '.join(columns)}) values ($1, {_places(2, len(columns))}) returning *",
            enterprise, *(_sql(name, value) for name, value in known.items()), changes, key,
        )  # fmt: skip
        made = _record(kind, row)
        await self._follow(connection, enterprise, RecordChange(kind, made.id, None, made, by))
        return made

    async def change(self, connection: Connection, enterprise: str, before: CrmRecord, fields: Fields, by: str, at: float | None = None) -> CrmRecord:
        """Writes those of `fields` that differ from `before`, which the caller has `locked`; the record as it was when none does."""
        new = {name: value for name, value in fields.items() if name in FIELDS[before.type] and value != before.fields[name]}
        if not new:
            return before
        changes = {**before.changes, **{name: {"at": at or time.time(), "by": by} for name in new}}
        columns = [*new, "changes"]
        row = await connection.fetchrow(
            f"update {before.type.table} set {', '.join(f'{name} = ${n}' for n, name in enumerate(columns, 3))}, updated_at = now() "
            "where enterprise_number = $1 and id = $2 returning *",
            enterprise, before.id, *(_sql(name, value) for name, value in new.items()), changes,
        )  # fmt: skip
        after = _record(before.type, row)
        await self._follow(connection, enterprise, RecordChange(before.type, before.id, before, after, by))
        return after

    async def delete(self, connection: Connection, enterprise: str, before: CrmRecord, by: str) -> None:
        """Takes a record away. What points at it points at nothing then, which is a change of its own: by `by`, told to followers.

        Raises VochidError when more than MAX_POINTING do.
        """
        for name, kind in ((name, kind) for name, target in REFERENCES.items() if target is before.type for kind in RecordType if name in FIELDS[kind]):
            pointing = f"select * from {kind.table} where enterprise_number = $1 and {name} = $2 order by id limit {MAX_POINTING + 1} for update"
            rows = await connection.fetch(pointing, enterprise, before.id)
            if len(rows) > MAX_POINTING:
                raise VochidError(f"more than {MAX_POINTING} records point at this one: change them first", code="wrong_state")
            for row in rows:
                await self.change(connection, enterprise, _record(kind, row), {name: None}, by)
        await connection.execute(f"delete from {before.type.table} where enterprise_number = $1 and id = $2", enterprise, before.id)
        await self._follow(connection, enterprise, RecordChange(before.type, before.id, before, None, by))

    # -- one person's number -----------------------------------------------------------------------------------------------------

    async def with_phone(self, connection: Connection, enterprise: str, phones: Sequence[str]) -> list[CrmRecord]:
        """Users and companies that have one of these numbers, held until the transaction ends."""
        found: list[CrmRecord] = []
        for kind in (RecordType.USER, RecordType.COMPANY):
            rows = await connection.fetch(
                f"select * from {kind.table} where enterprise_number = $1 and phone = any ($2) order by id for update", enterprise, list(phones)
            )
            found += [_record(kind, row) for row in rows]
        return found

    async def erase_phone(self, connection: Connection, enterprise: str, phones: Sequence[str], by: str = LOCAL) -> list[CrmRecord]:
        """Forgets a person by their number, however it is written, inside the caller's transaction; gives the records as they were.

        A user with it is deleted, for name, e-mail and role are the same person's; a company keeps its name and loses the number. Followers hear
        of both as of any change. What was last agreed with Bitrix24, lost in a conflict, or failed about it is forgotten too, and a user is not
        made again from what the portal still has.
        """
        erased = await self.with_phone(connection, enterprise, phones)
        for record in erased:
            if record.type is RecordType.USER:
                await self.delete(connection, enterprise, record, by)
            else:
                await self.change(connection, enterprise, record, {"phone": None}, by)
            is_whole = record.type is RecordType.USER
            await connection.execute(
                "update bitrix24_sync_mappings set agreed = case when $4 then '{}' else agreed - 'phone' end, "
                "deleted = case when $4 then coalesce(deleted, 'local') else deleted end, "
                "conflicts = case when $4 then '[]' else jsonb_path_query_array(conflicts, '$[*] ? (@.field != \"phone\")') end "
                "where tenant_id = $1 and local_type = $2 and local_id = $3",
                enterprise, str(record.type), record.id, is_whole,
            )  # fmt: skip
            await connection.execute(
                "delete from integration_errors where enterprise_number = $1 and local_type = $2 and local_id = $3", enterprise, str(record.type), record.id
            )
        return erased

    async def _follow(self, connection: Connection, enterprise: str, change: RecordChange) -> None:
        if self.follower is not None:
            await self.follower(connection, enterprise, change)


def _places(first: int, count: int) -> str:
    return ", ".join(f"${n}" for n in range(first, first + count))


def _sql(name: str, value: Any) -> Any:
    return date.fromisoformat(value) if name in DATES and value is not None else value


def _record(kind: RecordType, row: Any) -> CrmRecord:
    fields = {name: row[name].isoformat() if name in DATES and row[name] is not None else row[name] for name in FIELDS[kind]}
    return CrmRecord(kind, row["id"], fields, row["changes"], row["created_at"].timestamp(), row["updated_at"].timestamp())
