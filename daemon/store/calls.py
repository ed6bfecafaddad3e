"""Calls as people and CRMs ask for them. They are written by daemon/calls/recorder.py alone."""

from __future__ import annotations

import base64
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from daemon.errors import NotFound, VochidError
from daemon.model.call import iso
from daemon.store.call_query import CallFilter, calls_of_numbers, conditions, termed_calls
from daemon.store.known_customers import numbers_named
from daemon.store.pool import Connection, Database

EVERYTHING = CallFilter()
EXPORT_PAGE = 1_000
TERMED_AT_ONCE = 500  # calls found by a name or an extension that are looked through together, and how often for one page
TERMED_TURNS = 20


def encode_cursor(started_at: datetime, call_id: str) -> str:
    """An opaque place in the list."""
    return base64.urlsafe_b64encode(f"{started_at.isoformat()}|{call_id}".encode()).decode()


def decode_cursor(cursor: str) -> tuple[datetime, uuid.UUID]:
    """The inverse. Raises VochidError for anything else."""
    try:
        at, _, call_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition("|")
        return datetime.fromisoformat(at), uuid.UUID(call_id)
    except (ValueError, UnicodeError):
        raise VochidError("the cursor is not one that this list gave", code="bad_cursor", field="cursor") from None


class CallRepository:
    """Reads calls of one tenant."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(
        self, enterprise: str, asked: CallFilter = EVERYTHING, *, cursor: str | None = None, limit: int = 100, with_legs: bool = True
    ) -> tuple[list[dict[str, Any]], str | None]:
        """A page, newest first, with legs unless nobody looks at them; and the cursor of the next page, None at the end.

        A search by name or extension may give less than `limit` and go on nevertheless.
        """
        place = decode_cursor(cursor) if cursor else None
        async with self._db.tenant(enterprise) as connection:
            rows, following = await self._find(connection, enterprise, asked, place, limit)
            legs = await self.legs_of(connection, enterprise, [row["id"] for row in rows]) if with_legs else {}
        return [call_json(row, legs.get(row["id"], [])) for row in rows], following

    async def each(self, enterprise: str, asked: CallFilter, most: int) -> AsyncIterator[dict[str, Any]]:
        """Calls one after the other, newest first, without legs, at most `most`: a transaction per EXPORT_PAGE, however slow the reader is."""
        place: tuple[datetime, uuid.UUID] | None = None
        while most > 0:
            async with self._db.tenant(enterprise) as connection:
                rows, following = await self._find(connection, enterprise, asked, place, min(most, EXPORT_PAGE))
            for row in rows:
                yield call_json(row, [])
            most -= len(rows)
            if following is None:
                return
            place = decode_cursor(following)

    async def _find(
        self, connection: Any, enterprise: str, asked: CallFilter, place: tuple[datetime, uuid.UUID] | None, limit: int
    ) -> tuple[list[Any], str | None]:
        if asked.name is None and asked.extension is None:
            return _cut(await self._rows(connection, enterprise, asked, limit + 1, place=place), limit)
        words = [row["word"] for row in await connection.fetch("select word from words_of($1) as word", asked.name or "")]
        if asked.name is not None and not words:
            return [], None
        # Who is known by our own records is found by that name too; not together with an extension, which only the terms of a call tell.
        numbers = await numbers_named(connection, enterprise, words) if asked.name is not None and asked.extension is None else []
        found: list[Any] = []
        for _ in range(TERMED_TURNS):
            statements = [termed_calls(enterprise, words, asked, place)]
            if numbers:
                statements.append(calls_of_numbers(enterprise, numbers, asked, place, TERMED_AT_ONCE))
            both = {row for statement, arguments in statements for row in await connection.fetch(f"{statement} limit {TERMED_AT_ONCE}", *arguments)}
            termed = sorted(both, key=lambda row: (row["started_at"], row["id"]), reverse=True)[:TERMED_AT_ONCE]
            found += await self._rows(connection, enterprise, asked, limit + 1 - len(found), ids=[row["id"] for row in termed])
            if len(found) > limit or len(termed) < TERMED_AT_ONCE:
                return _cut(found, limit)
            place = (termed[-1]["started_at"], termed[-1]["id"])
        assert place is not None
        return found, encode_cursor(place[0], str(place[1]))

    async def _rows(
        self,
        connection: Any,
        enterprise: str,
        asked: CallFilter,
        count: int,
        *,
        place: tuple[datetime, uuid.UUID] | None = None,
        ids: list[uuid.UUID] | None = None,
    ) -> list[Any]:
        """The newest `count` that fit: after `place`, or of these ids."""
        where, arguments = conditions(enterprise, asked)
        if ids is not None:
            where.append(f"id = any (${len(arguments) + 1}::uuid[])")
            arguments.append(ids)
        if place is not None:
            where.append(f"(started_at, id) < (${len(arguments) + 1}::timestamptz, ${len(arguments) + 2}::uuid)")
            arguments.extend(place)
        return list(
            await connection.fetch(
                f"select * from calls where {' and '.join(where)} order by started_at desc, id desc limit ${len(arguments) + 1}", *arguments, count
            )  # the text comes from `conditions` and from here, what was asked is in the arguments
        )

    async def get(self, enterprise: str, call_id: str) -> dict[str, Any]:
        """One call. Raises NotFound."""
        try:
            key = uuid.UUID(call_id)
        except ValueError:
            raise NotFound("there is no such call") from None
        async with self._db.tenant(enterprise) as connection:
            found = await self.read(connection, enterprise, key)
        if found is None:
            raise NotFound("there is no such call")
        return found

    async def read(self, connection: Connection, enterprise: str, key: uuid.UUID) -> dict[str, Any] | None:
        """One call inside the caller's transaction of that tenant, or None."""
        row = await connection.fetchrow("select * from calls where enterprise_number = $1 and id = $2", enterprise, key)
        legs = await self.legs_of(connection, enterprise, [key]) if row is not None else {}
        return call_json(row, legs.get(key, [])) if row is not None else None

    async def open(self, enterprise: str, pbx: str) -> list[dict[str, Any]]:
        """Calls of one PBX that have no end yet, oldest first."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select * from calls where enterprise_number = $1 and pbx = $2 and ended_at is null order by started_at", enterprise, pbx
            )
            legs = await self.legs_of(connection, enterprise, [row["id"] for row in rows])
        return [call_json(row, legs.get(row["id"], [])) for row in rows]

    async def live(self, enterprise: str, limit: int = 500) -> list[dict[str, Any]]:
        """Calls of all its PBXs that have no end yet, newest first. What began over a day ago is not live: nobody saw it end."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select * from calls where enterprise_number = $1 and ended_at is null and started_at > now() - interval '1 day' "
                "order by started_at desc limit $2",
                enterprise, limit,
            )  # fmt: skip
            legs = await self.legs_of(connection, enterprise, [row["id"] for row in rows])
        return [call_json(row, legs.get(row["id"], [])) for row in rows]

    async def logs(
        self, enterprise: str, *, integration: str | None = None, status: str | None = None, event_type: str | None = None,
        before: int | None = None, limit: int = 100,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """integration_logs, newest first; `before` is the last id seen."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                """select * from integration_logs where enterprise_number = $1 and ($2::text is null or integration_type = $2)
                     and ($3::text is null or status = $3) and ($4::text is null or event_type = $4)
                     and ($5::bigint is null or id < $5) order by created_at desc, id desc limit $6""",
                enterprise, integration, status, event_type, before, limit,
            )  # fmt: skip
        return [{**dict(row), "created_at": iso(row["created_at"].timestamp())} for row in rows]

    async def stats(self, enterprise: str) -> dict[str, Any]:
        """Calls by direction and result, deliveries by integration and state, over the last 24 hours."""
        async with self._db.tenant(enterprise) as connection:
            calls = await connection.fetch(
                "select direction, result, count(*) from calls where enterprise_number = $1 and started_at > now() - interval '1 day' "
                "and ended_at is not null group by 1, 2 order by 1, 2",
                enterprise,
            )
            deliveries = await connection.fetch(
                "select integration, state, count(*) from deliveries where enterprise_number = $1 "
                "and (created_at > now() - interval '1 day' or state in ('waiting', 'sending', 'dead')) group by 1, 2 order by 1, 2",
                enterprise,
            )
        return {
            "calls": [{"direction": r["direction"], "result": r["result"], "count": r["count"]} for r in calls],
            "deliveries": [{"integration": r["integration"], "state": r["state"], "count": r["count"]} for r in deliveries],
        }

    @staticmethod
    async def legs_of(connection: Any, enterprise: str, ids: list[uuid.UUID]) -> dict[uuid.UUID, list[Any]]:
        """The legs of these calls, by call."""
        rows = await connection.fetch("select * from legs where enterprise_number = $1 and call_id = any ($2) order by call_id, position", enterprise, ids)
        found: dict[uuid.UUID, list[Any]] = {}
        for row in rows:
            found.setdefault(row["call_id"], []).append(row)
        return found


def _cut(rows: list[Any], limit: int) -> tuple[list[Any], str | None]:
    """At most `limit` rows, and the cursor behind them when there are more."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode_cursor(rows[limit - 1]["started_at"], str(rows[limit - 1]["id"]))


def _at(value: datetime | None) -> str | None:
    return iso(value.timestamp()) if value else None


def call_json(row: Any, legs: list[Any]) -> dict[str, Any]:
    """A row as the contract's record."""
    return {
        "id": str(row["id"]),
        "enterprise": row["enterprise_number"],
        **{key: row[key] for key in ("pbx", "linkedid", "direction", "customer_number", "customer_name", "line")},
        **{key: _at(row[key]) for key in ("started_at", "answered_at", "ended_at")},
        **{key: row[key] for key in ("wait_seconds", "talk_seconds", "result", "missed", "rang", "answered_by", "last_talked", "initiator")},
        **{key: row[key] for key in ("transfers", "queue", "click_to_call", "consult", "recordings", "gap")},
        "legs": [
            {
                **{key: leg[key] for key in ("channel", "number", "kind")},
                **{key: _at(leg[key]) for key in ("started_at", "answered_at", "ended_at")},
                "cause": leg["cause"],
            }
            for leg in legs
        ],
    }
