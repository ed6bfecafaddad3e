"""Requests for calls by click: reserved before anything is dialled, moved on by what is heard of them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daemon.errors import NotFound
from daemon.model.call import CLICK_CHANNEL, iso
from daemon.store.pool import Connection, Database

MAX_LOGGED_PER_MINUTE = 300


@dataclass(frozen=True, slots=True)
class OriginateRequest:
    """One row. `source`: the integration whose click it was, or api. `call_id`: the call that came of it, once there is one."""

    enterprise: str
    id: str
    pbx: str
    extension: str
    phone: str
    line: str | None
    source: str
    state: str
    code: str | None
    reason: str | None
    channel_id: str
    other_channel_id: str
    call_id: str | None
    created_at: datetime
    updated_at: datetime

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "id": self.id, "enterprise": self.enterprise, "pbx": self.pbx, "extension": self.extension, "phone": self.phone, "line": self.line,
            "source": self.source, "state": self.state, "code": self.code, "reason": self.reason, "call": self.call_id,
            "created_at": iso(self.created_at.timestamp()), "updated_at": iso(self.updated_at.timestamp()),
        }  # fmt: skip


class OriginateRepository:
    """Requests of one tenant at a time."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def reserve(self, enterprise: str, request: Mapping[str, Any], limits: Mapping[str, Any]) -> OriginateRequest:
        """Counts and reserves in one transaction (`reserve_originate` in sql/): the new row, reserved or refused, or the former one
        that this click repeats."""
        rows = await self._db.fetch("select * from reserve_originate($1, $2, $3)", enterprise, dict(request), dict(limits))
        return _request(rows[0])

    async def get(self, enterprise: str, request_id: str) -> OriginateRequest:
        """One request. Raises NotFound."""
        try:
            key = uuid.UUID(request_id)
        except ValueError:
            raise NotFound("there is no such request") from None
        async with self._db.tenant(enterprise) as connection:
            row = await connection.fetchrow("select * from originate_requests where enterprise_number = $1 and id = $2", enterprise, key)
        if row is None:
            raise NotFound("there is no such request")
        return _request(row)

    async def key_of(self, enterprise: str, request_id: str) -> str | None:
        """What a request was asked for with, so that it is the same when it comes again; None when there is no such request, or it has none."""
        async with self._db.tenant(enterprise) as connection:
            found: str | None = await connection.fetchval(
                "select idempotency_key from originate_requests where enterprise_number = $1 and id = $2", enterprise, uuid.UUID(request_id)
            )
        return found

    async def click_of(self, enterprise: str, source: str, channel_id: str) -> str | None:
        """The key of the click at `source` from which the call with this channel came, or None."""
        try:
            request_id = uuid.UUID(channel_id.removeprefix(CLICK_CHANNEL))
        except ValueError:
            return None
        async with self._db.tenant(enterprise) as connection:
            found: str | None = await connection.fetchval(
                "select idempotency_key from originate_requests where enterprise_number = $1 and id = $2 and source = $3", enterprise, request_id, source
            )
        return found

    async def open(self, enterprise: str, pbx: str, states: Sequence[str]) -> list[tuple[OriginateRequest, dict[str, Any] | None]]:
        """Requests of one PBX in these states, oldest first, each with the call that came of it where one is stored: id and ended_at."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select * from originate_requests where enterprise_number = $1 and pbx = $2 and state = any ($3) order by created_at",
                enterprise, pbx, list(states),
            )  # fmt: skip
            return [(_request(row), await _call_of(connection, row)) for row in rows]

    async def advance(
        self, request: OriginateRequest, state: str, came_from: Sequence[str], *, code: str | None, reason: str | None, call_id: str | None
    ) -> bool:
        """Moves a request on when its stored state is one of `came_from`, and notes its call in any case; True when it moved."""
        moved = await self._db.fetchval(
            "select advance_originate($1, $2, $3, $4, $5, $6, $7)",
            request.enterprise, uuid.UUID(request.id), state, list(came_from), code, reason, uuid.UUID(call_id) if call_id is not None else None,
        )  # fmt: skip
        return bool(moved)

    async def log(self, enterprise: str, source: str, asked: Mapping[str, Any], came: Mapping[str, Any], error: str | None) -> None:
        """One line in integration_logs (make_call), unless the minute is full of them. error None: it went well."""
        await self._db.fetch(
            "select log_originate($1, $2, $3, $4, $5, $6, $7)",
            enterprise, source, dict(asked), dict(came), "error" if error else "success", error, MAX_LOGGED_PER_MINUTE,
        )  # fmt: skip


async def _call_of(connection: Connection, request: Any) -> dict[str, Any] | None:
    """By the Linkedid, which is our channel id; the time bound lets an index find it."""
    row = await connection.fetchrow(
        """select id, ended_at from calls where enterprise_number = $1 and pbx = $2 and linkedid = $3
             and started_at between $4::timestamptz - interval '1 minute' and $4::timestamptz + interval '10 minutes'""",
        request["enterprise_number"], request["pbx"], request["channel_id"], request["created_at"],
    )  # fmt: skip
    return dict(row) if row else None


def _request(row: Any) -> OriginateRequest:
    return OriginateRequest(
        enterprise=row["enterprise_number"],
        id=str(row["id"]),
        call_id=str(row["call_id"]) if row["call_id"] else None,
        **{key: row[key] for key in ("pbx", "extension", "phone", "line", "source", "state", "code", "reason", "channel_id", "other_channel_id")},
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
