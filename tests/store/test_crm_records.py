"""An enterprise's own records: what was stored comes back, with who changed which field, and followers hear of it in the same transaction."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from daemon.errors import NotFound, VochidError
from daemon.model.crm_record import LOCAL, RecordChange, RecordType
from daemon.store.call_query import CallFilter
from daemon.store.calls import CallRepository
from daemon.store.crm_records import MAX_POINTING, CrmRecordRepository, RecordFilter
from daemon.store.known_customers import KnownCustomers
from daemon.store.pool import Connection, Database
from daemon.store.record_links import RecordLinks
from tests.store.test_pages import answered, insert

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


async def test_what_pointed_at_a_record_that_goes_points_at_nothing_and_that_is_told_too(db: Database) -> None:
    told: list[RecordChange] = []

    async def hear(connection: Connection, enterprise: str, change: RecordChange) -> None:
        told.append(change)

    records = CrmRecordRepository(db, hear)
    async with db.tenant(E) as connection:
        company = await records.make(connection, E, RecordType.COMPANY, {"name": "Восток"}, LOCAL)
        contract = await records.make(connection, E, RecordType.CONTRACT, {"number": "7", "company_id": company.id}, LOCAL)
        made = await records.make(connection, E, RecordType.OBJECT, {"name": "Кран", "contract_id": contract.id}, LOCAL)
    assert [one.id for one in await records.page(E, RecordType.OBJECT, RecordFilter(company_id=company.id))] == [made.id]
    assert await records.page(E, RecordType.OBJECT, RecordFilter(company_id=company.id + 1)) == []
    told.clear()
    async with db.tenant(E) as connection:
        await records.delete(connection, E, company, "bitrix24")
    assert [(one.type, one.fields, one.by, one.after is None) for one in told] == [
        (RecordType.CONTRACT, ("company_id",), "bitrix24", False), (RecordType.COMPANY, ("name",), "bitrix24", True),
    ]  # fmt: skip
    assert (await records.get(E, RecordType.CONTRACT, contract.id)).changes["company_id"]["by"] == "bitrix24"
    many = f"insert into crm_objects (enterprise_number, name, contract_id) select '{E}', 'x', {contract.id} from generate_series(1, {MAX_POINTING})"
    async with db.tenant(E) as connection:
        await connection.execute(many)
        with pytest.raises(VochidError, match="point at this one"):
            await records.delete(connection, E, contract, LOCAL)


async def test_a_name_is_found_in_capital_letters_of_any_alphabet(db: Database) -> None:
    records = CrmRecordRepository(db)
    async with db.tenant(E) as connection:
        await records.make(connection, E, RecordType.COMPANY, {"name": "ООО «ВОСТОК, Ёлка»"}, LOCAL)
    for search in ("восток", "ВОСТОК", "елка", "«вост"):
        assert len(await records.page(E, RecordType.COMPANY, RecordFilter(search=search))) == 1, search


async def test_whose_a_number_is_reads_one_enterprise_on_an_index_and_is_bounded(db: Database) -> None:
    records, known, phone = CrmRecordRepository(db), KnownCustomers(db), "+375291112233"
    async with db.tenant(E) as connection:
        users = [await records.make(connection, E, RecordType.USER, {"name": f"User {n}", "phone": phone}, LOCAL) for n in range(5)]
        company = await records.make(connection, E, RecordType.COMPANY, {"name": "Восток", "phone": phone}, LOCAL)
        other = await records.make(connection, E, RecordType.COMPANY, {"name": "Север", "phone": "+375291112244"}, LOCAL)
    found = await known.find(E, [phone, "+375291112244", "+375290000000"])
    assert [(one.type, one.id) for one in found[phone]] == [*((RecordType.USER, user.id) for user in users[:1:-1]), (RecordType.COMPANY, company.id)]
    assert [one.name for one in found["+375291112244"]] == [other.title]
    assert len(found) == 2
    assert await known.find("0368", [phone]) == {}
    async with db.tenant(E) as connection:
        await connection.execute("insert into crm_users (enterprise_number, name, phone) select $1, 'x', '+3752' || n from generate_series(1, 20000) n", E)
        body = "select u.id from crm_users u where u.enterprise_number = $1 and u.phone = $2 order by u.id desc limit 3"
        plan = "\n".join(row[0] for row in await connection.fetch(f"explain {body}", E, phone))
    assert "crm_users_phone" in plan
    assert "Sort" not in plan


async def test_the_same_key_names_the_record_that_was_made_with_it(db: Database) -> None:
    records = CrmRecordRepository(db)
    async with db.tenant(E) as connection:
        made = await records.make(connection, E, RecordType.USER, {"name": "Ирина"}, LOCAL, key="k")
        assert await records.of_key(connection, E, RecordType.USER, "k") == made
        assert await records.of_key(connection, E, RecordType.COMPANY, "k") is None
        assert await records.of_key(connection, E, RecordType.USER, "l") is None
    async with db.tenant("0368") as connection:
        assert await records.of_key(connection, "0368", RecordType.USER, "k") is None


async def test_a_person_is_forgotten_by_their_number_and_followers_hear_of_it(db: Database) -> None:
    told: list[RecordChange] = []

    async def hear(connection: Connection, enterprise: str, change: RecordChange) -> None:
        told.append(change)

    records, phone = CrmRecordRepository(db, hear), "+375291112233"
    async with db.tenant(E) as connection:
        user = await records.make(connection, E, RecordType.USER, {"name": "Ирина", "phone": phone}, LOCAL)
        company = await records.make(connection, E, RecordType.COMPANY, {"name": "Восток", "phone": phone}, LOCAL)
        other = await records.make(connection, E, RecordType.USER, {"name": "Пётр", "phone": "+375291112244"}, LOCAL)
        for record, agreed in ((user, user.fields), (company, company.fields), (other, other.fields)):
            await connection.execute(
                "insert into bitrix24_sync_mappings (tenant_id, local_type, local_id, bitrix24_type, bitrix24_id, sync_direction, agreed, conflicts) "
                "values ($1, $2, $3, 'contact', $4, 'to', $5, $6)",
                E, str(record.type), record.id, record.id * 10 + len(record.type), dict(agreed), [{"field": "phone", "local": phone}, {"field": "name"}],
            )  # fmt: skip
            await connection.execute(
                "insert into integration_errors (enterprise_number, integration_type, operation, error_type, message, local_type, local_id) "
                "values ($1, 'bitrix24', 'sync_to', 'validation', $2, $3, $4)",
                E, f"PHONE {phone}", str(record.type), record.id,
            )  # fmt: skip
    links = RecordLinks(db)
    assert len(await links.errors(E, RecordType.USER, user.id)) == 1
    told.clear()
    async with db.tenant(E) as connection:
        assert [one.id for one in await records.with_phone(connection, E, [phone])] == [user.id, company.id]
        assert await records.erase_phone(connection, E, [phone]) == [user, company]
        assert await records.with_phone(connection, E, [phone]) == []
        assert await records.erase_phone(connection, E, [phone]) == []
        assert await connection.fetchval("select count(*) from integration_errors where enterprise_number = $1 and message like '%2233%'", E) == 1
    assert [(one.type, one.fields) for one in told] == [(RecordType.USER, ("name", "phone")), (RecordType.COMPANY, ("phone",))]
    link = await links.of(E, RecordType.COMPANY, company.id)
    assert link is not None
    assert link["conflicts"] == [{"field": "name"}]
    assert (link["type"], link["direction"], link["tasks"], link["deleted"]) == ("contact", "to", [], None)
    gone = await links.of(E, RecordType.USER, user.id)
    assert gone is not None
    assert gone["conflicts"] == []
    async with db.tenant(E) as connection:
        agreed = {row["local_type"] + str(row["local_id"]): row["agreed"] for row in await connection.fetch("select * from bitrix24_sync_mappings")}
    assert agreed[f"user{user.id}"] == {}
    assert agreed[f"company{company.id}"] == {"name": "Восток"}
    assert agreed[f"user{other.id}"]["phone"] == "+375291112244"
    assert await links.of("0368", RecordType.COMPANY, company.id) is None


@pytest.mark.parametrize("turns", [(3, 20), (500, 20)])
async def test_calls_of_who_is_known_are_found_by_that_name_among_those_that_carry_it(
    db: Database, monkeypatch: pytest.MonkeyPatch, turns: tuple[int, int]
) -> None:
    monkeypatch.setattr("daemon.store.calls.TERMED_AT_ONCE", turns[0])
    monkeypatch.setattr("daemon.store.calls.TERMED_TURNS", turns[1])
    records, phone, calls = CrmRecordRepository(db), "+375291112233", CallRepository(db)
    async with db.tenant(E) as connection:
        await records.make(connection, E, RecordType.USER, {"name": "Лис, Ирина", "phone": phone}, LOCAL)
    async with db.tenant("0400") as connection:
        await records.make(connection, "0400", RecordType.USER, {"name": "Ирина Лис", "phone": "+375291112244"}, LOCAL)
    who = [(phone, None), (phone, "Ирина Лис"), ("+375291112244", "Лис Ирина"), ("+375291112244", None), (phone, "Пётр")]
    made = [answered(float(n), customer_number=number, customer_name=name) for n, (number, name) in enumerate(who * 4, 1)]
    await insert(db, *made)
    expected = [call.id for call in reversed(made) if call.customer_number == phone or call.customer_name]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(20):
        items, cursor = await calls.page(E, CallFilter(search="ирина лис"), cursor=cursor, limit=4)
        seen += [item["id"] for item in items]
        if cursor is None:
            break
    assert seen == expected
    some = CallFilter(search="ирина", since=datetime.fromtimestamp(3, UTC), until=datetime.fromtimestamp(9, UTC))
    assert [item["id"] for item in (await calls.page(E, some))[0]] == [call.id for call in reversed(made[2:8]) if call.id in expected]
    assert (await calls.page(E, CallFilter(search="ирина", extension="199")))[0] == []
    assert (await calls.page("0400", CallFilter(search="ирина")))[0] == []
