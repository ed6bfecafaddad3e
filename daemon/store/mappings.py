"""Which record of ours is which entity of Bitrix24, and what both last agreed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.model.call import iso
from daemon.model.crm_record import RecordType
from daemon.store.pool import Connection, Database

MAX_CONFLICTS = 20
Key = tuple[RecordType, int]


@dataclass(frozen=True, slots=True)
class SyncMapping:
    """One pair. `agreed`, `shown`, `written`, `remote_changed_at`, `tasks`: as the adapter left them; `deleted`: local or remote, the side that is gone."""

    local_type: RecordType
    local_id: int
    bitrix24_type: str
    bitrix24_id: int
    agreed: Mapping[str, Any] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)
    written: Sequence[str] = ()
    remote_changed_at: float | None = None
    deleted: str | None = None
    tasks: Sequence[Mapping[str, Any]] = ()


class SyncMappings:
    """Rows of bitrix24_sync_mappings; what changes them runs in the caller's transaction of that tenant."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of_records(self, connection: Connection, enterprise: str, keys: Sequence[Key]) -> dict[Key, SyncMapping]:
        """Those of these records."""
        rows = await connection.fetch(
            "select m.* from bitrix24_sync_mappings m join unnest($2::text[], $3::bigint[]) as k (local_type, local_id) using (local_type, local_id) "
            "where m.tenant_id = $1",
            enterprise, [str(kind) for kind, _ in keys], [number for _, number in keys],
        )  # fmt: skip
        return {(one.local_type, one.local_id): one for one in map(_mapping, rows)}

    async def of_entities(self, connection: Connection, enterprise: str, entity_type: str, ids: Sequence[int]) -> dict[int, SyncMapping]:
        """Those of these entities, by their ids."""
        rows = await connection.fetch(
            "select * from bitrix24_sync_mappings where tenant_id = $1 and bitrix24_type = $2 and bitrix24_id = any ($3::bigint[])",
            enterprise, entity_type, list(ids),
        )  # fmt: skip
        return {one.bitrix24_id: one for one in map(_mapping, rows)}

    async def with_task(self, connection: Connection, enterprise: str, task_id: int) -> list[SyncMapping]:
        """Those whose deal had this task when it was looked at last."""
        rows = await connection.fetch(
            "select * from bitrix24_sync_mappings where tenant_id = $1 and tasks <> '[]' and tasks @> $2", enterprise, [{"id": str(task_id)}]
        )
        return [_mapping(row) for row in rows]

    async def touch(self, connection: Connection, enterprise: str, keys: Sequence[Key]) -> None:
        """These were found as they had been left."""
        await connection.execute(
            "update bitrix24_sync_mappings m set last_sync_at = now() from unnest($2::text[], $3::bigint[]) as k (local_type, local_id) "
            "where m.tenant_id = $1 and m.local_type = k.local_type and m.local_id = k.local_id",
            enterprise, [str(kind) for kind, _ in keys], [number for _, number in keys],
        )  # fmt: skip

    async def unpaired(
        self, connection: Connection, enterprise: str, kind: RecordType, phones: Sequence[str], titles: Sequence[str]
    ) -> list[tuple[int, str, str | None]]:
        """Users or companies that have no counterpart and never had one, with one of these numbers or, companies, folded names: id, name and phone."""
        by_title = " or folded(r.name) = any ($4)" if kind is RecordType.COMPANY else ""
        rows = await connection.fetch(
            f"select r.id, r.name, r.phone from {kind.table} r where r.enterprise_number = $1 and (r.phone = any ($3){by_title}) and not exists ("
            "select from bitrix24_sync_mappings m where m.tenant_id = $1 and m.local_type = $2 and m.local_id = r.id)",
            enterprise, str(kind), list(phones), *([list(titles)] if by_title else []),
        )  # fmt: skip
        return [(row["id"], row["name"], row["phone"]) for row in rows]

    async def put(
        self,
        connection: Connection,
        enterprise: str,
        mapping: SyncMapping,
        *,
        direction: str | None,
        conflicts: Sequence[Mapping[str, Any]] = (),
        tasks: Any = None,
    ) -> bool:
        """Stores a pair as it is now; whether it is new. `direction`: which way the last change went, None when there was none. Raises asyncpg's
        UniqueViolationError when the entity is another record's."""
        row = await connection.fetchrow(
            """insert into bitrix24_sync_mappings as m
                 (tenant_id, local_type, local_id, bitrix24_type, bitrix24_id, agreed, shown, written, remote_changed_at, sync_direction, conflicts, tasks)
               values ($1, $2, $3, $4, $5, $6, $7, $8, to_timestamp($9::double precision), coalesce($10, 'to'), $11, coalesce($12::jsonb, '[]'))
               on conflict (tenant_id, local_type, local_id) do update set
                 bitrix24_type = excluded.bitrix24_type, bitrix24_id = excluded.bitrix24_id, agreed = excluded.agreed, shown = excluded.shown,
                 written = excluded.written, remote_changed_at = excluded.remote_changed_at, last_sync_at = now(),
                 sync_direction = coalesce($10, m.sync_direction), tasks = coalesce($12::jsonb, m.tasks),
                 conflicts = (select coalesce(jsonb_agg(one order by place), '[]') from (
                   select one, place from jsonb_array_elements(m.conflicts || excluded.conflicts) with ordinality as c (one, place)
                   order by place desc limit $13) kept)
               returning xmax = 0 as is_new""",
            enterprise, str(mapping.local_type), mapping.local_id, mapping.bitrix24_type, mapping.bitrix24_id, dict(mapping.agreed), dict(mapping.shown),
            list(mapping.written), mapping.remote_changed_at, direction, list(map(dict, conflicts)), tasks, MAX_CONFLICTS,
        )  # fmt: skip
        assert row is not None
        return bool(row["is_new"])

    async def mark_deleted(self, connection: Connection, enterprise: str, kind: RecordType, record_id: int, side: str) -> None:
        """One side is gone; the first to go is remembered."""
        await connection.execute(
            "update bitrix24_sync_mappings set deleted = coalesce(deleted, $4), last_sync_at = now() "
            "where tenant_id = $1 and local_type = $2 and local_id = $3",
            enterprise, str(kind), record_id, side,
        )  # fmt: skip

    async def page(self, enterprise: str, *, page: int, limit: int) -> tuple[list[dict[str, Any]], int]:
        """A page from 1 on, what was synced last first; and how many there are."""
        async with self._db.tenant(enterprise) as connection:
            total = await connection.fetchval("select count(*) from bitrix24_sync_mappings where tenant_id = $1", enterprise)
            rows = await connection.fetch(
                "select * from bitrix24_sync_mappings where tenant_id = $1 order by last_sync_at desc, local_type, local_id limit $2 offset $3",
                enterprise, limit, (page - 1) * limit,
            )  # fmt: skip
        return [_shown(row) for row in rows], int(total)

    async def stats(self, enterprise: str) -> dict[str, Any]:
        """How many of each type, and when one was synced last."""
        async with self._db.tenant(enterprise) as connection:
            row = await connection.fetchrow(
                """select count(*) as total, max(last_sync_at) as last, count(*) filter (where local_type = 'object') as object,
                     count(*) filter (where local_type = 'user') as "user", count(*) filter (where local_type = 'contract') as contract
                   from bitrix24_sync_mappings where tenant_id = $1""",
                enterprise,
            )  # fmt: skip
        assert row is not None
        counts = {f"{name}_mappings": row[name] for name in ("object", "user", "contract")}
        return {"total_mappings": row["total"], **counts, "last_sync_time": iso(row["last"].timestamp()) if row["last"] else None}


def _mapping(row: Any) -> SyncMapping:
    at = row["remote_changed_at"]
    return SyncMapping(
        RecordType(row["local_type"]), row["local_id"], row["bitrix24_type"], row["bitrix24_id"], row["agreed"], row["shown"], row["written"],
        at.timestamp() if at is not None else None, row["deleted"], row["tasks"],
    )  # fmt: skip


def _shown(row: Any) -> dict[str, Any]:
    """A row as people and programs see it."""
    names = ("local_type", "local_id", "bitrix24_type", "bitrix24_id", "sync_direction", "deleted", "conflicts", "tasks")
    return {"tenant_id": row["tenant_id"], **{name: row[name] for name in names}, "last_sync_at": iso(row["last_sync_at"].timestamp())}
