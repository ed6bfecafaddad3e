"""What past calls tell of a customer, and decisions on their way into the log."""

from __future__ import annotations

import asyncio
import time

from adapters.retailcrm.deliver import RetailCrm
from daemon.model.call import Direction
from daemon.model.crm import Responsible
from daemon.model.signal import Ended
from daemon.store.calls import CallRepository
from daemon.store.decisions import DecisionLog
from daemon.store.past_calls import LOOKED_BACK_DAYS, PastCalls
from daemon.store.pool import Database
from daemon.supervisor import Supervisor
from tests.rig import NUMBER, WITHIN_S, a_call, rig

SETTINGS = {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}
CUSTOMER = "+375296254070"
DAY_S = 86_400.0


async def test_who_talked_last_and_the_name_shown_last_are_known(db: Database) -> None:
    now = time.time()
    calls = [
        a_call(started_at=now - 300, customer_name=None, answered_by=None, last_talked=None),
        a_call(started_at=now - 400, customer_name="Новое имя", answered_by="151", last_talked="+375291111111"),
        a_call(started_at=now - 500, customer_name="Старое имя", last_talked="152"),
        a_call(started_at=now - 600, last_talked="153"),
        a_call(started_at=now - 10, customer_number="+375290000001", last_talked="154", direction=Direction.INTERNAL),
        a_call(started_at=now - (LOOKED_BACK_DAYS + 1) * DAY_S, customer_number="+375290000002"),
    ]
    async with rig(db, RetailCrm(), SETTINGS, run=False) as on:
        for call in calls:
            await on.record(call, Ended(()))
        past = PastCalls(db)
        assert await past.responsible(NUMBER, CUSTOMER) == Responsible(None, "152", "Новое имя")
        assert await past.responsible(NUMBER, "+375290000001") is None
        assert await past.responsible(NUMBER, "+375290000002") is None
        assert await past.responsible("0400", CUSTOMER) is None


async def test_the_question_uses_its_index(db: Database) -> None:
    async with db.tenant(NUMBER) as connection:
        await connection.execute("set local enable_seqscan = off")
        plan = await connection.fetch(
            "explain select customer_name from calls where enterprise_number = $1 and customer_number = $2 order by started_at desc limit 20", NUMBER, CUSTOMER
        )
    assert "calls_of_customer" in "\n".join(row[0] for row in plan)


async def test_decisions_are_written_together_by_enterprise_and_what_cannot_be_stored_blocks_nobody(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False):
        log, supervisor = DecisionLog(db), Supervisor("test")
        log.note("9999", "lookup", "smart_redirect", {}, {}, None)
        log.note(NUMBER, "lookup", "smart_redirect", {"phone": "\ud800"}, {}, None)
        log.note(NUMBER, "retailcrm", "smart_redirect", {"phone": "nul \0"}, {"status": "found"}, None)
        log.note(NUMBER, "lookup", "smart_redirect", {"phone": CUSTOMER}, {"status": "timeout"}, "retailcrm: no answer in time")
        supervisor.serve("log", log.run)
        try:
            async with asyncio.timeout(WITHIN_S):
                while len(rows := await CallRepository(db).logs(NUMBER, event_type="smart_redirect")) < 2:
                    await asyncio.sleep(0.05)
        finally:
            await supervisor.stop()
        assert [(row["integration_type"], row["status"], row["error_message"]) for row in rows] == [
            ("lookup", "error", "retailcrm: no answer in time"), ("retailcrm", "success", None),
        ]  # fmt: skip
        assert await CallRepository(db).logs("9999") == []


async def test_a_number_is_called_what_its_latest_calls_called_it(db: Database) -> None:
    calls = [
        a_call(customer_name="Прежнее имя", started_at=1.0), a_call(customer_name="Восток", started_at=2.0), a_call(customer_name=None, started_at=3.0),
        a_call(customer_name=None, customer_number="+375291110000", started_at=4.0),
    ]  # fmt: skip
    async with rig(db, RetailCrm(), SETTINGS, run=False) as on:
        for call in calls:
            await on.record(call, Ended(()))
    past = PastCalls(db)
    assert await past.names(NUMBER, [CUSTOMER, "+375291110000", "+375000000000", "' or 1=1"]) == {CUSTOMER: "Восток"}
    assert await past.names("0400", [CUSTOMER]) == {}
    assert await past.names(NUMBER, []) == {}
