"""One PBX's feed between a manager port and the database: ends that no event told, and a PBX that stays away."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.retailcrm.deliver import RetailCrm
from daemon.ami.link import Link, LinkTarget
from daemon.ami.wire import Frame
from daemon.calls import feed as feed_module
from daemon.calls.feed import UNNOTICED_S, PbxFeed
from daemon.calls.recorder import Recorder
from daemon.calls.tracer import Tracer, pack
from daemon.model.signal import CallChange
from daemon.store.calls import CallRepository
from daemon.store.pool import Database
from daemon.store.traces import StoredTrace, TraceRepository
from daemon.supervisor import Supervisor
from lab.fakepbx import FakePbx
from lab.office import free_port
from tests.golden.view import VIEW
from tests.rig import NUMBER, WITHIN_S, a_call, rig

TRACE = (Path(__file__).parent.parent / "golden/inbound-answered/asterisk-22.ami").read_bytes()
TALKING = TRACE[: TRACE.index(b"Event: HangupRequest")]
FIRST = TRACE[TRACE.index(b"Uniqueid: ") + 10 :].split(b"\r\n", 1)[0].decode()
LEGS = [FIRST, FIRST.replace(".0", ".1")]


@dataclass
class Site:
    """A feed at work."""

    feed: PbxFeed
    pbx: FakePbx
    calls: CallRepository
    recorder: Recorder

    async def until(self, says: str, condition: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
        """Waits until the stored calls are as wanted; newest first."""
        stored: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(WITHIN_S):
                while not condition(stored := (await self.calls.page(NUMBER))[0]):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{says}: {stored}") from None
        return stored

    def asked(self) -> int:
        """How often the PBX was asked what lives."""
        return sum(frame.get("Action") == "CoreShowChannels" for frame in self.pbx.heard)

    async def asked_again(self, times: int) -> None:
        before = self.asked()
        async with asyncio.timeout(WITHIN_S):
            while self.asked() < before + times:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def site(db: Database, *, sweep_s: float, tracer: Tracer | None = None) -> AsyncIterator[Site]:
    pbx, supervisor = FakePbx(channels=list(LEGS), port=free_port()), Supervisor("test")  # it comes back on the same one
    async with rig(db, RetailCrm(), {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}, run=False) as running:
        feed = PbxFeed(VIEW, running.recorder, lambda *_: None, lambda *_: None, sweep_s=sweep_s, tracer=tracer)
        feed.start()
        await pbx.start()
        link = Link("main", LinkTarget("127.0.0.1", pbx.port, pbx.username, pbx.secret), feed, asyncio.Semaphore(1))
        supervisor.serve("link", link.run)
        try:
            await asyncio.wait_for(pbx.connected.wait(), WITHIN_S)
            yield Site(feed, pbx, CallRepository(db), running.recorder)
        finally:
            await supervisor.stop()
            await feed.stop()
            await pbx.stop()


async def test_a_live_call_that_the_pbx_no_longer_knows_is_closed_by_the_sweeper(db: Database) -> None:
    async with site(db, sweep_s=0.1) as one:
        one.pbx.send(TALKING)
        [call] = await one.until("somebody talks", lambda calls: calls and calls[0]["answered_at"])
        await one.asked_again(5)
        [call] = await one.until("what the PBX knows is let be", lambda calls: True)
        assert call["ended_at"] is None

        one.pbx.channels = []  # its hangups were never told
        [ended] = await one.until("the sweeper closed it", lambda calls: calls[0]["ended_at"])
        assert (ended["id"], ended["result"], ended["answered_by"], ended["gap"]) == (call["id"], "answered", "150", True)
        assert one.feed.live_calls == 0


async def test_a_channel_that_one_look_misses_is_let_be(db: Database) -> None:
    """Its event may be on the way: only what is out of step twice in a row was not seen."""
    async with site(db, sweep_s=0.3) as one:
        one.pbx.send(TALKING)
        await one.until("somebody talks", lambda calls: calls and calls[0]["answered_at"])
        await one.asked_again(1)
        one.pbx.channels = []
        await one.asked_again(1)
        one.pbx.channels = list(LEGS)
        await one.asked_again(3)
        [call] = await one.until("it lives", lambda calls: True)
        assert (call["ended_at"], one.feed.live_calls) == (None, 1)


async def test_a_pbx_that_is_away_for_an_hour_leaves_no_call_open_and_its_return_doubles_none(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "GIVE_UP_S", UNNOTICED_S + 0.5)  # its line may have been dead before: an hour from then
    async with site(db, sweep_s=60) as one:
        one.pbx.send(TALKING)
        [talking] = await one.until("somebody talks", lambda calls: calls and calls[0]["answered_at"])
        await one.pbx.stop()
        [ended] = await one.until("it is given up", lambda calls: calls[0]["ended_at"])
        assert (ended["id"], ended["result"], ended["answered_by"], ended["gap"]) == (talking["id"], "answered", "150", True)
        assert ended["ended_at"] >= talking["answered_at"]
        assert one.feed.live_calls == 0

        # The two talked on all the while: that record is closed, and what they still say begins no other.
        await one.pbx.start()
        await asyncio.wait_for(one.pbx.connected.wait(), WITHIN_S)
        one.pbx.send(TRACE[len(TALKING) :])
        one.pbx.send(TRACE.replace(FIRST[:-2].encode() + b".", b"1800000000."))
        calls = await one.until("the next call is whole", lambda calls: len(calls) == 2 and calls[0]["ended_at"])
        assert [(call["result"], call["gap"]) for call in calls] == [("answered", False), ("answered", True)]
        assert calls[1] == ended


async def test_a_database_that_stands_still_holds_up_no_event(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site(db, sweep_s=60) as one:
        moves_on, record = asyncio.Event(), one.recorder.record

        async def stands_still(*change: Any) -> set[str]:
            await moves_on.wait()
            return await record(*change)

        monkeypatch.setattr(one.recorder, "record", stands_still)
        one.pbx.send(TALKING)
        async with asyncio.timeout(WITHIN_S):
            while one.feed.live_calls != 1:
                await asyncio.sleep(0.01)
            one.pbx.send(TRACE[len(TALKING) :])
            while one.feed.live_calls:
                await asyncio.sleep(0.01)
        assert (await one.calls.page(NUMBER))[0] == []
        moves_on.set()
        [call] = await one.until("all of it is stored", lambda calls: calls and calls[0]["ended_at"])
        assert (call["result"], call["gap"]) == ("answered", False)


async def trace_with(db: Database, call_id: str, events: int) -> StoredTrace:
    """Waits until this many raw events of a call are kept."""
    async with asyncio.timeout(WITHIN_S):
        while (found := await TraceRepository(db).get(NUMBER, call_id)) is None or len(found.chunks) < events:
            await asyncio.sleep(0.02)
    return found


async def test_the_raw_events_of_a_running_call_are_kept_while_it_runs(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "TRACE_S", 0.05)
    ringing = TALKING[: TALKING.index(b"Event: DialEnd")]
    async with site(db, sweep_s=60, tracer=Tracer()) as one:
        one.pbx.send(ringing)
        [call] = await one.until("it rings", lambda calls: calls and calls[0]["rang"])
        first = await trace_with(db, call["id"], ringing.count(b"Event: "))
        assert await TraceRepository(db).has(NUMBER, call["id"])
        assert first.changes[-1]["signals"] == ["Ringing 150"]

        keep = one.recorder.keep_traces
        monkeypatch.setattr(one.recorder, "keep_traces", _refused)
        one.pbx.send(TALKING[len(ringing) :])
        await one.until("somebody talks", lambda calls: calls[0]["answered_at"])
        monkeypatch.setattr(one.recorder, "keep_traces", keep)
        both = await trace_with(db, call["id"], TALKING.count(b"Event: ") - 1)  # that a bridge was made is said of no call
        assert (both.raw.startswith(first.raw), both.chunks[: len(first.chunks)]) == (True, first.chunks)
        assert both.raw.count(b"Event: ") == len(both.chunks) == TALKING.count(b"Event: ") - 1
        assert [change["record"].get("answered_by") for change in both.changes if "answered_by" in change["record"]] == ["150"]
        assert not await TraceRepository(db).has("0368", call["id"])


async def _refused(*_: object) -> None:
    raise OSError("the database is away")


async def test_all_parts_of_a_trace_go_with_their_day(db: Database) -> None:
    async with site(db, sweep_s=60) as one:
        parts = Tracer()
        parts.inbox.append((Frame(b"Event: Newchannel\r\nUniqueid: 1\r\nLinkedid: 1.1"), 1.0))
        call = a_call(linkedid="1.1")
        parts.changed([CallChange(call, (), 1.0)])
        [part] = parts.parts(50.0)
        for age_days in (3, 9, 0):
            await one.recorder.keep_traces(NUMBER, "main", [pack(part, None)])
            async with db.tenant(NUMBER) as connection:
                await connection.execute(
                    "update call_traces set stored_at = stored_at - make_interval(days => $1) where stored_at > now() - interval '1 hour'", age_days
                )
        await db.fetch("select keep_traces($1)", 7)
        async with db.tenant(NUMBER) as connection:
            assert await connection.fetchval("select count(*) from call_traces where call_id = $1", uuid.UUID(call.id)) == 2


async def test_a_clock_that_is_set_an_hour_on_or_back_in_mid_call_stretches_no_call_and_ends_none(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    real, step = time.time, [0.0]
    monkeypatch.setattr(feed_module.time, "time", lambda: real() + step[0])
    async with site(db, sweep_s=0.1) as one:
        for name, stepped in (("1800000001", 3_600.0), ("1800000002", -3_600.0)):
            trace = TRACE.replace(FIRST[:-2].encode() + b".", name.encode() + b".")
            cut = trace.index(b"Event: HangupRequest")
            one.pbx.channels = [name + FIRST[-2:], (name + FIRST[-2:])[:-1] + "1"]
            one.pbx.send(trace[:cut])
            await one.until("somebody talks", lambda calls: calls and calls[0]["answered_at"] and not calls[0]["ended_at"])
            step[0] += stepped
            await one.asked_again(3)
            [live, *_] = await one.until("it lives on", lambda calls: True)
            assert live["ended_at"] is None
            one.pbx.channels = []
            one.pbx.send(trace[cut:])
            [ended, *_] = await one.until("it ended", lambda calls: calls[0]["ended_at"])
            assert ended["id"] == live["id"]
            assert (ended["result"], ended["gap"]) == ("answered", False)
            assert 0 <= ended["talk_seconds"] < 60
            assert 0 <= ended["wait_seconds"] < 60
            await asyncio.sleep(0)
