"""Fixtures: a PostgreSQL of the test run's own with a fresh database per test, and the lab."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.embedded import EmbeddedPostgres
from daemon.store.migrate import migrate
from daemon.store.pool import Database
from lab.asterisk import LabUnavailable, ensure_root
from lab.run import short_directory

GOLDEN = Path(__file__).parent / "golden"
IN_CI = os.environ.get("CI") == "true"
# Daemons and commands are started by the hundred: what Python compiled for one serves the next, whatever this machine is set to.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """An embedded PostgreSQL with a migrated template; gives the owner's URL."""
    home = short_directory("vochid-test-")
    server = EmbeddedPostgres(home)

    async def up() -> None:
        await server.start(own=True)
        await migrate(server.url)

    asyncio.run(up())
    yield server.url
    asyncio.run(server.stop())
    shutil.rmtree(home, ignore_errors=True)


def _named(url: str, name: str) -> str:
    return url.replace("/vochid?", f"/{name}?")


async def _drop(admin: asyncpg.Connection, name: str) -> None:
    """Autovacuum may be at work in it, which only a superuser may throw out: then a moment later."""
    for _ in range(300):
        try:
            await admin.execute(f"drop database {name} with (force)")
            return
        except (asyncpg.InsufficientPrivilegeError, asyncpg.ObjectInUseError):
            await asyncio.sleep(0.1)
    raise AssertionError(f"database {name} is still in use")


@asynccontextmanager
async def fresh_database(cluster: str) -> AsyncIterator[str]:
    """A fresh, migrated database; gives its owner's URL."""
    name = f"t{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(_named(cluster, "template1"))
    try:
        await admin.execute(f"create database {name} template vochid")
        yield _named(cluster, name)
        await _drop(admin, name)
    finally:
        await admin.close()


@pytest.fixture
async def database_url(cluster: str) -> AsyncIterator[str]:
    """A fresh, migrated database."""
    async with fresh_database(cluster) as url:
        yield url


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """A pool as the daemon has it."""
    database = await Database.open(database_url)
    yield database
    await database.close()


@pytest.fixture
def vault() -> Vault:
    return Vault(["k" * 40])


@pytest.fixture
def lab_egress() -> EgressPolicy:
    return EgressPolicy(["127.0.0.0/8"])


@pytest.fixture(scope="session")
def asterisk_root() -> Path:
    """A built Asterisk; skipped with the reason where it cannot be had, except in CI."""
    try:
        return ensure_root(int(os.environ.get("LAB_ASTERISK", "22")))
    except LabUnavailable as why:
        if IN_CI:
            raise
        pytest.skip(str(why))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The live scenarios take longest and keep one worker busy: they begin first."""
    items.sort(key=lambda item: "asterisk" not in item.keywords)
