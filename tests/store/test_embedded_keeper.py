"""The embedded PostgreSQL is kept alive by the daemon that owns it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from daemon.store.embedded import EmbeddedPostgres
from daemon.supervisor import Supervisor
from lab.run import short_directory
from tests.patience import PATIENCE_S


@pytest.fixture
def home() -> Iterator[Path]:
    folder = short_directory("vochid-keep-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def test_a_server_that_was_killed_is_started_again_with_what_was_committed_and_stays_down_after_a_stop(home: Path) -> None:
    server, keeper = EmbeddedPostgres(home), Supervisor("test")
    await server.start(own=True)
    try:
        connection = await asyncpg.connect(server.url)
        await connection.execute("create table kept as select 1 as one")
        keeper.serve("keep", server.keep)
        [postmaster] = [int((home / "postgresql/data/postmaster.pid").read_text().split()[0])]
        os.kill(postmaster, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    again = await asyncpg.connect(server.url, timeout=5)
                    if again.get_server_pid() and await again.fetchval("select one from kept") == 1 and _pid(home) != postmaster:
                        break
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                    await asyncio.sleep(0.1)
        await again.close()
        connection.terminate()
    finally:
        await keeper.stop()
        await server.stop()
    assert _pid(home) is None


def _pid(home: Path) -> int | None:
    try:
        return int((home / "postgresql/data/postmaster.pid").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
