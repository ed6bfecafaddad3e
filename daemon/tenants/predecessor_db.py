"""What the predecessor's database holds of its enterprises. Reads only, in one snapshot; tolerant of columns that are not there."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from daemon.errors import VochidError
from daemon.tenants.predecessor import Source

CONNECT_DEADLINE_S = 10.0
COMMAND_DEADLINE_S = 60.0


async def read_predecessor(url: str) -> list[Source]:
    """Every enterprise there. Raises VochidError when this is no such database, OSError or asyncpg's errors when it cannot be read."""
    if not url.startswith(("postgresql://", "postgres://")):
        raise VochidError("--from must be postgresql://user:password@host/database")
    try:
        connection = await asyncpg.connect(
            url, timeout=CONNECT_DEADLINE_S, command_timeout=COMMAND_DEADLINE_S, server_settings={"default_transaction_read_only": "on"}
        )
    except (ValueError, asyncpg.InterfaceError) as error:
        raise VochidError(f"--from must be postgresql://user:password@host/database ({error})") from None
    except OSError as error:
        why = f"no answer within {CONNECT_DEADLINE_S:.0f} s" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise VochidError(f"the database at {_place(url)} cannot be reached: {why}") from None
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await _read(connection)
    finally:
        await connection.close(timeout=5)


def _place(url: str) -> str:
    """Host and port of the address, without its password."""
    return urlsplit(url).netloc.rpartition("@")[2] or "its socket"


async def _read(connection: asyncpg.Connection) -> list[Source]:
    columns = await _columns(connection)
    if "number" not in columns.get("enterprises", set()):
        raise VochidError("there is no table `enterprises` with a `number`: is this the predecessor's database?")
    phones = await _phones(connection, columns)
    wanted = [name for name in ("number", "name", "secret", "integrations_config", "active") if name in columns["enterprises"]]
    rows = await connection.fetch(f"select {', '.join(wanted)} from enterprises order by number")
    return [_source(dict(row), phones) for row in rows]


async def _columns(connection: asyncpg.Connection) -> dict[str, set[str]]:
    rows = await connection.fetch(
        "select table_name, column_name from information_schema.columns "
        "where table_schema = any (current_schemas(false)) and table_name in ('enterprises', 'user_internal_phones', 'users')"
    )
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["table_name"], set()).add(row["column_name"])
    return found


async def _phones(connection: asyncpg.Connection, columns: dict[str, set[str]]) -> dict[str, list[tuple[str, str]]]:
    """Internal phones with their owners' names, by enterprise."""
    own = columns.get("user_internal_phones", set())
    number = next((name for name in ("phone_number", "number") if name in own), None)
    if number is None or "enterprise_number" not in own:
        return {}
    if "owner" in own:
        query = f"select enterprise_number, {number} as phone, owner from user_internal_phones order by 1, 2"
    elif "user_id" in own and {"id", "first_name", "last_name"} <= columns.get("users", set()):
        query = f"""select p.enterprise_number, p.{number} as phone, concat_ws(' ', u.first_name, u.last_name) as owner
                    from user_internal_phones p left join users u on u.id = p.user_id order by 1, 2"""
    else:
        query = f"select enterprise_number, {number} as phone, '' as owner from user_internal_phones order by 1, 2"
    found: dict[str, list[tuple[str, str]]] = {}
    for row in await connection.fetch(query):
        found.setdefault(str(row["enterprise_number"]), []).append((str(row["phone"] or ""), str(row["owner"] or "")))
    return found


def _source(row: dict[str, Any], phones: dict[str, list[tuple[str, str]]]) -> Source:
    config = row.get("integrations_config")
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except ValueError:
            config = {"unreadable": config[:40]}
    number = str(row["number"])
    return Source(number, str(row.get("name") or ""), row.get("secret"), config if isinstance(config, dict) else {}, phones.get(number, []),
                  row.get("active") is not False)  # fmt: skip
