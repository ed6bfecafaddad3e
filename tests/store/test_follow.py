"""Requests followed to their end: by what is stored, by the PBX's answers, and by time. The database is real, the PBX is not needed."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from daemon.ami.actions import Action
from daemon.ami.link import Link, LinkState, LinkStatus, LinkTarget
from daemon.ami.session import Answer
from daemon.ami.wire import Frame
from daemon.model.call import Call, Direction, Leg, LegKind, Result
from daemon.model.signal import CallChange
from daemon.originate.follow import ANSWER_TIMEOUT_S, FORGET_AFTER_S, GRACE_S, Follower, Watched
from daemon.originate.states import Progress, State
from daemon.store.calls import CallRepository
from daemon.store.originates import OriginateRepository, OriginateRequest
from daemon.store.pool import Database
from tests.rig import WITHIN_S, a_call
from tests.store.test_originates import LIMITS, asked

SILENT_S = ANSWER_TIMEOUT_S + GRACE_S + 1


class Bench:
    """A follower with its table; `recorded`: what was told as a call of its own."""

    def __init__(self, db: Database) -> None:
        self.repository = OriginateRepository(db)
        self.recorded: list[tuple[str, Progress]] = []
        self.link: Link | None = Link("0367/main", LinkTarget("127.0.0.1", 9, "u", "s"), None, asyncio.Semaphore(1))  # type: ignore[arg-type]
        self.follower = Follower(self.repository, CallRepository(db), lambda _: self.link, self._record, no_call_after_s=0.2)

    async def _record(self, request: OriginateRequest, progress: Progress) -> None:
        self.recorded.append((request.id, progress))

    async def request(self) -> Watched:
        return self.follower.watch(await self.repository.reserve("0367", asked(), LIMITS))

    async def stored(self, watched: Watched) -> OriginateRequest:
        return await self.repository.get("0367", watched.request.id)

    async def until(self, watched: Watched, condition: Callable[[OriginateRequest], bool]) -> OriginateRequest:
        async with asyncio.timeout(WITHIN_S):
            while not condition(found := await self.stored(watched)):
                await asyncio.sleep(0.01)
        return found


@pytest.fixture
async def bench(db: Database) -> AsyncIterator[Bench]:
    built = Bench(db)
    yield built
    await built.follower.stop()


def change(watched: Watched, result: Result | None, *, picked_up: bool = False, talked: bool = False, call_id: str = "") -> CallChange:
    leg = Leg("PJSIP/150-1", "150", LegKind.INTERNAL, 1.0, 2.0 if picked_up else None, 9.0 if result else None, None)
    call: Call = a_call(
        id=call_id or str(uuid.uuid4()), linkedid=watched.request.channel_id, direction=Direction.OUT, legs=(leg,), result=result,
        answered_at=3.0 if talked else None, ended_at=9.0 if result else None, click_to_call=True,
    )  # fmt: skip
    return CallChange(call, (), 9.0)


def event(watched: Watched, response: str, reason: str) -> Frame:
    return Frame(
        f"Event: OriginateResponse\r\nActionID: {watched.request.channel_id}\r\nResponse: {response}\r\nReason: {reason}\r\nUniqueid: <unknown>".encode()
    )


async def test_a_call_moves_its_request_on_and_no_other(bench: Bench) -> None:
    one, other = await bench.request(), await bench.request()
    key = str(uuid.uuid4())
    for result, picked_up, talked, state in (
        (None, False, False, State.SENT), (None, True, False, State.MANAGER_ANSWERED), (None, True, True, State.CUSTOMER_ANSWERED),
        (Result.ANSWERED, True, True, State.ENDED),
    ):  # fmt: skip
        bench.follower.stored("0367", [change(one, result, picked_up=picked_up, talked=talked, call_id=key)])
        await bench.until(one, lambda found, state=state: found.state == state)  # type: ignore[misc]
    assert (await bench.stored(one)).call_id == key
    bench.follower.stored("0400", [change(other, Result.BUSY, picked_up=True)])
    assert (await bench.stored(other)).state == State.RESERVED
    bench.follower.sweep(time.time())
    assert bench.follower.find(one.request) is None
    assert bench.follower.find(other.request) is other


async def test_a_failure_without_a_channel_is_recorded_as_a_call_and_one_with_a_call_is_not(bench: Bench) -> None:
    bare, heard, unsent = await bench.request(), await bench.request(), await bench.request()
    for watched in (bare, heard):
        bench.follower.responded(watched.key, event(watched, "Failure", "0"), 0.0)
    bench.follower.stored("0367", [change(heard, Result.NO_ANSWER)])
    bench.follower.move(unsent, Progress(State.FAILED, "pbx_link_down", "gone"))
    async with asyncio.timeout(WITHIN_S):
        while not bench.recorded:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert [request for request, _ in bench.recorded] == [bare.request.id]
    found = await bench.until(heard, lambda found: found.state == State.FAILED and found.call_id is not None)
    assert found.code == "manager_unreachable"


async def test_a_look_at_the_pbx_after_it_came_back_judges_what_was_sent_before_and_not_what_was_sent_since(bench: Bench) -> None:
    before, since = await bench.request(), await bench.request()

    async def taken() -> None: ...

    async def nothing_lives(_: Action) -> Answer:
        return Answer(Frame(b"Response: Success\r\nActionID: 1"))

    assert bench.link is not None
    bench.link.request = nothing_lives  # type: ignore[method-assign, assignment]
    await bench.follower.send(before, taken())
    bench.link.status = LinkStatus(LinkState.READY, since=before.sent_at + 0.001)
    await asyncio.sleep(0.002)
    await bench.follower.send(since, taken())
    for watched in (before, since):
        bench.follower.move(watched, Progress(State.SENT))
        await bench.until(watched, lambda found: found.state == State.SENT)
    bench.follower.link_up(before.key)
    found = await bench.until(before, lambda found: found.state == State.UNKNOWN)
    assert found.code == "not_seen"
    assert since.state is State.SENT, "its channel may not be there yet"


async def test_an_answer_for_somebody_else_changes_nothing(bench: Bench) -> None:
    watched = await bench.request()
    bench.follower.responded(("0400", "main"), event(watched, "Success", "4"), 0.0)
    bench.follower.responded(
        watched.key, Frame(b"Event: OriginateResponse\r\nResponse: Failure\r\nReason: 0\r\nUniqueid: " + watched.request.channel_id.encode()), 0.0
    )
    assert watched.state is State.RESERVED
    bench.follower.responded(watched.key, event(watched, "Success", "4"), 0.0)
    assert watched.state is State.MANAGER_ANSWERED


async def test_what_nothing_is_heard_of_becomes_unknown_and_is_forgotten_but_a_late_end_still_counts(bench: Bench) -> None:
    watched = await bench.request()
    bench.follower.move(watched, Progress(State.SENT))
    began = watched.request.created_at.timestamp()
    bench.follower.sweep(began + SILENT_S - 2)
    assert watched.state is State.SENT
    bench.follower.sweep(began + SILENT_S)
    found = await bench.until(watched, lambda found: found.state == State.UNKNOWN)
    assert found.reason == "the PBX never told what became of it"
    bench.follower.stored("0367", [change(watched, Result.ANSWERED, picked_up=True, talked=True)])
    await bench.until(watched, lambda found: found.state == State.ENDED)
    lost = await bench.request()
    bench.follower.sweep(lost.request.created_at.timestamp() + SILENT_S + FORGET_AFTER_S)
    assert bench.follower.find(lost.request) is None


async def test_a_pbx_that_another_process_reads_now_is_left_to_it(bench: Bench) -> None:
    watched = await bench.request()
    bench.link = None
    bench.follower.sweep(time.time() + SILENT_S)
    assert bench.follower.find(watched.request) is None
    assert (await bench.stored(watched)).state == State.RESERVED


async def test_every_end_is_a_line_of_the_log(bench: Bench, db: Database) -> None:
    busy, absent = await bench.request(), await bench.request()
    bench.follower.stored("0367", [change(busy, Result.BUSY, picked_up=True), change(absent, Result.NO_ANSWER)])
    await bench.until(busy, lambda found: found.state == State.ENDED)
    await bench.until(absent, lambda found: found.state == State.FAILED)
    rows: list[Any] = []
    async with asyncio.timeout(WITHIN_S):
        while len(rows) < 2:
            rows = await CallRepository(db).logs("0367", event_type="make_call")
    assert {(row["status"], row["response_data"]["code"], row["error_message"]) for row in rows} == {
        ("success", "customer_busy", None), ("error", "manager_no_answer", "the manager did not pick up"),
    }  # fmt: skip
