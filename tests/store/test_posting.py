"""Posted calls in the database: once each, told in the same transaction, ended when their hangup never comes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from adapters.retailcrm.deliver import RetailCrm
from daemon.calls.posted import Posted, PostedKind
from daemon.calls.posting import PostedCalls
from daemon.calls.view import PbxView
from daemon.model.call import Direction
from daemon.store.calls import CallRepository
from daemon.store.pool import Database
from tests.rig import NUMBER, rig

VIEW = PbxView(NUMBER, "posted")
SETTINGS = {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}
DIAL = Posted(PostedKind.DIAL, "u.1", "+375296254070", ("150", "151"), direction=Direction.IN, started_at=1_795_237_200.0)


async def test_an_event_that_comes_many_times_at_once_is_recorded_once(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as built:
        told: list[Any] = []
        posting = PostedCalls(db, built.crm, "test", lambda *news: told.append(news), built.attach)
        assert sum(await asyncio.gather(*(posting.take(VIEW, DIAL) for _ in range(6)))) == 1
        assert [(enterprise, integrations) for enterprise, _, integrations in told] == [(NUMBER, {"retailcrm"})]
        assert [delivery["kind"] for delivery in await built.outbox.list(NUMBER)] == ["popup"]


async def test_events_of_different_calls_at_once_do_not_disturb_each_other(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as built:
        posting = PostedCalls(db, built.crm, "test", lambda *_: None, built.attach)
        events = [Posted(kind, f"u.{n}", "+375296254070", ("150",), direction=Direction.IN) for n in range(10) for kind in (PostedKind.DIAL, PostedKind.HANGUP)]
        assert all(await asyncio.gather(*(posting.take(VIEW, event) for event in events)))
        calls, _ = await CallRepository(db).page(NUMBER)
        assert len(calls) == 10
        assert all(call["ended_at"] for call in calls)


async def test_a_call_whose_hangup_never_came_is_ended_and_told_after_hours(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as built:
        posting = PostedCalls(db, built.crm, "test", lambda *_: None, built.attach)
        await posting.take(VIEW, DIAL)
        assert await posting.close_stale(3_600) == 0
        async with db.tenant(NUMBER) as connection:
            await connection.execute("update calls set updated_at = now() - interval '2 hours'")
        assert await posting.close_stale(3_600) == 1
        assert await posting.close_stale(3_600) == 0
        ((call,), _) = await CallRepository(db).page(NUMBER)
        assert (call["result"], call["gap"], call["missed"]) == ("interrupted", True, True)
        assert [delivery["kind"] for delivery in await built.outbox.list(NUMBER)] == ["journal", "hangup", "popup"]


async def test_a_recording_that_could_not_be_attached_is_taken_when_it_is_posted_again(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as built:
        told: list[Any] = []

        async def broken(*_: str) -> bool:
            raise OSError("the database is gone")

        failing = PostedCalls(db, built.crm, "test", lambda *news: told.append(news), broken)
        posting = PostedCalls(db, built.crm, "test", lambda *news: told.append(news), built.attach)
        await failing.take(VIEW, replace(DIAL, kind=PostedKind.HANGUP))
        late = replace(DIAL, kind=PostedKind.DOWNLOAD, recording="late.wav")
        with pytest.raises(OSError, match="gone"):
            await failing.take(VIEW, late)
        await asyncio.gather(*(posting.take(VIEW, late) for _ in range(4)))
        assert not await posting.take(VIEW, late)
        ((call,), _) = await CallRepository(db).page(NUMBER)
        assert call["recordings"] == ["late.wav"]
        assert [delivery["kind"] for delivery in await built.outbox.list(NUMBER)] == ["recording", "journal"]
        assert [changes[0].call.recordings for _, changes, _ in told] == [(), ("late.wav",)]


async def test_nothing_of_a_failed_event_stays(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as built:
        posting = PostedCalls(db, built.crm, "test", lambda *_: None, built.attach)

        def broken(*_: Any) -> Any:
            raise RuntimeError("no plan")

        with monkeypatch.context() as patch:
            patch.setattr(built.crm, "plan", broken)
            with pytest.raises(RuntimeError):
                await posting.take(VIEW, DIAL)
        assert await posting.take(VIEW, DIAL)
