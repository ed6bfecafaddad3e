"""The database in one file, and back: pg_dump and pg_restore, those of the embedded server, which speak to older servers too."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg

from daemon.errors import VochidError
from daemon.store.embedded import binaries
from daemon.store.migrate import ensure_role

DEADLINE_S = 6 * 3_600.0


class BackupError(VochidError):
    """A backup could not be made or restored; says why."""

    code = "backup"


async def dump(url: str, file: Path) -> int:
    """Writes everything of the database into `file` (mode 0600), beside whoever works; gives its size in bytes. Raises BackupError."""
    part = file.with_name(file.name + ".part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
        await _run("pg_dump", url, "--format=custom", f"--file={part}")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return file.stat().st_size


async def restore(url: str, file: Path) -> int:
    """Fills an empty database from `file`, whole or not at all; gives how many deliveries may have arrived since the backup.

    Those are marked so: a CRM is asked before one of them is sent again. Raises BackupError.
    """
    if not file.is_file():
        raise BackupError(f"there is no file {file}")
    connection = await asyncpg.connect(url, timeout=10, command_timeout=600)
    try:
        if await connection.fetchval("select exists (select from pg_tables where schemaname = 'public')"):
            raise BackupError("the database is not empty: restore into a new one (another VOCHID_DATA_DIR, or VOCHID_DATABASE_URL of a new database)")
        await ensure_role(connection)
        await _run("pg_restore", url, "--no-owner", "--exit-on-error", "--single-transaction", str(file))
        done = await connection.execute("update deliveries set uncertain = true where state in ('waiting', 'sending')")
        return int(done.rpartition(" ")[2])
    finally:
        await connection.close()


async def _run(program: str, url: str, *arguments: str) -> None:
    """The password goes by the environment: others can read a command line."""
    address, password = _without_password(url)
    process = await asyncio.create_subprocess_exec(
        str(binaries() / "bin" / program), f"--dbname={address}", *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, **({"PGPASSWORD": password} if password else {})}, cwd="/",
    )  # fmt: skip
    try:
        async with asyncio.timeout(DEADLINE_S):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise BackupError(f"{program}: {said.decode('utf-8', 'replace').strip()[-400:] or f'ended with {process.returncode}'}")


def _without_password(url: str) -> tuple[str, str | None]:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    return urlunsplit(parts._replace(netloc=f"{name}{at}{host}")), unquote(password) if colon else None
