"""The dispatcher while its database is away."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import asyncpg
import pytest

from daemon.delivery import dispatcher as dispatcher_module
from daemon.delivery.dispatcher import Dispatcher
from daemon.supervisor import Supervisor


class Outbox:
    """Away for its first looks."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures
        self.looked = asyncio.Event()

    async def release_expired(self) -> int:
        if self.failures:
            raise self.failures.pop()
        return 0

    async def due(self) -> list[tuple[str, str]]:
        self.looked.set()
        return [("0367", "retailcrm")]


class NoPorts:
    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def port(self, enterprise: str, integration: str) -> Any:
        self.asked[integration] += 1


async def test_it_looks_on_at_its_own_pace_while_the_database_is_away_and_goes_on_at_once_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "POLL_S", 0.01)
    away: list[Exception] = [OSError("refused"), TimeoutError(), asyncpg.InterfaceError("closed"), asyncpg.PostgresConnectionError("gone")]
    outbox, ports, supervisor = Outbox(away * 5), NoPorts(), Supervisor("test")
    dispatcher = Dispatcher(outbox, ports, lambda *_: None)  # type: ignore[arg-type]
    supervisor.serve("dispatcher", dispatcher.run)
    try:
        async with asyncio.timeout(30):
            await outbox.looked.wait()
            while not ports.asked["retailcrm"]:
                await asyncio.sleep(0.01)
        assert supervisor.health["dispatcher"].restarts == 0
    finally:
        await supervisor.stop()
        await dispatcher.stop()
