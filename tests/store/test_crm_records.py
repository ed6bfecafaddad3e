"""An enterprise's own records: what was stored comes back, with who changed which field, and followers hear of it in the same transaction."""

from __future__ import annotations

import pytest

from daemon.errors import NotFound
from daemon.model.crm_record import LOCAL, RecordChange, RecordType
from daemon.store.crm_records import CrmRecordRepository, RecordFilter
from daemon.store.pool import Connection, Database

E = "0367"


async def test_a_record_remembers_who_changed_each_field(db: Database) -> None:
    told: list[RecordChange] = []

    async def hear(connection: Connection, enterprise: str, change: RecordChange) -> None:
        told.append(change)

    records = CrmRecordRepository(db, hear)
    async with db.tenant(E) as connection:
        company = await records.make(connection, E, RecordType.COMPANY, {"name": "Восток"}, LOCAL, 1.0)
        contract = await records.make(connection, E, RecordType.CONTRACT, {"number": "7/26", "starts_on": "2026-03-01", "company_id": company.id}, LOCAL, 2.0)
        unchanged = await records.change(connection, E, contract, {"number": "7/26"}, "bitrix24")
        changed = await records.change(connection, E, contract, {"ends_on": "2027-03-01"}, "bitrix24", 3.0)
    assert unchanged is contract
    assert changed.fields == {"number": "7/26", "starts_on": "2026-03-01", "ends_on": "2027-03-01", "company_id": company.id}
    assert changed.changes["ends_on"] == {"at": 3.0, "by": "bitrix24"}
    assert changed.changes["number"] == {"at": 2.0, "by": LOCAL}
    assert [(one.type, one.fields, one.by) for one in told][2:] == [(RecordType.CONTRACT, ("ends_on",), "bitrix24")]
    async with db.tenant(E) as connection:
        await records.delete(connection, E, company, LOCAL)
    assert (await records.get(E, RecordType.CONTRACT, contract.id)).fields["company_id"] is None
    with pytest.raises(NotFound):
        await records.get(E, RecordType.COMPANY, company.id)


async def test_what_a_follower_cannot_take_is_not_stored(db: Database) -> None:
    async def refuse(connection: Connection, enterprise: str, change: RecordChange) -> None:
        raise RuntimeError("full")

    records = CrmRecordRepository(db, refuse)
    with pytest.raises(RuntimeError):
        async with db.tenant(E) as connection:
            await records.make(connection, E, RecordType.USER, {"name": "Ирина"}, LOCAL)
    assert await records.page(E, RecordType.USER, RecordFilter()) == []


async def test_records_are_found_by_text_phone_and_age_within_one_enterprise(db: Database) -> None:
    records = CrmRecordRepository(db)
    async with db.tenant(E) as connection:
        first = await records.make(connection, E, RecordType.USER, {"name": "Ирина Лис", "phone": "+375291112233"}, LOCAL)
        second = await records.make(connection, E, RecordType.USER, {"name": "Пётр", "email": "p@example.com"}, LOCAL)
    assert [one.id for one in await records.page(E, RecordType.USER, RecordFilter())] == [second.id, first.id]
    assert [one.id for one in await records.page(E, RecordType.USER, RecordFilter(), before=second.id)] == [first.id]
    assert [one.id for one in await records.page(E, RecordType.USER, RecordFilter(search="лис"))] == [first.id]
    assert [one.id for one in await records.page(E, RecordType.USER, RecordFilter(phone="+375291112233"))] == [first.id]
    assert [one.id for one in await records.page(E, RecordType.USER, RecordFilter(ids=[second.id]))] == [second.id]
    assert await records.page(E, RecordType.USER, RecordFilter(updated_since=second.updated_at + 1)) == []
    assert await records.page("0368", RecordType.USER, RecordFilter()) == []
