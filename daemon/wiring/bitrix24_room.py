"""Our side of the Bitrix24 sync for one attempt: records, mappings and errors in PostgreSQL, as adapters/bitrix24/sync_room.py asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from adapters.bitrix24.sync_comments import Wording
from adapters.bitrix24.sync_fields import ENTITY, Surroundings
from adapters.bitrix24.sync_pairing import Signs, signs_of_record
from adapters.bitrix24.sync_room import TASK, Kept, Pair
from adapters.bitrix24.sync_rules import Known, error_type
from daemon.delivery.schedule import SYNC_DELAYS_S
from daemon.errors import NotFound
from daemon.model.crm_record import FIELDS, LOCAL, CrmRecord, RecordType
from daemon.model.delivery import AuthExpired, Delivered, Delivery, Outcome, Record, Rejected, Retry, Throttled
from daemon.store.crm_records import CrmRecordRepository, RecordFilter
from daemon.store.integration_errors import Failure, IntegrationErrors
from daemon.store.mappings import Key, SyncMapping, SyncMappings
from daemon.store.pool import Connection, Database
from daemon.wiring.bitrix24_plan import BITRIX24, ENTITY_LANE, entity_lane, lane, plan

LINKS: Mapping[str, str] = {"contract": "contract_id", "company": "company_id"}  # field of a view -> field of a record


@dataclass(slots=True)
class Room:
    """One enterprise's, with its zone, country and the language of the block. `told` hears of what was written into a record, as it was and as it is,
    once that is stored."""

    db: Database
    records: CrmRecordRepository
    mappings: SyncMappings
    errors: IntegrationErrors
    enterprise: str
    timezone: str
    country: str
    wording: Wording
    told: Callable[[Sequence[CrmRecord]], None] = lambda _: None
    _loaded: dict[Key, CrmRecord] = field(default_factory=dict)

    # -- loading -------------------------------------------------------------------------------------------------------------------

    async def load(self, batch: Sequence[Delivery]) -> Sequence[Pair]:
        """As SyncRoom says."""
        keys = [key for delivery in batch if (key := _key(delivery.record)) is not None]
        for kind in {kind for kind, _ in keys}:
            ids = [number for one, number in keys if one is kind]
            found = await self.records.page(self.enterprise, kind, RecordFilter(ids=ids), limit=len(ids))
            self._loaded |= {(kind, record.id): record for record in found}
        async with self.db.tenant(self.enterprise) as connection:
            mappings = await self.mappings.of_records(connection, self.enterprise, keys)
            links = await self._links(connection)
            entities: dict[tuple[str, int], SyncMapping] = {}
            for entity_type in set(ENTITY.values()):
                ids = [int(one.record.id) for one in batch if one.record.type == ENTITY_LANE + entity_type]
                known = await self.mappings.of_entities(connection, self.enterprise, entity_type, ids) if ids else {}
                entities |= {(entity_type, number): mapping for number, mapping in known.items()}
        return [self._pair(delivery, mappings, entities, links) for delivery in batch]

    def _pair(self, delivery: Delivery, mappings: Mapping[Key, SyncMapping], entities: Mapping[tuple[str, int], SyncMapping], links: _Links) -> Pair:
        record = delivery.record
        key = _key(record)
        if key is None:
            entity_type, number = record.type.removeprefix(ENTITY_LANE), int(record.id)
            if (entity_type, number) in entities:
                taken = entities[entity_type, number]
                return Pair(taken.local_type, taken.local_id, entity_type, number, None, self._around(0.0, 0.0), elsewhere=True)
            return Pair(None, None, entity_type, number, None, self._around(0.0, 0.0))
        kind, record_id = key
        twin = delivery.payload.get("twin")
        mapping, local = mappings.get(key), self._loaded.get(key)
        known = Known(mapping.agreed, mapping.shown, mapping.written, mapping.remote_changed_at) if mapping is not None else None
        entity_id = mapping.bitrix24_id if mapping is not None else None
        deleted = mapping is not None and mapping.deleted is not None
        if local is None:
            return Pair(kind, record_id, ENTITY[kind], entity_id, None, self._around(0.0, 0.0), known=known, deleted=deleted)
        ours = [change["at"] for change in local.changes.values() if change.get("by") == LOCAL]
        around = self._around(local.created_at, max(ours, default=local.created_at))
        changed = {name: float(local.changes[of]["at"]) for name, of in _names(kind).items() if of in local.changes}
        return Pair(
            kind, record_id, ENTITY[kind], entity_id, _view(local, links), around, changed, known, deleted,
            twin=twin if isinstance(twin, int) else None, tasks=mapping.tasks if mapping is not None else (),
        )  # fmt: skip

    def _around(self, created_at: float, updated_at: float) -> Surroundings:
        return Surroundings(created_at, updated_at, self.timezone, self.country, self.wording)

    async def _links(self, connection: Connection) -> _Links:
        """Contracts that objects name, and the portal's companies of those and of contracts."""
        contracts = {record.fields["contract_id"] for (kind, _), record in self._loaded.items() if kind is RecordType.OBJECT}
        rows = await connection.fetch(
            "select id, number, company_id from crm_contracts where enterprise_number = $1 and id = any ($2::bigint[])",
            self.enterprise, [one for one in contracts if one is not None],
        )  # fmt: skip
        numbers = {row["id"]: (row["number"], row["company_id"]) for row in rows}
        companies = {record.fields["company_id"] for (kind, _), record in self._loaded.items() if kind is RecordType.CONTRACT}
        wanted = [(RecordType.COMPANY, one) for one in companies | {company for _, company in numbers.values()} if one is not None]
        known = await self.mappings.of_records(connection, self.enterprise, wanted)
        return _Links(numbers, {number: str(one.bitrix24_id) for (_, number), one in known.items() if one.deleted is None})

    async def contracts(self, numbers: Sequence[str]) -> frozenset[str]:
        """As SyncRoom says."""
        async with self.db.tenant(self.enterprise) as connection:
            rows = await connection.fetch("select number from crm_contracts where enterprise_number = $1 and number = any ($2)", self.enterprise, list(numbers))
        return frozenset(row["number"] for row in rows)

    async def unpaired(self, kind: RecordType, phones: Sequence[str], titles: Sequence[str]) -> Mapping[int, Signs]:
        """As SyncRoom says."""
        async with self.db.tenant(self.enterprise) as connection:
            found = await self.mappings.unpaired(connection, self.enterprise, kind, phones, titles)
        return {number: signs_of_record(kind, {"name": name, "phone": phone}) for number, name, phone in found}

    async def taken(self, entity_type: str, ids: Sequence[int]) -> frozenset[int]:
        """As SyncRoom says."""
        async with self.db.tenant(self.enterprise) as connection:
            return frozenset(await self.mappings.of_entities(connection, self.enterprise, entity_type, ids))

    # -- keeping -------------------------------------------------------------------------------------------------------------------

    async def keep(self, batch: Sequence[Delivery], kept: Sequence[Kept]) -> Sequence[Outcome]:
        """As SyncRoom says. What was found as it was left, together; all else each in a transaction of its own: none waits for another's row while it
        holds one."""
        still = [(delivery, one) for delivery, one in zip(batch, kept, strict=True) if _is_still(delivery, one)]
        if still:
            async with self.db.tenant(self.enterprise) as connection:
                await self.mappings.touch(connection, self.enterprise, [key for delivery, _ in still if (key := _key(delivery.record)) is not None])
                await self.errors.resolve(connection, self.enterprise, [str(delivery.record) for delivery, _ in still])
        return [one.outcome if _is_still(delivery, one) else await self._keep(delivery, one) for delivery, one in zip(batch, kept, strict=True)]

    async def _keep(self, delivery: Delivery, kept: Kept) -> Outcome:
        outcome = kept.outcome
        if isinstance(outcome, Delivered):
            try:
                async with self.db.tenant(self.enterprise) as connection:
                    written = await self._store(connection, delivery, kept)
                    await self.errors.resolve(connection, self.enterprise, [str(delivery.record)])
                if written:
                    self.told(written)
                return outcome
            except asyncpg.UniqueViolationError as error:
                is_number = "crm_contracts" in (error.constraint_name or "")
                outcome = Rejected("another contract has this number") if is_number else Retry("the entity became another record's meanwhile", after_s=0)
            except asyncpg.ForeignKeyViolationError:
                outcome = Retry("what it points at was deleted meanwhile", after_s=0)
            except NotFound:
                return Delivered("the record was deleted meanwhile")
        async with self.db.tenant(self.enterprise) as connection:
            await self.errors.note(connection, self.enterprise, _failure(delivery, kept.pair, outcome))
        return outcome

    async def _store(self, connection: Connection, delivery: Delivery, kept: Kept) -> list[CrmRecord]:
        """Gives the record that was written, as it was and as it is."""
        pair, enterprise = kept.pair, self.enterprise
        if pair.entity_type == TASK:
            await self._store_task(connection, pair, kept.deals)
        elif kept.gone:
            if pair.kind is not None and pair.record_id is not None:
                await self.mappings.mark_deleted(connection, enterprise, pair.kind, pair.record_id, "remote")
        elif kept.instead is not None:
            await self._hand_over(connection, kept, *kept.instead)
        elif kept.twin is not None:
            await plan(connection, enterprise, [lane(*kept.twin)], "pull", twin=kept.entity_id)
        elif pair.kind is not None and pair.record_id is not None and pair.local is None:
            if pair.elsewhere:
                await plan(connection, enterprise, [lane(pair.kind, pair.record_id)], "pull")
            elif not pair.deleted:
                await self.mappings.mark_deleted(connection, enterprise, pair.kind, pair.record_id, "local")
        elif kept.known is not None:
            return await self._store_pair(connection, delivery, kept)
        return []

    async def _store_task(self, connection: Connection, pair: Pair, deals: Sequence[int]) -> None:
        """A task was made, changed or deleted: the deals that it is about, and those that it was about, are looked at again, where they are synced."""
        assert pair.entity_id is not None
        had = await self.mappings.with_task(connection, self.enterprise, pair.entity_id)
        now = await self.mappings.of_entities(connection, self.enterprise, "deal", deals)
        synced = [lane(one.local_type, one.local_id) for one in [*had, *now.values()] if one.deleted is None]
        await plan(connection, self.enterprise, list(dict.fromkeys(synced)), "pull")

    async def _hand_over(self, connection: Connection, kept: Kept, kind: RecordType, record_id: int) -> None:
        """An entity that was made from here: its record's lane goes on with it; one whose record is gone is not made anew."""
        assert kept.entity_id is not None
        there = await connection.fetchval(f"select true from {kind.table} where enterprise_number = $1 and id = $2", self.enterprise, record_id)
        if there:
            await plan(connection, self.enterprise, [lane(kind, record_id)], "pull")
            return
        mapping = SyncMapping(kind, record_id, ENTITY[kind], kept.entity_id)
        if (kind, record_id) not in await self.mappings.of_records(connection, self.enterprise, [(kind, record_id)]):
            await self.mappings.put(connection, self.enterprise, mapping, direction="to")
        await self.mappings.mark_deleted(connection, self.enterprise, kind, record_id, "local")

    async def _store_pair(self, connection: Connection, delivery: Delivery, kept: Kept) -> list[CrmRecord]:
        pair, kind = kept.pair, kept.kind
        assert kind is not None
        assert kept.known is not None
        assert kept.entity_id is not None
        fields, missing = await self._fields(connection, kind, kept.apply)
        agreed = {name: value for name, value in kept.known.agreed.items() if name not in missing}
        if pair.record_id is None:
            record = await self.records.make(connection, self.enterprise, kind, fields, BITRIX24, kept.changed_at)
            written = [record]
        else:
            record = await self.records.locked(connection, self.enterprise, kind, pair.record_id)
            before = self._loaded[kind, pair.record_id]
            still = {name: value for name, value in fields.items() if record.fields[name] == before.fields[name]}
            skipped = {name for name in kept.apply if _names(kind).get(name) in fields.keys() - still.keys()}
            base = pair.known.agreed if pair.known is not None else {}
            agreed = {name: base[name] if name in skipped else value for name, value in agreed.items() if name not in skipped or name in base}
            after = await self.records.change(connection, self.enterprise, record, still, BITRIX24, kept.changed_at)
            written = [record, after] if after is not record else []
        direction = "to" if kept.to_portal else "from" if kept.apply else None
        mapping = SyncMapping(kind, record.id, pair.entity_type, kept.entity_id, agreed, kept.known.shown, kept.known.written, kept.known.changed_at)
        conflicts = [{**one, "at": kept.changed_at} for one in kept.conflicts]
        is_new = await self.mappings.put(connection, self.enterprise, mapping, direction=direction, conflicts=conflicts, tasks=kept.tasks)
        await self._follow_up(connection, delivery, kind, record.id, kept.apply, missing, is_new=is_new)
        return written

    async def _fields(self, connection: Connection, kind: RecordType, view: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
        """A record's fields of a view's, and the links whose other end is not here."""
        fields: dict[str, Any] = {}
        missing: set[str] = set()
        for name, value in view.items():
            of = _names(kind).get(name)
            if of is None:
                continue
            if name not in LINKS or value is None:
                fields[of] = value
            elif (found := await self._linked(connection, name, value)) is not None:
                fields[of] = found
            else:
                missing.add(name)
        return fields, missing

    async def _linked(self, connection: Connection, name: str, value: str) -> int | None:
        if name == "contract":
            found = await connection.fetchval("select id from crm_contracts where enterprise_number = $1 and number = $2", self.enterprise, value)
            return int(found) if found is not None else None
        known = await self.mappings.of_entities(connection, self.enterprise, "company", [int(value)])
        one = known.get(int(value))
        return one.local_id if one is not None and one.deleted is None else None

    async def _follow_up(
        self, connection: Connection, delivery: Delivery, kind: RecordType, record_id: int, view: Mapping[str, Any], missing: set[str], *, is_new: bool
    ) -> None:
        """A company that is not here yet is fetched, and then this record again; one that is at the portal now is told to its contracts' deals."""
        if "company" in missing:
            await plan(connection, self.enterprise, [entity_lane("company", int(view["company"]))], "pull", then=[str(lane(kind, record_id))])
        if then := delivery.payload.get("then"):
            await plan(connection, self.enterprise, [Record.parse(str(one)) for one in then], "pull")
        if is_new and kind is RecordType.COMPANY:
            rows = await connection.fetch("select id from crm_contracts where enterprise_number = $1 and company_id = $2", self.enterprise, record_id)
            contracts = [row["id"] for row in rows]
            objects = await objects_of(connection, self.enterprise, contracts)
            await plan(connection, self.enterprise, [*(lane(RecordType.CONTRACT, one) for one in contracts), *objects], "push")


async def objects_of(connection: Connection, enterprise: str, contracts: Sequence[int]) -> list[Record]:
    """The lanes of these contracts' objects."""
    rows = await connection.fetch("select id from crm_objects where enterprise_number = $1 and contract_id = any ($2::bigint[])", enterprise, list(contracts))
    return [lane(RecordType.OBJECT, row["id"]) for row in rows]


@dataclass(frozen=True, slots=True)
class _Links:
    """`contracts`: id -> its number and company; `companies`: id -> the portal's."""

    contracts: Mapping[int, tuple[str, int | None]]
    companies: Mapping[int, str]


def _names(kind: RecordType) -> dict[str, str]:
    """Field of a view -> field of the record."""
    links = {of: name for name, of in LINKS.items()}
    return {links.get(of, of): of for of in FIELDS[kind]}


def _view(record: CrmRecord, links: _Links) -> dict[str, Any]:
    """A record as the adapter sees it. A company that is not at the portal is not in it."""
    view = {name: record.fields[of] for name, of in _names(record.type).items() if name not in LINKS}
    company: int | None = None
    if record.type is RecordType.OBJECT:
        number, company = links.contracts.get(record.fields["contract_id"], (None, None)) if record.fields["contract_id"] is not None else (None, None)
        view["contract"] = number
    elif record.type is RecordType.CONTRACT:
        company = record.fields["company_id"]
    if record.type in (RecordType.OBJECT, RecordType.CONTRACT) and (company is None or company in links.companies):
        view["company"] = links.companies[company] if company is not None else None
    return view


def _key(record: Record) -> Key | None:
    """None: it is an entity's lane."""
    return None if record.type.startswith(ENTITY_LANE) else (RecordType(record.type), int(record.id))


def _is_still(delivery: Delivery, kept: Kept) -> bool:
    return isinstance(kept.outcome, Delivered) and kept.is_still and not delivery.payload.get("then")


def _failure(delivery: Delivery, pair: Pair, outcome: Outcome) -> Failure:
    is_over = isinstance(outcome, Rejected) or delivery.attempt > len(SYNC_DELAYS_S)
    next_in_s: float | None = None if is_over else SYNC_DELAYS_S[delivery.attempt - 1]
    if isinstance(outcome, Throttled):
        next_in_s = outcome.after_s
    if isinstance(outcome, AuthExpired) or (isinstance(outcome, Retry) and outcome.after_s == 0 and is_over):
        next_in_s = None
    step = str(delivery.payload.get("step") or "push")
    return Failure(
        str(delivery.record), "sync_to" if step == "push" else "sync_from", error_type(outcome) or "network", getattr(outcome, "reason", ""),
        delivery.attempt, next_in_s, str(pair.kind) if pair.kind is not None else None, pair.record_id, pair.entity_type,
        str(pair.entity_id) if pair.entity_id is not None else None,
    )  # fmt: skip
