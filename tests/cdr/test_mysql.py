"""CDR in MySQL, read from a real MariaDB: the tables of FreePBX and of cdr_adaptive_odbc give the rows that the PBX's own file gives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import aiomysql
import pytest
from pydantic import SecretStr

from daemon.cdr.rows import CdrRow, read_csv
from daemon.cdr.sources import CdrUnreadable, source_of
from daemon.tenants.document import DatabaseCdr
from lab.asterisk import LabUnavailable
from lab.mariadb import ensure_server, mariadb
from tests.cdr.test_conversations import recorded
from tests.conftest import IN_CI

DAY = datetime(2026, 11, 21, tzinfo=UTC)
WINDOW = (DAY, DAY + timedelta(days=1))
NAMES = ("inbound-answered", "ring-group", "outbound-busy", "cyrillic-name")

FREEPBX = """create table cdr (calldate datetime not null default '0000-00-00 00:00:00', clid varchar(80) not null default '',
  src varchar(80) not null default '', dst varchar(80) not null default '', dcontext varchar(80) not null default '',
  channel varchar(80) not null default '', dstchannel varchar(80) not null default '', lastapp varchar(80) not null default '',
  lastdata varchar(80) not null default '', duration int not null default 0, billsec int not null default 0,
  disposition varchar(45) not null default '', amaflags int not null default 0, accountcode varchar(20) not null default '',
  uniqueid varchar(32) not null default '', userfield varchar(255) not null default '', did varchar(50) not null default '',
  recordingfile varchar(255) not null default '', linkedid varchar(32) not null default '', peeraccount varchar(80) not null default '',
  sequence int not null default 0, key (calldate))"""
ADAPTIVE = """create table `Cdr2` (`Start` datetime, `Answer` datetime null, `End` datetime, clid text, src text, dst text, dcontext text, channel text,
  dstchannel text, lastapp text, lastdata text, duration int, billsec int, disposition text, uniqueid text, linkedid text, sequence int)"""
SHARED = ("clid", "src", "dst", "dcontext", "channel", "dstchannel", "lastapp", "lastdata", "disposition", "uniqueid", "linkedid", "sequence")


def naive(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).replace(tzinfo=None)


@pytest.fixture(scope="module")
def told() -> list[CdrRow]:
    """What the PBX's file says."""
    return list(read_csv([line for name in NAMES for line in recorded()[name]]))


@pytest.fixture
async def server(told: list[CdrRow]) -> AsyncIterator[str]:
    """A MariaDB with both tables."""
    try:
        root = ensure_server()
    except LabUnavailable as why:
        if IN_CI:
            raise
        pytest.skip(str(why))
    async with mariadb(root) as url:
        parts = urlsplit(url)
        connection = await aiomysql.connect(
            host="127.0.0.1", port=parts.port, user=parts.username, password=parts.password, db="asteriskcdrdb", charset="utf8mb4", autocommit=True
        )
        async with connection.cursor() as cursor:
            await cursor.execute("set sql_mode = ''")
            for statement in (FREEPBX, ADAPTIVE, "create table notes (at datetime, text text)"):
                await cursor.execute(statement)
            for row in told:
                shared = {name: getattr(row, name) for name in SHARED}
                lasted = {"duration": round(row.end - row.start), "billsec": round(row.end - row.answer) if row.answer else 0}
                await insert(cursor, "cdr", shared | lasted | {"calldate": naive(row.start), "recordingfile": "call.wav"})
                await insert(cursor, "Cdr2", shared | lasted | {"Start": naive(row.start), "Answer": naive(row.answer), "End": naive(row.end)})
            await insert(cursor, "cdr", {"clid": "never"})  # 0000-00-00: no time
        connection.close()
        yield url


async def insert(cursor: Any, table: str, values: dict[str, Any]) -> None:
    columns = ", ".join(f"`{name}`" for name in values)
    await cursor.execute(f"insert into `{table}` ({columns}) values ({', '.join(['%s'] * len(values))})", list(values.values()))


async def read(url: str, table: str, since: datetime, until: datetime) -> list[CdrRow]:
    reading = source_of(DatabaseCdr(source="mysql", url=SecretStr(url), table=table))
    assert reading is not None
    return sorted(await reading(since, until), key=lambda row: (row.start, row.sequence))


async def test_both_tables_give_what_the_file_gives_and_nothing_else_is_read(server: str, told: list[CdrRow]) -> None:
    expected = sorted(told, key=lambda row: (row.start, row.sequence))
    assert not all(row.clid.isascii() for row in expected)
    assert await read(server, "Cdr2", *WINDOW) == expected
    freepbx = await read(server, "asteriskcdrdb.cdr", *WINDOW)
    assert {row.recording for row in freepbx} == {"call.wav"}
    assert [replace(row, recording="") for row in freepbx] == expected
    assert await read(server, "cdr", DAY - timedelta(days=9), DAY - timedelta(days=8)) == []

    for table, why in (("nothing", "doesn't exist"), ("notes", "neither a column start nor calldate")):
        with pytest.raises(CdrUnreadable, match=why):
            await read(server, table, *WINDOW)
    password = urlsplit(server).password or ""
    wrong = server.replace(password, "hunter2")
    with pytest.raises(CdrUnreadable, match="Access denied") as caught:
        await read(wrong, "cdr", *WINDOW)
    assert "hunter2" not in str(caught.value)
