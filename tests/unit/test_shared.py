"""One reading for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from daemon.lookup.shared import Shared
from daemon.supervisor import Supervisor


class Source:
    """Counts how often it was read; the reading ends when it is let go."""

    def __init__(self) -> None:
        self.began = 0
        self.go = asyncio.Event()

    async def read(self, key: str) -> int:
        self.began += 1
        mine = self.began
        await self.go.wait()
        if key == "broken":
            raise OSError("away")
        return mine


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    found = Supervisor("test")
    yield found
    await found.stop()


async def _began(source: Source, count: int) -> None:
    async with asyncio.timeout(30):
        while source.began < count:
            await asyncio.sleep(0)


async def test_who_asks_at_once_shares_one_reading_and_who_comes_while_it_runs_shares_the_next(supervisor: Supervisor) -> None:
    source = Source()
    shared = Shared(source.read, supervisor)
    first = [asyncio.ensure_future(shared.get("a")) for _ in range(100)]
    await _began(source, 1)
    second = [asyncio.ensure_future(shared.get("a")) for _ in range(100)]
    source.go.set()
    assert await asyncio.gather(*first) == [1] * 100
    assert await asyncio.gather(*second) == [2] * 100
    assert await shared.get("a") == 3


async def test_keys_do_not_wait_for_each_other(supervisor: Supervisor) -> None:
    source = Source()
    shared = Shared(source.read, supervisor)
    asked = [asyncio.ensure_future(shared.get(key)) for key in ("a", "b")]
    await _began(source, 2)
    source.go.set()
    assert sorted(await asyncio.gather(*asked)) == [1, 2]


async def test_who_gives_up_takes_nobody_along(supervisor: Supervisor) -> None:
    source = Source()
    shared = Shared(source.read, supervisor)
    impatient, patient = (asyncio.ensure_future(shared.get("a")) for _ in range(2))
    await _began(source, 1)
    impatient.cancel()
    await asyncio.sleep(0)
    source.go.set()
    assert await patient == 1


async def test_a_failed_reading_fails_for_those_who_shared_it_and_the_next_is_tried(supervisor: Supervisor) -> None:
    source = Source()
    source.go.set()
    shared = Shared(source.read, supervisor)
    results = await asyncio.gather(*(shared.get("broken") for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [OSError] * 3
    with pytest.raises(OSError, match="away"):
        await shared.get("broken")
    assert source.began == 2


async def test_an_answer_is_kept_while_it_is_fresh_and_forgotten_when_it_is_known_to_be_old(supervisor: Supervisor) -> None:
    source = Source()
    source.go.set()
    shared = Shared(source.read, supervisor, fresh_s=3_600)
    assert [await shared.get("a"), await shared.get("a")] == [1, 1]
    shared.forget("a")
    assert [await shared.get("a"), await shared.get("a")] == [2, 2]


async def test_what_was_being_read_when_it_became_old_is_not_kept(supervisor: Supervisor) -> None:
    source = Source()
    shared = Shared(source.read, supervisor, fresh_s=3_600)
    asked = asyncio.ensure_future(shared.get("a"))
    await _began(source, 1)
    shared.forget("a")
    source.go.set()
    assert await asked == 1
    assert await shared.get("a") == 2
