"""Missed calls: opened with the call, closed by the one that reaches the customer, told once to whoever wants to know."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from adapters.retailcrm.deliver import RetailCrm
from daemon.errors import NotFound
from daemon.model.call import Call, Direction, Result
from daemon.model.delivery import Kind, Planned, Priority
from daemon.model.signal import CalledBack, Ended
from daemon.store.missed import MissedRepository
from daemon.store.pool import Database
from tests.rig import NUMBER, Rig, a_call, rig

AT = 1_763_701_800.0
CUSTOMER = "+375296254070"
SETTINGS = {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}


def missed(at: float = AT, **more: Any) -> Call:
    base = {
        "answered_at": None,
        "answered_by": None,
        "last_talked": None,
        "talk_seconds": 0.0,
        "result": Result.NO_ANSWER,
        "started_at": at,
        "ended_at": at + 20,
    }
    return a_call(**{**base, **more})


def reached(at: float, direction: Direction = Direction.OUT, **more: Any) -> Call:
    who = {"initiator": "151"} if direction is Direction.OUT else {}
    return a_call(**{"started_at": at, "answered_at": at + 5, "ended_at": at + 30, "direction": direction, **who, **more})


@pytest.fixture
async def office(db: Database) -> Any:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as running:
        yield running


async def test_a_missed_call_is_open_until_somebody_reaches_the_customer(office: Rig) -> None:
    store, call = MissedRepository(office.db), missed()
    await office.record(call, Ended(()))
    [item], following = await store.page(NUMBER)
    assert following is None
    assert (item["call"], item["customer_number"], item["count"], item["result"], item["rang"]) == (call.id, CUSTOMER, 1, "no_answer", ["150", "151"])
    assert await store.count_open(NUMBER) == 1
    back = reached(AT + 320)
    await office.record(back, Ended(()))
    assert await store.page(NUMBER) == ([], None)
    [item], _ = await store.page(NUMBER, is_open=False)
    assert (item["closed_how"], item["closed_by"], item["closed_by_call"], item["took_seconds"]) == ("called_back", "151", back.id, 305.0)


async def test_several_missed_calls_of_a_customer_are_one_item_with_a_count(office: Rig) -> None:
    store = MissedRepository(office.db)
    for n in range(3):
        await office.record(missed(AT + n * 60), Ended(()))
    await office.record(missed(AT, customer_number="+375291111222"), Ended(()))
    items, _ = await store.page(NUMBER)
    assert [(i["customer_number"], i["count"]) for i in items] == [(CUSTOMER, 3), ("+375291111222", 1)]
    assert items[0]["first_missed_at"] < items[0]["last_missed_at"]
    first, cursor = await store.page(NUMBER, limit=1)
    rest, end = await store.page(NUMBER, limit=1, cursor=cursor)
    assert first + rest == items
    assert end is None
    await office.record(reached(AT + 600, Direction.IN), Ended(()))
    [closed], _ = await store.page(NUMBER, is_open=False)
    assert (closed["count"], closed["closed_how"], closed["closed_by"]) == (3, "got_through", "151")
    assert await store.count_open(NUMBER) == 1


@pytest.mark.parametrize(
    "call",
    [
        missed(customer_number=None), missed(consult=True), missed(direction=Direction.OUT), missed(direction=Direction.INTERNAL),
        a_call(), replace(missed(), ended_at=None, result=None),
    ],
    ids=["withheld", "consult", "outgoing", "internal", "answered", "still rings"],
)  # fmt: skip
async def test_what_is_no_missed_call_is_not_in_the_list(call: Call, office: Rig) -> None:
    await office.record(call)
    assert await MissedRepository(office.db).count_open(NUMBER) == 0


@pytest.mark.parametrize(
    "later",
    [
        reached(AT - 600), reached(AT + 600, customer_number="+375290000000"), reached(AT + 600, Direction.INTERNAL),
        missed(AT + 600, direction=Direction.OUT), missed(AT + 600, result=Result.VOICEMAIL, direction=Direction.OUT),
    ],
    ids=["before", "another customer", "internal", "not reached", "their mailbox"],
)  # fmt: skip
async def test_what_reaches_nobody_closes_nothing(later: Call, office: Rig) -> None:
    await office.record(missed(), Ended(()))
    await office.record(later, Ended(()))
    assert await MissedRepository(office.db).count_open(NUMBER) == 1


async def test_done_by_hand_closes_all_of_the_customer_and_twice_changes_nothing(office: Rig) -> None:
    store, calls = MissedRepository(office.db), [missed(AT), missed(AT + 60)]
    for call in calls:
        await office.record(call, Ended(()))
    once = await store.done(NUMBER, calls[0].id, "Анна")
    assert (once["count"], once["closed_how"], once["closed_by"]) == (2, "done", "Анна")
    assert await store.done(NUMBER, calls[1].id, "Борис") == once
    for unknown in ("nonsense", "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(NotFound):
            await store.done(NUMBER, unknown, None)
    with pytest.raises(NotFound):
        await store.done("0400", calls[0].id, None)


async def test_what_was_taken_for_missed_and_turns_out_to_be_answered_was_never_missed(office: Rig) -> None:
    call = missed(gap=True, result=Result.INTERRUPTED)
    await office.record(call, Ended(()))
    await office.recorder.record_late(NUMBER, "main", [replace(a_call(), id=call.id, started_at=AT, gap=True)])
    assert await MissedRepository(office.db).page(NUMBER) == ([], None)
    assert await MissedRepository(office.db).page(NUMBER, is_open=False) == ([], None)


async def test_a_call_found_late_is_closed_by_what_happened_since_and_told_to_the_journal_alone(office: Rig) -> None:
    await office.record(reached(AT + 600), Ended(()))
    late = missed(AT, gap=True)
    stored, integrations = await office.recorder.record_late(NUMBER, "main", [late])
    assert (stored, integrations) == (1, {"retailcrm"})
    assert await MissedRepository(office.db).count_open(NUMBER) == 0
    told = [d for d in await office.outbox.list(NUMBER) if d["call"] == late.id]
    assert [d["kind"] for d in told] == ["journal"]


async def test_cdr_never_writes_over_a_call_that_lives_or_was_seen_whole(office: Rig) -> None:
    alive, whole = replace(a_call(gap=True), ended_at=None, result=None), a_call()
    for call in (alive, whole):
        await office.record(call)
    stored, _ = await office.recorder.record_late(
        NUMBER, "main", [replace(call, talk_seconds=999.0, ended_at=AT + 999, result=Result.BUSY) for call in (alive, whole)]
    )
    assert stored == 0
    assert await office.outbox.list(NUMBER) == []


class Tasks(RetailCrm):
    """A CRM in which a missed call makes a task: it wants to hear when that is settled."""

    def plan(self, change: Any, settings: Any, tenant: Any) -> Any:
        return [
            Planned(Kind.JOURNAL, f"task-closed:{change.call.id}", {"how": s.how, "by": s.by, "in": s.call_id}, Priority.JOURNAL)
            for s in change.signals
            if isinstance(s, CalledBack)
        ]


async def test_adapters_are_told_once_of_every_missed_call_that_was_closed(db: Database) -> None:
    async with rig(db, Tasks(), SETTINGS, run=False) as office:
        calls = [missed(AT), missed(AT + 60)]
        for call in calls:
            await office.record(call, Ended(()))
        assert await office.outbox.list(NUMBER) == []
        back = reached(AT + 600)
        await asyncio.gather(*(office.record(back, Ended(())) for _ in range(3)))
        told = (await office.outbox.list(NUMBER))[::-1]
        assert [d["call"] for d in told] == [call.id for call in calls]
        assert told[0]["payload"] == {"how": "called_back", "by": "151", "in": back.id}
        await office.recorder.tell_closed(NUMBER)
        assert len(await office.outbox.list(NUMBER)) == 2


async def test_pages_have_every_customer_once_with_the_newest_of_their_calls_first_even_when_many_calls_ended_at_once(
    office: Rig, db: Database, database_url: str
) -> None:
    owner = await asyncpg.connect(database_url)
    await owner.execute(
        "insert into calls (enterprise_number, id, pbx, linkedid, direction, customer_number, started_at, wait_seconds, talk_seconds, missed, rang, transfers, "
        "click_to_call, consult, recordings, gap, ended_at, result) "
        "select $1, md5(n::text)::uuid, 'main', n::text, 'in', '+3752960000' || n % 41, to_timestamp(0), 5, 0, true, '{}', '[]', false, false, '{}', false, "
        "to_timestamp(0), 'no_answer' from generate_series(1, 300) n",
        NUMBER,
    )
    await owner.execute("delete from missed_calls")
    await owner.execute(
        """insert into missed_calls (enterprise_number, call_id, customer_number, missed_at, closed_at, closed_how)
           select $1, id, customer_number, to_timestamp(n % 17 * 60), case when n % 3 = 0 then to_timestamp(5000 + n % 5) end,
             case when n % 3 = 0 then 'done' end
           from (select *, linkedid::int as n from calls where enterprise_number = $1) numbered""",
        NUMBER,
    )
    rows = await owner.fetch("select * from missed_calls where enterprise_number = $1", NUMBER)
    await owner.close()
    for is_open in (True, False):
        groups: dict[Any, list[asyncpg.Record]] = {}
        for row in rows:
            if (row["closed_at"] is None) == is_open:
                groups.setdefault((row["customer_number"], row["closed_at"]), []).append(row)
        heads = [max(group, key=lambda row: (row["missed_at"], -row["call_id"].int)) for group in groups.values()]
        wanted = [str(head["call_id"]) for head in sorted(heads, key=lambda row: (row["missed_at"], row["call_id"]), reverse=True)]
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while cursor is not None or not found:
            items, cursor = await MissedRepository(db).page(NUMBER, is_open=is_open, cursor=cursor, limit=7)
            found += items
        assert [item["call"] for item in found] == wanted
        assert sum(item["count"] for item in found) == sum(map(len, groups.values()))
