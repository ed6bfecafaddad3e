"""Where CDR rows come from: a table over PostgreSQL or MySQL, a Master.csv (or a directory of them), a CSV over HTTP. Thin shell.

Read only, with a deadline, at most MAX_ROWS rows of a window: what is more than that is refused, and a smaller window has to be asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
import aiomysql
import asyncpg

from daemon.cdr.rows import CdrRow, read_csv, row_of
from daemon.errors import VochidError
from daemon.tenants.document import CsvCdr, DatabaseCdr, NoCdr

READ_DEADLINE_S = 120.0
CONNECT_DEADLINE_S = 10.0
MAX_ROWS = 100_000
MAX_BYTES = 512 * 1024 * 1024
ZONES = timedelta(hours=15)  # a naive time may be this far from the real one

Read = Callable[[datetime, datetime], Awaitable[list[CdrRow]]]


class CdrUnreadable(VochidError):
    """The source could not be read; says why and what to do."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, code="cdr")


def source_of(cdr: NoCdr | DatabaseCdr | CsvCdr) -> Read | None:
    """How to read the rows that start in a window (and some around it: their times may be naive); None without a source."""
    if isinstance(cdr, NoCdr):
        return None
    if isinstance(cdr, DatabaseCdr):
        reader = _postgresql if cdr.source == "postgresql" else _mysql
        return lambda since, until: _guarded(reader(cdr, since, until))
    if cdr.url:
        url = cdr.url
        return lambda since, until: _guarded(_http(url, since, until))
    path = Path(cdr.path or "")
    return lambda since, until: _guarded(asyncio.to_thread(_files, path, since, until))


async def _guarded(reading: Awaitable[list[CdrRow]]) -> list[CdrRow]:
    try:
        async with asyncio.timeout(READ_DEADLINE_S):
            return await reading
    except TimeoutError:
        raise CdrUnreadable(f"no end of the CDR in {READ_DEADLINE_S:.0f} s: ask for a smaller window, or add an index on its time") from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, aiomysql.Error, aiohttp.ClientError, UnicodeError, ValueError) as error:
        raise CdrUnreadable(f"the CDR cannot be read: {type(error).__name__}: {str(error)[:200]}") from None


def _kept(rows: Iterable[CdrRow | None], since: datetime, until: datetime) -> list[CdrRow]:
    earliest, latest = (since - ZONES).timestamp(), (until + ZONES).timestamp()
    found: list[CdrRow] = []
    for row in rows:
        if row is not None and earliest <= row.start < latest:
            found.append(row)
            if len(found) > MAX_ROWS:
                raise CdrUnreadable(f"more than {MAX_ROWS} CDR rows in one day: is it one PBX's table?")
    return found


def _columns_time(columns: Sequence[str], table: str) -> str:
    for name in ("start", "calldate"):
        if name in columns:
            return name
    raise CdrUnreadable(f"{table} has neither a column start nor calldate: is it a CDR table?")


async def _postgresql(cdr: DatabaseCdr, since: datetime, until: datetime) -> list[CdrRow]:
    read_only = {"default_transaction_read_only": "on"}
    connection = await asyncpg.connect(cdr.url.get_secret_value(), timeout=CONNECT_DEADLINE_S, command_timeout=READ_DEADLINE_S, server_settings=read_only)
    try:
        table = ".".join(f'"{part}"' for part in cdr.table.split("."))
        shown = await connection.prepare(f"select * from {table} limit 0")
        types = {attribute.name.lower(): attribute.type.name for attribute in shown.get_attributes()}
        time = _columns_time(list(types), cdr.table)
        is_aware = types[time] == "timestamptz"
        bounds = (since - ZONES, until + ZONES) if is_aware else tuple(at.astimezone(UTC).replace(tzinfo=None) for at in (since - ZONES, until + ZONES))
        rows = await connection.fetch(f'select * from {table} where "{time}" >= $1 and "{time}" < $2 limit {MAX_ROWS + 1}', *bounds)
        return _kept((row_of(dict(row)) for row in rows), since, until)
    finally:
        await connection.close(timeout=2)


async def _mysql(cdr: DatabaseCdr, since: datetime, until: datetime) -> list[CdrRow]:
    url = urlsplit(cdr.url.get_secret_value())
    connection = await aiomysql.connect(
        host=url.hostname or "127.0.0.1", port=url.port or 3306, user=unquote(url.username or ""), password=unquote(url.password or ""),
        db=unquote(url.path.strip("/")), charset="utf8mb4", connect_timeout=CONNECT_DEADLINE_S,
    )  # fmt: skip
    try:
        async with connection.cursor(aiomysql.DictCursor) as cursor:
            table = ".".join(f"`{part}`" for part in cdr.table.split("."))
            await cursor.execute("set session transaction read only")
            await cursor.execute(f"select * from {table} limit 0")
            time = _columns_time([column[0].lower() for column in cursor.description], cdr.table)
            bounds = [at.astimezone(UTC).replace(tzinfo=None) for at in (since - ZONES, until + ZONES)]
            await cursor.execute(f"select * from {table} where `{time}` >= %s and `{time}` < %s limit {MAX_ROWS + 1}", bounds)
            rows: list[dict[str, Any]] = await cursor.fetchall()
        return _kept((row_of(row) for row in rows), since, until)
    finally:
        connection.close()


async def _http(url: str, since: datetime, until: datetime) -> list[CdrRow]:
    timeout = aiohttp.ClientTimeout(total=READ_DEADLINE_S, sock_connect=CONNECT_DEADLINE_S)
    async with aiohttp.ClientSession(trust_env=False, timeout=timeout) as session, session.get(url, allow_redirects=False) as answer:
        if answer.status != 200:
            raise CdrUnreadable(f"the CDR's address answers {answer.status}")
        body = bytearray()
        async for part in answer.content.iter_chunked(1 << 16):
            body += part
            if len(body) > MAX_BYTES:
                raise CdrUnreadable(f"the CDR file is larger than {MAX_BYTES >> 20} MB: rotate it")
    return await asyncio.to_thread(lambda: _kept(read_csv(bytes(body).decode("utf-8", "replace").splitlines()), since, until))


def _files(path: Path, since: datetime, until: datetime) -> list[CdrRow]:
    """A file, or all *.csv of a directory that were written to since the window's beginning."""
    if not path.exists():
        raise CdrUnreadable(f"there is no {path}")
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    recent = [file for file in files if file.stat().st_mtime >= (since - ZONES).timestamp()]
    return _kept((row for file in recent for row in read_csv(_lines(file))), since, until)


def _lines(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8", errors="replace", newline="") as stream:
        yield from stream
