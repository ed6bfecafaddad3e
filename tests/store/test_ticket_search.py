"""Tickets are found by words, by the end of a number and by ids: on indexes, within the asking tenant, and as they are now."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from daemon.store.pool import Database
from daemon.store.ticket_query import TicketFilter, ticket_conditions
from daemon.store.tickets import TicketRepository

OURS, THEIRS = "0001", "0002"
KEY = "0f0e0d0c-0b0a-4908-8706-050403020100"


async def a_ticket(db: Database, enterprise: str, subject: str, **more: Any) -> int:
    ticket = {"external_id": str(uuid.uuid4()), "subject": subject, "project": "tma", "shared": False, "status_by": "crm", **more}
    async with db.tenant(enterprise) as connection:
        return int((await TicketRepository.insert(connection, enterprise, ticket))["id"])  # type: ignore[index]


async def found(db: Database, text: str, enterprise: str = OURS, **more: Any) -> list[str]:
    items, _ = await TicketRepository(db).page(enterprise, TicketFilter(search=text, **more))
    return sorted(item["subject"] for item in items)


async def test_tickets_are_found_by_words_numbers_and_ids_in_the_asking_tenant_alone(db: Database) -> None:
    code = await a_ticket(db, OURS, "Не приходит КОД из SMS", customer_phone="+375296254070", external_id=KEY)
    await a_ticket(db, OURS, "Ёлка к Новому году", customer_phone="+375296251111")
    await a_ticket(db, THEIRS, "Код и ёлка у соседей", customer_phone="+375296254070")
    repository = TicketRepository(db)
    await repository.note_remote(OURS, code, None, "CRM-77")

    first, second = "Не приходит КОД из SMS", "Ёлка к Новому году"
    for text in ("код", "КОД sms", "прих", "4070", "8 (029) 625-40-70", "+375 29 625 40 70", "crm-77", f"№ {code}", str(code), KEY, KEY.upper()):
        assert await found(db, text) == [first], text
    assert await found(db, "елк") == [second]
    for text in ("код елка", "иходит", "!!!", "#0704", "@crm-77", "№", "0" * 18, "'; drop table calls; --", "%", "_"):
        assert await found(db, text) == [], text
    assert await found(db, "4070", status="closed") == []
    assert await found(db, "код", THEIRS) == ["Код и ёлка у соседей"]

    # What is changed is found as it is now.
    async with db.tenant(OURS) as connection:
        await connection.execute("update support_tickets set subject = 'Вопрос решён', customer_phone = null where id = $1", code)
    assert await found(db, "код") == await found(db, "4070") == []
    assert await found(db, "реше") == ["Вопрос решён"]
    async with db.tenant(OURS) as connection:
        await connection.execute("delete from support_tickets")
        assert await connection.fetchval("select count(*) from ticket_words") == 0
    assert await found(db, "код", THEIRS) == ["Код и ёлка у соседей"]


@pytest.mark.parametrize("text", ["код", "код обращение", "4070", "77", KEY])
async def test_a_search_stays_on_its_indexes_behind_the_walls(db: Database, text: str) -> None:
    for enterprise in (OURS, THEIRS):
        async with db.tenant(enterprise) as connection:
            await connection.execute(
                "insert into support_tickets (enterprise_number, external_id, subject, project, shared, status_by, customer_phone) "
                "select $1, gen_random_uuid(), 'Обращение ' || n || case when n % 50 = 0 then ' код' else '' end, 'tma', false, 'crm', "
                "'+37529' || lpad(n::text, 7, '0') from generate_series(1, 400) n",
                enterprise,
            )
    async with db.tenant(OURS) as connection:
        await connection.execute("set local enable_seqscan = off")
        words = [row["word"] for row in await connection.fetch("select word from words_of($1) as word", text)]
        where, arguments = ticket_conditions(OURS, TicketFilter(search=text), words)
        rows = await connection.fetch(f"explain select * from support_tickets t where {' and '.join(where)} order by updated_at desc limit 51", *arguments)
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan, plan
    assert "ticket_words_pkey" in plan, plan
    # The words are bounds of the index, not a filter over all that the tenant has.
    for word in words:
        assert f"word >= '{word}'" in plan, plan
        assert not any("Filter" in line and word in line for line in plan.splitlines()), plan
