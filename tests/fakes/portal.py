"""The Bitrix24 adapter on a portal in a box, without a database: one lane per call, tokens in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from adapters.base import Connection, Tenant
from adapters.bitrix24.deliver import Bitrix24
from adapters.http import CrmHttp
from daemon.delivery.rate import AccountLimiter
from daemon.model.call import Call
from daemon.model.delivery import Delivered, Delivery, Exchange, Kind, Outcome, Planned, Retry, Throttled
from daemon.model.signal import CallChange, Signal
from daemon.security.egress import EgressPolicy
from daemon.wiring.crm import GuardedSessions, _secrets_of
from lab.crm.bitrix24 import Bitrix24Sandbox
from tests.patience import PATIENCE_S
from tests.rig import NUMBER

TENANT = Tenant(NUMBER, "Июнь", "Europe/Minsk", "BY")


class MemoryTokens:
    """A token store of one process."""

    def __init__(self) -> None:
        self.tokens: Mapping[str, Any] | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        async with self._lock:
            yield

    async def load(self) -> Mapping[str, Any] | None:
        return self.tokens

    async def save(self, tokens: Mapping[str, Any]) -> None:
        self.tokens = dict(tokens)


@dataclass
class Desk:
    """An adapter at work with one portal."""

    box: Bitrix24Sandbox
    sessions: GuardedSessions
    raw: dict[str, Any]
    tenant: Tenant = TENANT
    tokens: MemoryTokens = field(default_factory=MemoryTokens)
    adapter: Bitrix24 = field(default_factory=Bitrix24)
    limiter: AccountLimiter = field(default_factory=lambda: AccountLimiter(Bitrix24.policy.rates))
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    exchanges: list[Exchange] = field(default_factory=list)
    planned: set[str] = field(default_factory=set)

    @property
    def settings(self) -> Any:
        return self.adapter.settings.model_validate(self.raw)

    def connection(self, deadline_s: float = PATIENCE_S) -> Connection:
        http = CrmHttp(self.sessions, self.limiter, time.monotonic() + deadline_s, _secrets_of(self.settings), exchanges=self.exchanges)
        return Connection(self.tenant, self.settings, http, self.tokens)

    def plan(self, call: Call, *signals: Signal, late: bool = False) -> list[Planned]:
        """What is new: the same key is never planned twice."""
        planned = self.adapter.plan(CallChange(call, signals, 1_763_701_801.0, late), self.settings, self.tenant)
        fresh = [item for item in planned if item.key not in self.planned]
        self.planned |= {item.key for item in fresh}
        return fresh

    def delivery(self, call: Call, item: Planned, attempt: int = 1, links: tuple[str, ...] = ()) -> Delivery:
        return Delivery(1, item.kind, call, item.payload, attempt, self.memory.get(call.id, {}), links if item.with_recordings else ())

    async def send(self, *deliveries: Delivery, deadline_s: float = PATIENCE_S) -> list[Outcome]:
        outcomes = list(await self.adapter.deliver(self.connection(deadline_s), deliveries))
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            if isinstance(outcome, Delivered):
                self.memory[delivery.call.id] = {**self.memory.get(delivery.call.id, {}), **outcome.memory}
        return outcomes

    async def lost(self, delivery: Delivery) -> Outcome:
        """What is made of an answer that never comes; a try for which there was no time even to ask is made again."""
        while isinstance(outcome := (await self.send(delivery, deadline_s=0.3))[0], Retry | Throttled):
            pass
        return outcome

    async def tell(self, call: Call, *signals: Signal, links: tuple[str, ...] = ("http://127.0.0.1/recordings/abc.wav",), late: bool = False) -> list[Outcome]:
        """Plans a change and tells the portal of it, as a lane does."""
        return [(await self.send(self.delivery(call, item, links=links)))[0] for item in self.plan(call, *signals, late=late)]

    async def journal(self, call: Call, attempt: int = 1, **payload: Any) -> Outcome:
        """A finish by hand."""
        return (await self.send(Delivery(1, Kind.JOURNAL, call, {"step": "finish", **payload}, attempt, self.memory.get(call.id, {}))))[0]


@asynccontextmanager
async def desk(box: Bitrix24Sandbox | None = None, *, application: bool = False, **settings: Any) -> AsyncIterator[Desk]:
    """A desk with a portal of its own, by its webhook or its application."""
    box = box or Bitrix24Sandbox()
    await box.start()
    sessions = GuardedSessions(EgressPolicy(["127.0.0.0/8"]))
    try:
        built = Desk(box, sessions, box.application(**settings) if application else box.settings(**settings))
        if application:
            granted = box.grant()
            built.tokens.tokens = {
                "access_token": granted.access, "refresh_token": granted.refresh, "client_endpoint": f"{box.url}/rest/", "client_id": box.client_id,
                "user_id": box.webhook_user,
            }  # fmt: skip
        yield built
    finally:
        await sessions.close()
        await box.stop()
