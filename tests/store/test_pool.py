"""The pool when its server goes without a word, and what a database that takes no writes does to readiness."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from daemon.store import leases as leases_module
from daemon.store import pool as pool_module
from daemon.store.leases import LeaseLost, Leases
from daemon.store.pool import Database
from daemon.supervisor import Supervisor
from lab.cable import Cable
from lab.run import short_directory
from tests.rig import WITHIN_S

KEY = ("0367", "main")
NO_ROOM = """
create function no_room() returns trigger language plpgsql as $$ begin raise exception 'no space left on device' using errcode = '53100'; end $$;
create trigger no_room before update on leases for each row execute function no_room();
"""


@pytest.fixture
async def through(database_url: str) -> AsyncIterator[tuple[Cable, str]]:
    """A cable before the server's Unix socket, and the URL through it."""
    host = parse_qs(urlsplit(database_url).query)["host"][0]
    folder = short_directory("vochid-pool-")
    cable = Cable(Path(host) / ".s.PGSQL.5432", folder / ".s.PGSQL.5432")
    await cable.mend()
    yield cable, database_url.replace(f"host={host}", f"host={folder}")
    await cable.cut()
    (folder / ".s.PGSQL.5432").unlink(missing_ok=True)
    folder.rmdir()


async def test_connections_whose_server_went_without_a_word_are_given_up_and_new_ones_work(through: tuple[Cable, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "COMMAND_DEADLINE_S", 0.5)
    cable, url = through
    db = await Database.open(url, size=2)

    async def works(*queries: str) -> list[object]:
        """What these give together, once the machine is quick enough for the deadline."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(TimeoutError):
                    return list(await asyncio.gather(*map(db.fetchval, queries)))

    try:
        assert await works("select 1 from pg_sleep(0.05)", "select 2 from pg_sleep(0.05)") == [1, 2], "both connections are open"
        monkeypatch.setattr(pool_module, "ACQUIRE_DEADLINE_S", 0.5)
        cable.stall()  # not even a request to cancel gets through
        async with asyncio.timeout(WITHIN_S):
            for _ in range(4):
                with pytest.raises((OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)):
                    await db.fetchval("select 2")
        cable.strand()
        assert await works("select 3") == [3]
    finally:
        db._pool.terminate()


async def test_locks_of_a_process_that_the_server_lost_without_a_word_are_free_again(
    through: tuple[Cable, str], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "ABANDONED_S", 0.5)
    cable, url = through
    db, other = await Database.open(url, size=1), await asyncpg.connect(database_url)
    try:
        with pytest.raises((OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            async with db.tenant("0367") as connection:
                await connection.execute("select pg_advisory_xact_lock(7)")
                cable.strand()
                async with asyncio.timeout(30):
                    await other.execute("select pg_advisory_xact_lock(7)")
                db._pool.terminate()
                raise OSError("the line is dead")
    finally:
        await other.close()


async def test_a_database_that_takes_no_writes_makes_the_leases_stale(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "RENEW_S", 0.5)
    db = await Database.open(database_url)
    leases, supervisor = Leases(db, "test", ttl_s=3.0), Supervisor("test")
    owner = await asyncpg.connect(database_url)
    try:
        await leases.take(KEY)
        supervisor.serve("leases", leases.run)
        async with asyncio.timeout(WITHIN_S):
            while not leases.is_sure:
                await asyncio.sleep(0.02)
        await owner.execute(NO_ROOM)  # reads work, writes fail
        async with asyncio.timeout(WITHIN_S):
            while leases.is_sure:
                await asyncio.sleep(0.02)
        with pytest.raises(LeaseLost):
            leases.epoch(KEY)
        assert await db.fetchval("select true") is True  # it answers all the while
        await owner.execute("drop trigger no_room on leases")
        async with asyncio.timeout(WITHIN_S):
            while not leases.is_sure:
                await asyncio.sleep(0.02)
    finally:
        await supervisor.stop()
        await owner.close()
        await db.close()
