"""Applies sql/NNNN_name.sql in order, under a lock, each once, with a checksum."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from daemon.errors import VochidError

LOCK_KEY = 0x766F6368  # "voch"
APP_ROLE = "vochid_app"


class MigrationError(VochidError):
    """The schema cannot be brought up to date; says what to do."""

    code = "migration"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of sql/."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations_dir() -> Path:
    """sql/ of this installation."""
    return Path(__file__).resolve().parent.parent.parent / "sql"


def read_migrations(directory: Path) -> list[Migration]:
    """The migrations in order; MigrationError for a gap or a badly named file."""
    found = []
    for path in sorted(directory.glob("*.sql")):
        named = re.fullmatch(r"(\d{4})_([a-z0-9_]+)\.sql", path.name)
        if named is None:
            raise MigrationError(f"sql/{path.name} is not named NNNN_name.sql")
        found.append(Migration(int(named[1]), named[2], path.read_text()))
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise MigrationError("sql/ has a gap or a double number in its migrations")
    return found


async def migrate(url: str, directory: Path | None = None, progress: Callable[[str], None] = lambda _: None) -> int:
    """Brings the schema up to date; gives how many migrations were applied.

    Raises MigrationError when an applied file was changed, or the database is newer than this program.
    """
    migrations = read_migrations(directory or migrations_dir())
    connection = await asyncpg.connect(url, timeout=10, command_timeout=600)
    try:
        await connection.execute("select pg_advisory_lock($1)", LOCK_KEY)
        await _prepare(connection)
        applied = {r["number"]: r["checksum"] for r in await connection.fetch("select number, checksum from schema_migrations")}
        _check(migrations, applied)
        missing = [m for m in migrations if m.number not in applied]
        for migration in missing:
            progress(f"{migration.number:04d} {migration.name}")
            await _apply(connection, migration)
        return len(missing)
    finally:
        await connection.close()


async def pending(connection: asyncpg.Connection | asyncpg.pool.PoolConnectionProxy) -> int:
    """How many migrations are not applied yet."""
    done = await connection.fetchval("select count(*) from schema_migrations")
    return len(read_migrations(migrations_dir())) - int(done)


def _check(migrations: list[Migration], applied: dict[int, str]) -> None:
    known = {m.number: m for m in migrations}
    for number, checksum in sorted(applied.items()):
        if number not in known:
            raise MigrationError(f"the database has migration {number:04d}, which this vochid does not know: install the newer version")
        if known[number].checksum != checksum:
            raise MigrationError(f"sql/{number:04d}_{known[number].name}.sql was changed after it was applied: restore the file")


async def ensure_role(connection: asyncpg.Connection) -> None:
    """The role that the daemon works as, which the database's owner may become. Raises MigrationError where it may not be made."""
    try:
        if not await connection.fetchval("select exists (select from pg_roles where rolname = $1)", APP_ROLE):
            await connection.execute(f"create role {APP_ROLE} nologin")
        if not await _may_become(connection):
            await connection.execute(f"grant {APP_ROLE} to current_user")
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            f"the database user may not create role {APP_ROLE}: run `create role {APP_ROLE} nologin; grant {APP_ROLE} to <user>` as a superuser"
        ) from error
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        pass  # another daemon was faster; roles are shared by all databases of a server


async def _prepare(connection: asyncpg.Connection) -> None:
    await ensure_role(connection)
    await connection.execute(
        f"""create table if not exists schema_migrations
              (number int primary key, name text not null, checksum text not null, applied_at timestamptz not null default now());
            grant select on schema_migrations to {APP_ROLE};
            grant usage on schema public to {APP_ROLE}"""
    )


async def _may_become(connection: asyncpg.Connection) -> bool:
    try:
        async with connection.transaction():
            await connection.execute(f"set local role {APP_ROLE}")
        return True
    except asyncpg.InsufficientPrivilegeError:
        return False


async def _apply(connection: asyncpg.Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "insert into schema_migrations (number, name, checksum) values ($1, $2, $3)",
                migration.number, migration.name, migration.checksum,
            )  # fmt: skip
    except asyncpg.PostgresError as error:
        raise MigrationError(
            f"migration {migration.number:04d} {migration.name} failed and was rolled back: {error}. Mend the cause and run `vochid migrate` again"
        ) from error
