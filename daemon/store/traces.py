"""Traces of calls: written by the feeds, read by `calls explain` and the API."""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from daemon.model.call import iso
from daemon.store.pool import Database


class Packed(Protocol):
    """A trace as the tracer gives it."""

    @property
    def call_id(self) -> str: ...
    @property
    def events(self) -> int: ...
    @property
    def left_out(self) -> int: ...
    @property
    def masked(self) -> bool: ...
    @property
    def raw(self) -> bytes: ...
    @property
    def chunks(self) -> bytes: ...
    @property
    def changes(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class StoredTrace:
    """raw: frames, each closed by an empty line; chunks: [offset_bytes, unix_time_s]; changes: what the model said."""

    raw: bytes
    chunks: list[tuple[int, float]]
    changes: list[dict[str, Any]]
    left_out: int
    masked: bool


class TraceRepository:
    """Traces of one tenant's calls."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, enterprise: str, traces: Sequence[Packed], pbx: str, owner: str, epoch: int) -> None:
        """Parts of calls' traces, all in one transaction, which waits for no disk: a trace may be lost, a call may not. Refused (VL001) when
        `owner` does not read the PBX now."""
        async with self._db.tenant(enterprise) as connection:
            await connection.execute("set local synchronous_commit = off")
            await connection.execute("select hold_lease($1, $2, $3, $4)", enterprise, pbx, owner, epoch)
            await connection.executemany(
                "insert into call_traces (enterprise_number, call_id, events, left_out, masked, raw, chunks, changes) values ($1, $2, $3, $4, $5, $6, $7, $8)",
                [(enterprise, uuid.UUID(t.call_id), t.events, t.left_out, t.masked, t.raw, t.chunks, t.changes) for t in traces],
            )

    async def get(self, enterprise: str, call_id: str) -> StoredTrace | None:
        """The trace of a call, as far as it has come; None when there is none (any more). Its parts, of one process or several, are joined here."""
        async with self._db.tenant(enterprise) as connection:
            rows = await connection.fetch(
                "select * from call_traces where enterprise_number = $1 and call_id = $2 order by stored_at", enterprise, uuid.UUID(call_id)
            )
        if not rows:
            return None
        raw, chunks = joined([(zlib.decompress(row["raw"]), json.loads(zlib.decompress(row["chunks"]))) for row in rows])
        changes = [change for row in rows for change in json.loads(zlib.decompress(row["changes"]))]
        return StoredTrace(raw, chunks, changes, sum(row["left_out"] for row in rows), any(row["masked"] for row in rows))

    async def has(self, enterprise: str, call_id: str) -> bool:
        """Whether anything of a call's trace is kept."""
        async with self._db.tenant(enterprise) as connection:
            return bool(
                await connection.fetchval(
                    "select exists (select from call_traces where enterprise_number = $1 and call_id = $2)", enterprise, uuid.UUID(call_id)
                )
            )

    async def told(self, enterprise: str, call_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The deliveries of a call, and what was said to CRMs in each attempt."""
        async with self._db.tenant(enterprise) as connection:
            deliveries = await connection.fetch(
                "select * from deliveries where enterprise_number = $1 and call_id = $2 order by id", enterprise, uuid.UUID(call_id)
            )
            logs = await connection.fetch(
                "select * from integration_logs where enterprise_number = $1 and created_at >= $2 and created_at < $3 and delivery_id = any ($4) order by id",
                enterprise, *_span(deliveries), [row["id"] for row in deliveries],
            ) if deliveries else []  # fmt: skip
        return [_delivery(row) for row in deliveries], [_log(row) for row in logs]


def joined(parts: Sequence[tuple[bytes, list[list[float]]]]) -> tuple[bytes, list[tuple[int, float]]]:
    """The events of all parts by their numbers. What was said of a call before it was joined with another may stand in a later part, or in two."""
    events: dict[float, tuple[float, bytes]] = {}
    for raw, chunks in parts:
        ends = [*(int(chunk[0]) for chunk in chunks[1:]), len(raw)][: len(chunks)]
        for (offset, at, *number), end in zip(chunks, ends, strict=True):
            events[number[0] if number else at * 1_000_000 + offset / len(raw)] = at, raw[int(offset) : end]  # traces of old had no numbers
    found, chunks_of_all, size = [], [], 0
    for _, (at, data) in sorted(events.items()):
        found.append(data)
        chunks_of_all.append((size, at))
        size += len(data)
    return b"".join(found), chunks_of_all


def _span(deliveries: Sequence[Any]) -> tuple[Any, Any]:
    latest = max((row["finished_at"] or datetime.now(UTC) for row in deliveries), default=datetime.now(UTC))
    return min(row["created_at"] for row in deliveries), latest + timedelta(minutes=1)


def _delivery(row: Any) -> dict[str, Any]:
    return {
        **{key: row[key] for key in ("id", "integration", "kind", "state", "attempts", "last_error")},
        "payload": {key: value for key, value in row["payload"].items() if key != "call"},
        "created_at": iso(row["created_at"].timestamp()),
        "finished_at": iso(row["finished_at"].timestamp()) if row["finished_at"] else None,
        "due_at": iso(row["due_at"].timestamp()) if row["state"] == "waiting" else None,
    }


def _log(row: Any) -> dict[str, Any]:
    return {
        "integration": row["integration_type"],
        "kind": row["event_type"],
        "delivery": row["delivery_id"],
        "at": iso(row["created_at"].timestamp()),
        "status": row["status"],
        "error": row["error_message"],
        "request": row["request_data"],
        "response": row["response_data"],
    }
