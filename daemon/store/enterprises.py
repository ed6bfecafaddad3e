"""Enterprises as rows: settings and integrations with their secrets sealed, phones in a table of their own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from daemon.store.pool import Connection, Database


@dataclass(frozen=True, slots=True)
class StoredEnterprise:
    """One tenant as it lies in the database."""

    number: str
    name: str
    settings: dict[str, Any]
    integrations: dict[str, Any]
    phones: list[dict[str, str]] = field(default_factory=list)
    recordings_epoch: int = 0

    def document(self) -> dict[str, Any]:
        """The whole document, secrets sealed."""
        return {"number": self.number, "name": self.name, **self.settings, "internal_phones": self.phones, "integrations": self.integrations}


class EnterpriseRepository:
    """Loads and stores tenants."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def read(self, numbers: Collection[str] | None = None) -> list[StoredEnterprise]:
        """These tenants, or every one: two statements, however many there are."""
        if numbers is None:
            rows, of_all = await self._db.fetch("select * from all_enterprises()"), await self._db.fetch("select * from all_phones()")
        else:
            rows = await self._db.fetch("select * from enterprises_named($1)", list(numbers))
            of_all = await self._db.fetch("select * from phones_named($1)", list(numbers))
        phones: dict[str, list[dict[str, str]]] = {}
        for row in of_all:
            phones.setdefault(row["enterprise_number"], []).append({"number": row["number"], "owner": row["owner"]})
        return [_stored(row, phones.get(row["number"], [])) for row in rows]

    async def get(self, number: str, connection: Connection | None = None) -> StoredEnterprise | None:
        """One tenant, or None; inside `connection`'s transaction when one is given, and then locked."""
        if connection is not None:
            return await self._read(connection, number, lock=True)
        async with self._db.tenant(number) as own:
            return await self._read(own, number, lock=False)

    async def put(self, connection: Connection, stored: StoredEnterprise) -> None:
        """Inserts or replaces, inside the tenant's transaction."""
        await connection.execute(
            """insert into enterprises (number, name, settings, integrations_config) values ($1, $2, $3, $4)
               on conflict (number) do update set name = excluded.name, settings = excluded.settings,
                 integrations_config = excluded.integrations_config, updated_at = now()""",
            stored.number, stored.name, stored.settings, stored.integrations,
        )  # fmt: skip
        before = [(r["number"], r["owner"]) for r in await connection.fetch("select number, owner from user_internal_phones order by position, number")]
        if before != [(phone["number"], phone["owner"]) for phone in stored.phones]:
            await connection.execute("delete from user_internal_phones where enterprise_number = $1", stored.number)
            await connection.executemany(
                "insert into user_internal_phones (enterprise_number, number, owner, position) values ($1, $2, $3, $4)",
                [(stored.number, phone["number"], phone["owner"], i) for i, phone in enumerate(stored.phones)],
            )

    async def remove(self, number: str, *, purge_data: bool) -> bool:
        """Deletes a tenant; its calls stay until retention unless `purge_data`. False when there was none."""
        async with self._db.tenant(number) as connection:
            done = await connection.fetchval("delete from enterprises where number = $1 returning number", number)
            if done is not None and purge_data:
                await _purge(connection, number)
        return done is not None

    async def _read(self, connection: Connection, number: str, *, lock: bool) -> StoredEnterprise | None:
        if lock:  # also against two first PUTs at once
            await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 7))", number)
        row = await connection.fetchrow("select * from enterprises where number = $1", number)
        if row is None:
            return None
        phones = await connection.fetch("select number, owner from user_internal_phones where enterprise_number = $1 order by position, number", number)
        return _stored(row, [dict(phone) for phone in phones])


def _stored(row: Any, phones: list[dict[str, str]]) -> StoredEnterprise:
    return StoredEnterprise(row["number"], row["name"], row["settings"], row["integrations_config"], phones, row["recordings_epoch"])


async def _purge(connection: Connection, enterprise: str) -> None:
    """Deletes all that is stored of a tenant besides its settings; inside the tenant's transaction."""
    calls = (
        "deliveries",
        "lane_memory",
        "connections",
        "integration_logs",
        "originate_requests",
        "posted_events",
        "legs",
        "calls",
        "call_traces",
        "pbx_states",
    )
    records = ("crm_objects", "crm_contracts", "crm_users", "crm_companies", "integration_errors", "sync_jobs")
    for table in ("support_tickets", *calls, *records, "report_days", "report_calls", "report_callbacks", "report_told"):
        await connection.execute(f"delete from {table} where enterprise_number = $1", enterprise)
    await connection.execute("delete from bitrix24_sync_mappings where tenant_id = $1", enterprise)
