"""Bitrix24: requests to the portal per telephone call, and how long a popup waits while a backlog fills the portal's bucket.

Calls are whole lifetimes (rings in a group, answered, ended, recording) handed to the adapter as the outbox hands them, on the strict portal in a box with
its real limits. No database and no Asterisk: what is measured is the portal's side, where two requests a second are all there is.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from adapters.base import Connection, Tenant
from adapters.bitrix24.deliver import Bitrix24
from adapters.http import CrmHttp
from daemon.delivery.rate import AccountLimiter
from daemon.model.call import Call, Direction, Result
from daemon.model.delivery import Delivered, Delivery, Kind, Outcome, Rate
from daemon.model.signal import Answered, CallChange, Ended, Ringing, Signal, StoppedRinging
from daemon.security.egress import EgressPolicy
from daemon.wiring.crm import GuardedSessions
from lab.crm.bitrix24 import Bitrix24Sandbox

TENANT = Tenant("0367", "June", "Europe/Minsk", "BY")
WARM_UP_S = 5.0  # the bucket is as full as ends may fill it after 40 requests
LINK = ("http://127.0.0.1/recordings/abc.wav",)


@dataclass(frozen=True)
class Costs:
    """HTTP requests per call: calls one after the other, and as many as fit in a request together."""

    ring_group: float
    one_phone: float
    missed: float
    backlog: float


class _NoTokens:
    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        yield

    async def load(self) -> Mapping[str, Any] | None:
        return None

    async def save(self, tokens: Mapping[str, Any]) -> None:
        raise AssertionError("a webhook has no tokens")


@dataclass
class _Portal:
    box: Bitrix24Sandbox
    sessions: GuardedSessions
    adapter: Bitrix24 = field(default_factory=Bitrix24)
    limiter: AccountLimiter = field(default_factory=lambda: AccountLimiter(Bitrix24.policy.rates))
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def settings(self) -> Any:
        return self.adapter.settings.model_validate(self.box.settings())

    def planned(self, call: Call, *signals: Signal) -> list[Delivery]:
        change = CallChange(call, signals, call.started_at)
        return [
            Delivery(1, item.kind, call, item.payload, 1, self.memory.get(call.id, {}), LINK if item.with_recordings else ())
            for item in self.adapter.plan(change, self.settings, TENANT)
        ]

    async def send(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """As the dispatcher does: what is told of a call is in order, so each delivery gets the memory of the one before."""
        fresh = [replace(delivery, memory=self.memory.get(delivery.call.id, {})) for delivery in batch]
        deadline_s = self.adapter.policy.deadline_s[fresh[0].kind]
        http = CrmHttp(self.sessions, self.limiter, time.monotonic() + deadline_s)
        outcomes = await self.adapter.deliver(Connection(TENANT, self.settings, http, _NoTokens()), fresh)
        for delivery, outcome in zip(fresh, outcomes, strict=True):
            if isinstance(outcome, Delivered):
                self.memory[delivery.call.id] = {**self.memory.get(delivery.call.id, {}), **outcome.memory}
        return outcomes


@asynccontextmanager
async def _portal(*, limited: bool) -> AsyncIterator[_Portal]:
    box = Bitrix24Sandbox()
    box.switches.limited = limited
    await box.start()
    sessions = GuardedSessions(EgressPolicy(["127.0.0.0/8"]))
    portal = _Portal(box, sessions)
    if not limited:
        portal.limiter = AccountLimiter(dict.fromkeys(Bitrix24.policy.rates, Rate(1_000, 0.001)))
    try:
        yield portal
    finally:
        await sessions.close()
        await box.stop()


def _call(*rang: str, answered_by: str | None) -> Call:
    return Call(
        id=str(uuid.uuid4()), enterprise=TENANT.number, pbx="main", linkedid="1.1", direction=Direction.IN, started_at=1_763_701_800.0,
        customer_number="+375296254070", line="+375171112233", answered_at=1_763_701_807.0 if answered_by else None, ended_at=1_763_701_848.0,
        talk_seconds=41.0 if answered_by else 0.0, result=Result.ANSWERED if answered_by else Result.NO_ANSWER, rang=rang, answered_by=answered_by,
        last_talked=answered_by, recordings=("rec.wav",) if answered_by else (),
    )  # fmt: skip


def _moments(call: Call) -> list[tuple[Call, tuple[Signal, ...]]]:
    ringing = replace(call, answered_at=None, ended_at=None, result=None, answered_by=None, last_talked=None)
    moments: list[tuple[Call, tuple[Signal, ...]]] = [(ringing, (Ringing(call.rang),))]
    if call.answered_by:
        losers = tuple(number for number in call.rang if number != call.answered_by)
        moments.append((replace(ringing, answered_at=call.answered_at), (Answered(call.answered_by), *([StoppedRinging(losers)] if losers else []))))
    return [*moments, (call, (Ended(()),))]


async def measure_requests(calls: int = 20) -> Costs:
    """Requests per call."""

    async def alone(*rang: str, answered_by: str | None) -> float:
        async with _portal(limited=False) as portal:
            for _ in range(calls):
                for call, signals in _moments(_call(*rang, answered_by=answered_by)):
                    for delivery in portal.planned(call, *signals):
                        await portal.send([delivery])
            assert len(portal.box.finished()) == calls
            return len(portal.box.requests) / calls

    async def together() -> float:
        """After an outage: everything is due at once, in the policy's batches."""
        async with _portal(limited=False) as portal:
            ended = [_call("150", "151", answered_by="151") for _ in range(calls)]
            due = [delivery for call in ended for delivery in portal.planned(call, Ended(()))]
            for kind in (Kind.JOURNAL, Kind.RECORDING):
                kinds = [delivery for delivery in due if delivery.kind is kind]
                size = portal.adapter.policy.batch[kind]
                for first in range(0, len(kinds), size):
                    await portal.send(kinds[first : first + size])
            assert len(portal.box.finished()) == calls
            return len(portal.box.requests) / calls

    return Costs(
        await alone("150", "151", answered_by="151"), await alone("150", answered_by="150"), await alone("150", "151", answered_by=None), await together()
    )


async def measure_popups(popups: int = 40, every_s: float = 1.0, waiters: int = 6) -> tuple[list[float], int]:
    """Latencies of popups in ms, sorted, while a backlog of single ends keeps the bucket as full as it may; and requests that the portal refused.

    `waiters`: ends that wait for their place at any time, as many as the account's concurrency leaves to them.
    """
    async with _portal(limited=True) as portal:
        stop = asyncio.Event()

        async def backlog() -> None:
            while not stop.is_set():
                for delivery in portal.planned(_call("150", answered_by=None), Ended(())):
                    await portal.send([delivery])

        async with asyncio.TaskGroup() as tasks:
            for _ in range(waiters):
                tasks.create_task(backlog())
            await asyncio.sleep(WARM_UP_S)
            latencies = []
            for _ in range(popups):
                call, signals = _moments(_call("150", "151", answered_by=None))[0]
                started = time.perf_counter()
                outcomes = await portal.send(portal.planned(call, *signals))
                assert isinstance(outcomes[0], Delivered), outcomes
                latencies.append((time.perf_counter() - started) * 1000)
                await asyncio.sleep(every_s)
            stop.set()
        return sorted(latencies), sum("QUERY_LIMIT" in refusal for refusal in portal.box.refusals)
