"""The settings cache: against a source that can be steered, and against PostgreSQL with two daemons' caches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection

import asyncpg
import pytest

from adapters.retailcrm.deliver import RetailCrm
from daemon.errors import SettingsError
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.enterprises import StoredEnterprise
from daemon.store.pool import Database
from daemon.tenants.cache import JITTER, REFRESH_S, TTL_S, SettingsCache
from daemon.tenants.documents import Documents, Tenancy
from daemon.tenants.service import Tenants
from tests.rig import WITHIN_S


class Source:
    """Stored tenants by number -> name, and what was asked of them."""

    def __init__(self, *numbers: str) -> None:
        self.names = {number: "first" for number in numbers}
        self.asked: list[frozenset[str] | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False

    async def read(self, numbers: Collection[str] | None) -> list[StoredEnterprise]:
        self.asked.append(None if numbers is None else frozenset(numbers))
        names = dict(self.names)
        await self.gate.wait()
        if self.fails:
            raise ConnectionError("no database")
        crm = {"retailcrm": {"domain": "https://example.retailcrm.ru", "api_key": "k" * 32}}
        return [StoredEnterprise(n, name, {"pbxs": [], "paused": name == "paused"}, crm) for n, name in names.items() if numbers is None or n in numbers]


def cache_of(source: Source) -> SettingsCache:
    return SettingsCache(source.read, Documents(Vault(["k" * 40]), EgressPolicy(), {"retailcrm": RetailCrm.settings}).parse)


def name_of(cache: SettingsCache, number: str) -> str | None:
    tenancy = cache.get(number)
    return tenancy.enterprise.name if tenancy else None


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_notification_reads_the_tenant_it_names_and_no_other() -> None:
    source = Source("1", "2")
    cache = cache_of(source)
    heard: list[set[str]] = []
    cache.on_change(heard.append)
    running = asyncio.ensure_future(cache.run(lambda: True))
    try:
        await until(lambda: heard == [{"1", "2"}])
        source.names |= {"1": "second", "2": "second"}
        cache.notified(json.dumps({"enterprise_number": "1", "integration_type": "retailcrm"}))
        await until(lambda: name_of(cache, "1") == "second")
        assert name_of(cache, "2") == "first"
        assert source.asked == [None, frozenset({"1"})]
        del source.names["1"]
        cache.notified(json.dumps({"enterprise_number": "1", "integration_type": None}))
        await until(lambda: cache.get("1") is None)
        for nonsense in ("", "{", "[]", "null", '{"enterprise_number": 7}', "[" * 100_000):
            source.names["2"] = f"after {nonsense[:20]}"
            cache.notified(nonsense)
            await until(lambda: name_of(cache, "2") == source.names["2"])
        assert source.asked[3:] == [None] * 6
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_many_who_ask_at_once_share_one_load_and_see_what_was_there_when_they_asked() -> None:
    source = Source("1")
    cache = cache_of(source)
    await cache.load()
    source.gate.clear()
    early = asyncio.ensure_future(cache.refresh({"1"}))
    await until(lambda: len(source.asked) == 2)
    source.names["1"] = "second"
    late = [asyncio.ensure_future(cache.refresh({"1"})) for _ in range(50)]
    await asyncio.sleep(0)
    assert name_of(cache, "1") == "first"  # a read never waits
    source.gate.set()
    await asyncio.gather(early, *late)
    assert name_of(cache, "1") == "second"
    assert len(source.asked) == 3


async def test_what_is_past_its_ttl_is_served_as_it_is_and_read_anew_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.tenants.cache.TTL_S", (-1.0, -1.0))
    source = Source("1", "2")
    cache = cache_of(source)
    running = asyncio.ensure_future(cache.run(lambda: True))
    try:
        await until(lambda: cache.all())
        source.names["1"] = "second"
        assert name_of(cache, "1") == "first"
        await until(lambda: cache.all()["1"].enterprise.name == "second")
        assert source.asked == [None, frozenset({"1"})]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_failed_load_leaves_what_was_there_and_is_made_up_for() -> None:
    source = Source("1", "2")
    cache = cache_of(source)
    await cache.load()
    source.names["1"], source.fails = "second", True
    with pytest.raises(ConnectionError):
        await cache.refresh({"1"})
    assert name_of(cache, "1") == "first"
    source.fails = False
    await cache.refresh({"2"})
    assert name_of(cache, "1") == "second"


async def test_a_document_that_cannot_be_read_keeps_its_last_good_state() -> None:
    source = Source("1")
    good = cache_of(source)._parse
    bad = False

    def parse(row: StoredEnterprise, known: Tenancy | None) -> Tenancy:
        if bad:
            raise SettingsError("broken")
        return good(row, known)

    cache = SettingsCache(source.read, parse)
    await cache.load()
    bad, source.names["1"] = True, "second"
    await cache.load()
    assert name_of(cache, "1") == "first"


async def test_the_matrix_names_what_is_at_work() -> None:
    source = Source("1", "2")
    source.names["2"] = "paused"
    cache = cache_of(source)
    await cache.load()
    assert cache.matrix() == {"1": {"retailcrm"}, "2": set()}


def test_the_times_are_those_of_the_contract() -> None:
    assert TTL_S == (60.0, 120.0)
    assert 180 <= REFRESH_S * (1 - JITTER[1]) < REFRESH_S * (1 + JITTER[1]) <= 300
    assert JITTER == (0.10, 0.20)


async def test_one_update_of_many_tenants_reaches_two_daemons_and_is_counted(db: Database, vault: Vault) -> None:
    nodes = [Tenants(db, vault, EgressPolicy(), {"retailcrm": RetailCrm.settings}) for _ in range(2)]
    for number in range(20):
        await nodes[0].put(f"{number:04d}", {"number": f"{number:04d}", "name": "first", "pbxs": []})
    running = [asyncio.ensure_future(node.run()) for node in nodes]
    try:
        await until(lambda: all(len(node.all()) == 20 for node in nodes))
        owner = await asyncpg.connect(db.url)
        await owner.execute("update enterprises set name = 'second'")
        await owner.close()
        await until(lambda: all(t.enterprise.name == "second" for node in nodes for t in node.all().values()))
        notified = nodes[1]._cache._notified
        await until(lambda: notified["received"] >= 20 and notified["received"] == notified["applied"])
        assert notified["failed"] == 0
        nodes[1].report()
        assert not notified
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_reads_are_counted_by_tenant_and_in_all() -> None:
    cache = cache_of(Source("1", "2"))
    await cache.load()
    for number in ("1", "1", "2", "9"):
        cache.get(number)
    assert (cache.counts("1"), cache.counts("2"), cache.counts("3"), cache.counts(None)) == ((2, 0), (1, 0), (0, 0), (3, 1))
    cache.report()
    assert cache.counts(None) == (3, 1)
