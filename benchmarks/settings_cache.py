"""Settings: the cost of a read from memory, and how soon one UPDATE of every enterprise is fresh in two daemons' caches.

Each node is a process of its own with its own pool, LISTEN connection and cache, as in a daemon; all on the same cores as PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import time
import timeit
from dataclasses import dataclass

import asyncpg

from adapters.registry import adapters
from daemon.lifecycle import run_async
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.embedded import EmbeddedPostgres
from daemon.store.migrate import migrate
from daemon.store.pool import Database
from daemon.tenants.service import Tenants
from lab.run import short_directory

ENTERPRISES = 500
NODES = 2
DEADLINE_S = 30.0


@dataclass(frozen=True)
class Result:
    """`hit_us`: best and median of rounds, one read. `fresh_s`: per round, from before the UPDATE to the last enterprise on the last node."""

    hit_us: tuple[float, float]
    fresh_s: list[float]


def _tenants(db: Database) -> Tenants:
    return Tenants(db, Vault(["k" * 40]), EgressPolicy(["127.0.0.0/8"]), {name: adapter.settings for name, adapter in adapters().items()})


async def measure(rounds: int = 5) -> Result:
    """Starts PostgreSQL and two nodes with 500 enterprises."""
    home = short_directory("vochid-bench-")
    server = EmbeddedPostgres(home)
    await server.start(own=True)
    nodes: list[asyncio.subprocess.Process] = []
    try:
        await migrate(server.url)
        db = await Database.open(server.url)
        tenants = _tenants(db)
        for n in range(ENTERPRISES):
            await tenants.put(f"{n:04d}", _document(f"{n:04d}"))
        owner = await asyncpg.connect(server.url)
        hits = sorted(time_s / 100_000 * 1e6 for time_s in timeit.repeat(lambda: tenants.get("0000"), number=100_000, repeat=9))
        for _ in range(NODES):
            command = [sys.executable, "-m", "benchmarks.settings_cache", server.url, str(rounds)]
            nodes.append(await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE))
        for node in nodes:
            assert (await _line(node)) == "ready"
        fresh_s = []
        for n in range(1, rounds + 1):
            await asyncio.sleep(1)
            at = time.time()
            await owner.execute("update enterprises set name = $1", f"name {n}")
            fresh_s.append(max([float(await _line(node)) for node in nodes]) - at)
        await owner.close()
        await db.close()
        return Result((hits[0], hits[len(hits) // 2]), fresh_s)
    finally:
        for node in nodes:
            with contextlib.suppress(ProcessLookupError):
                node.kill()
            await node.wait()
        await server.stop()
        shutil.rmtree(home, ignore_errors=True)


def _document(number: str) -> dict[str, object]:
    return {
        "number": number, "name": "name 0", "pbxs": [{"name": "main", "host": "10.0.0.1"}],
        "lines": [{"number": f"+37517111{n:04d}"} for n in range(10)], "internal_phones": [{"number": str(n), "owner": "x"} for n in range(100, 120)],
        "integrations": {"retailcrm": {"domain": "https://example.retailcrm.ru", "api_key": "bench-key-0123456789"}},
    }  # fmt: skip


async def _line(node: asyncio.subprocess.Process) -> str:
    assert node.stdout is not None
    return (await asyncio.wait_for(node.stdout.readline(), DEADLINE_S)).decode().strip()


async def _node(url: str, rounds: int) -> None:
    """A daemon's cache: says when it is ready, and the time at which each round's last enterprise was fresh."""
    db = await Database.open(url)
    tenants = _tenants(db)
    changed = asyncio.Event()
    tenants.on_change(lambda _: changed.set())
    running = asyncio.ensure_future(tenants.run())
    for n in range(rounds + 1):
        while len(tenants.all()) != ENTERPRISES or any(t.enterprise.name != f"name {n}" for t in tenants.all().values()):
            await changed.wait()
            changed.clear()
        print(time.time() if n else "ready", flush=True)
    await asyncio.sleep(DEADLINE_S)
    running.cancel()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("url")
    arguments.add_argument("rounds", type=int)
    parsed = arguments.parse_args()
    run_async(_node(parsed.url, parsed.rounds))
