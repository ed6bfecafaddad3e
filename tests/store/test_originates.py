"""Click-to-call's tables: what is counted is counted in one transaction, tenants are walls, what arrives late changes nothing."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daemon.errors import NotFound, VochidError
from daemon.model.crm import UserStatus
from daemon.originate.states import COMES_FROM, OPEN, State
from daemon.store.originates import OriginateRepository
from daemon.store.pool import Database
from daemon.store.user_statuses import UserStatuses

LIMITS: dict[str, Any] = {
    "per_extension_per_minute": 5, "concurrent": 7, "per_day": 9, "same_click_s": 600, "open_s": 14_400, "refusals_per_minute": 3,
    "day_began": datetime.now(UTC).replace(hour=0, minute=0, second=0).isoformat(), "words": {"per_day": "no more today"},
}  # fmt: skip


def asked(extension: str = "150", phone: str | None = None, **more: Any) -> dict[str, Any]:
    key = uuid.uuid4()
    return {
        "id": str(key), "pbx": "main", "extension": extension, "phone": phone or f"+37529{key.int % 10**7:07d}", "source": "api",
        "channel_id": f"vochid-click-{key.hex}", "other_channel_id": f"vochid-click-{key.hex}-2", **more,
    }  # fmt: skip


async def test_of_many_clicks_at_once_exactly_as_many_are_reserved_as_the_limits_allow(db: Database) -> None:
    repository = OriginateRepository(db)
    made = await asyncio.gather(*(repository.reserve("0367", asked(), LIMITS) for _ in range(20)))
    assert sorted(row.state for row in made) == ["refused"] * 15 + ["reserved"] * 5
    assert {row.code for row in made if row.state == "refused"} == {"per_extension_per_minute"}
    more = await asyncio.gather(*(repository.reserve("0367", asked(str(151 + n)), LIMITS) for n in range(10)))
    assert [row.code for row in more if row.state == "refused"] == ["concurrent"] * 8
    async with db.tenant("0367") as connection:
        assert await connection.fetchval("select count(*) from originate_requests where state = 'refused'") == 3  # a flood is not kept
        await connection.execute("update originate_requests set state = 'ended' where state = 'reserved'")
    last = [await repository.reserve("0367", asked(str(170 + n)), LIMITS) for n in range(3)]
    assert [(row.state, row.code, row.reason) for row in last] == [("reserved", None, None)] * 2 + [("refused", "per_day", "no more today")]
    assert (await repository.reserve("0400", asked(), LIMITS)).state == "reserved"


async def test_the_same_click_and_the_same_key_give_the_same_request(db: Database) -> None:
    repository = OriginateRepository(db)
    first, again = await asyncio.gather(*(repository.reserve("0367", asked("150", "+375296254070"), LIMITS) for _ in range(2)))
    assert first.id == again.id
    keyed = await repository.reserve("0367", asked("151", "+375296254070", idempotency_key="k"), LIMITS)
    assert (await repository.reserve("0367", asked("152", "+375296254071", idempotency_key="k"), LIMITS)).id == keyed.id
    assert (await repository.reserve("0400", asked("152", "+375296254071", idempotency_key="k"), LIMITS)).id != keyed.id
    async with db.tenant("0367") as connection:
        await connection.execute("update originate_requests set created_at = created_at - interval '601 seconds'")
    assert (await repository.reserve("0367", asked("150", "+375296254070"), LIMITS)).id != first.id
    assert (await repository.reserve("0367", asked("151", "+375296254072", idempotency_key="k"), LIMITS)).id == keyed.id


async def test_what_was_surely_not_dialled_may_be_clicked_again_at_once(db: Database) -> None:
    repository = OriginateRepository(db)
    first = await repository.reserve("0367", asked("150", "+375296254070"), LIMITS)
    assert await repository.advance(first, "failed", COMES_FROM[State.FAILED], code="pbx_link_down", reason="gone", call_id=None)
    assert (await repository.reserve("0367", asked("150", "+375296254070"), LIMITS)).id != first.id


async def test_late_news_changes_nothing_and_the_call_is_noted_all_the_same(db: Database) -> None:
    repository = OriginateRepository(db)
    row = await repository.reserve("0367", asked(), LIMITS)
    call = str(uuid.uuid4())

    async def advance(state: State, call_id: str | None = None) -> bool:
        return await repository.advance(row, state, COMES_FROM[state], code=None, reason=None, call_id=call_id)

    assert await advance(State.MANAGER_ANSWERED)
    assert not await advance(State.SENT)
    assert not await advance(State.UNKNOWN, call)
    assert await advance(State.ENDED)
    assert not await advance(State.CUSTOMER_ANSWERED)
    found = await repository.get("0367", row.id)
    assert (found.state, found.call_id) == ("ended", call)
    with pytest.raises(NotFound):
        await repository.get("0400", row.id)
    assert await repository.open("0367", "main", OPEN) == []


async def test_open_requests_come_with_the_call_that_is_stored(db: Database) -> None:
    repository = OriginateRepository(db)
    row, other = await repository.reserve("0367", asked(), LIMITS), await repository.reserve("0367", asked(), LIMITS)
    call = uuid.uuid4()
    async with db.tenant("0367") as connection:
        await connection.execute(
            "insert into calls (enterprise_number, id, pbx, linkedid, direction, started_at, wait_seconds, talk_seconds, missed, rang, transfers, "
            "click_to_call, consult, recordings, gap) values ('0367', $1, 'main', $2, 'out', now(), 0, 0, false, '{}', '[]', true, false, '{}', false)",
            call, row.channel_id,
        )  # fmt: skip
    found = await repository.open("0367", "main", OPEN)
    assert [(request.id, stored and stored["id"]) for request, stored in found] == [(row.id, call), (other.id, None)]
    assert await repository.open("0400", "main", OPEN) == []


async def test_the_log_has_a_bound_per_minute(db: Database) -> None:
    repository = OriginateRepository(db)
    for _ in range(3):
        await db.fetch("select log_originate($1, $2, $3, $4, $5, $6, $7)", "0367", "api", {}, {}, "error", "x", 2)
    await repository.log("0367", "api", {"phone": "1"}, {"state": "ended"}, None)
    async with db.tenant("0367") as connection:
        rows = await connection.fetch("select status, event_type from integration_logs order by id")
    assert [tuple(row) for row in rows] == [("error", "make_call")] * 2 + [("success", "make_call")]


async def test_old_requests_and_posts_are_forgotten(db: Database) -> None:
    repository = OriginateRepository(db)
    old, fresh = await repository.reserve("0367", asked(), LIMITS), await repository.reserve("0367", asked(), LIMITS)
    async with db.tenant("0367") as connection:
        await connection.execute("update originate_requests set created_at = $1 where id = $2", datetime.now(UTC) - timedelta(days=91), uuid.UUID(old.id))
    await db.fetch("select forget_originates(90, 30)")
    with pytest.raises(NotFound):
        await repository.get("0367", old.id)
    assert (await repository.get("0367", fresh.id)).id == fresh.id


async def test_statuses_are_kept_per_tenant_and_integration(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = UserStatuses(db)
    async with db.tenant("0367") as connection:
        await connection.execute("insert into enterprises (number, name) values ('0367', 'Июнь')")
    await statuses.set("0367", "retailcrm", "19", UserStatus.BUSY)
    await statuses.set("0367", "retailcrm", "19", UserStatus.DINNER)
    await statuses.set("0367", "bitrix24", "19", UserStatus.FREE)
    assert await statuses.by_user("0367", "retailcrm") == {"19": UserStatus.DINNER}
    assert await statuses.by_user("0400", "retailcrm") == {}
    monkeypatch.setattr("daemon.store.user_statuses.MAX_USERS", 1)
    await statuses.set("0367", "retailcrm", "19", UserStatus.BREAK)
    with pytest.raises(VochidError, match="more than 1 users"):
        await statuses.set("0367", "retailcrm", "20", UserStatus.FREE)
