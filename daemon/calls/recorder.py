"""The only writer of calls: a change and what is to be told about it, in one transaction.

`record` returns when it is durable. A write is refused when the lease on the PBX is gone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg

from daemon.calls.plan import Planner, Told
from daemon.calls.resync import Left
from daemon.calls.tracer import Trace
from daemon.model.call import Call
from daemon.model.delivery import Kind
from daemon.model.signal import CallChange, Ended, RecordingAdded
from daemon.store.calls import CallRepository
from daemon.store.leases import LeaseLost, Leases
from daemon.store.missed import take_untold
from daemon.store.pbx_states import PbxStates
from daemon.store.pool import Database
from daemon.store.traces import TraceRepository

LEASE_LOST = "VL001"
LATE_KINDS = (Kind.JOURNAL, Kind.RECORDING)


class Recorder:
    """Writes changes of all PBXs that this process reads."""

    def __init__(self, db: Database, leases: Leases, planner: Planner) -> None:
        self._db = db
        self._leases = leases
        self._planner = planner
        self._calls = CallRepository(db)
        self._states = PbxStates(db)
        self._traces = TraceRepository(db)

    async def record(self, enterprise: str, pbx: str, changes: Sequence[CallChange]) -> set[str]:
        """Stores `changes` (of one PBX, in order); gives the integrations that have something to be told.

        Raises LeaseLost when another process may read this PBX, and what asyncpg raises when the database is away;
        then nothing was stored and the same changes may be given again.
        """
        epoch = self._leases.epoch((enterprise, pbx))
        calls: dict[str, dict[str, Any]] = {}
        told: list[tuple[dict[str, Any], Told]] = []
        for change in changes:
            record = calls[change.call.id] = change.call.to_json()
            told += [(record, item) for item in self._planner.plan(enterprise, change)]
        with _refusals(enterprise, pbx):
            closed = await self._db.fetchval(
                "select record_changes($1, $2, $3, $4, $5, $6)",
                enterprise, pbx, self._leases.owner, epoch, list(calls.values()), [outbox_row(*item) for item in told],
            )  # fmt: skip
        integrations = {item.integration for _, item in told}
        return integrations | await self.tell_closed(enterprise) if closed else integrations

    async def tell_closed(self, enterprise: str) -> set[str]:
        """Plans what CRMs are told of missed calls that were closed; gives the integrations that have something to be told.

        What was closed and not yet told waits in the database: a process that stops in between leaves it to the next one.
        """
        async with self._db.tenant(enterprise) as connection:
            told = []
            for call, signal in await take_untold(connection, enterprise):
                record = call.to_json()
                told += [(record, item) for item in self._planner.plan(enterprise, CallChange(call, (signal,), signal.at))]
            if told:
                await connection.execute("select store_changes($1, '', '[]', $2)", enterprise, [outbox_row(*item) for item in told])
        return {item.integration for _, item in told}

    async def tell(self, call: Call, told: Told) -> None:
        """Stores something to be told of a call that never came to be: the call itself is not kept."""
        async with self._db.tenant(call.enterprise) as connection:
            await connection.execute("select store_changes($1, '', '[]', $2)", call.enterprise, [outbox_row(call.to_json(), told)])

    async def record_late(self, enterprise: str, pbx: str, calls: Sequence[Call]) -> tuple[int, set[str]]:
        """Stores calls that CDR told of: no popups, only what is for the journal. Never over a call that lives or was seen whole.

        Gives how many were stored, and the integrations that have something to be told.
        """
        told = []
        for call in calls:
            change = CallChange(call, (Ended(()),), call.ended_at or call.started_at, late=True)
            told += [(call.to_json(), item) for item in self._planner.plan(enterprise, change) if item.planned.kind in LATE_KINDS]
        stored = await self._db.fetchval(
            "select backfill_calls($1, $2, $3, $4)", enterprise, pbx, [call.to_json() for call in calls], [outbox_row(*item) for item in told]
        )
        return int(stored), {item.integration for _, item in told}

    async def add_recording(self, call: Call) -> set[str] | None:
        """`record_recording` with what this recorder writes to and plans by."""
        return await record_recording(self._db, self._planner, call)

    async def keep_traces(self, enterprise: str, pbx: str, traces: Sequence[Trace]) -> None:
        """Parts of what the PBX and the model said of calls. Raises LeaseLost as `record` does."""
        epoch = self._leases.epoch((enterprise, pbx))
        with _refusals(enterprise, pbx):
            await self._traces.add(enterprise, traces, pbx, self._leases.owner, epoch)

    async def left(self, enterprise: str, pbx: str) -> Left:
        """What a former process left of a PBX."""
        boot, seen_at, has_open = await self._states.get(enterprise, pbx)
        calls = await self._calls.open(enterprise, pbx) if has_open else []
        return Left(boot, seen_at, tuple(map(Call.from_json, calls)))

    async def note_seen(self, enterprise: str, pbx: str, boot: str, at: float) -> None:
        """Nothing of this PBX was missed up to Unix time `at`. Raises LeaseLost as `record` does."""
        epoch = self._leases.epoch((enterprise, pbx))
        with _refusals(enterprise, pbx):
            await self._states.put(enterprise, pbx, boot, at, self._leases.owner, epoch)


@contextmanager
def _refusals(enterprise: str, pbx: str) -> Iterator[None]:
    """What the database refuses because another process reads the PBX, is LeaseLost."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if error.sqlstate == LEASE_LOST:
            raise LeaseLost(f"{enterprise}/{pbx}") from None
        raise


async def record_recording(db: Database, planner: Planner, call: Call) -> set[str] | None:
    """Adds the last of `call.recordings` to the stored call and plans what CRMs are told of it.

    Gives the integrations that have something to be told; None when the call has that recording already, or is gone.
    """
    record, name = call.to_json(), call.recordings[-1]
    told = planner.plan(call.enterprise, CallChange(call, (RecordingAdded(name),), time.time()))
    rows = [outbox_row(record, item) for item in told]
    added = await db.fetchval("select attach_recording($1, $2::text::uuid, $3, $4)", call.enterprise, call.id, name, rows)
    return {item.integration for item in told} if added else None


def outbox_row(call: dict[str, Any], told: Told) -> dict[str, Any]:
    """A delivery as record_changes and attach_recording take it; `call` is the call's JSON as it is now."""
    planned = told.planned
    held = {"hold_s": told.hold_s} if told.hold_s else {}
    return {
        "integration": told.integration,
        "call_id": call["id"],
        "kind": str(planned.kind),
        "key": planned.key,
        "priority": int(planned.priority),
        "payload": {**planned.payload, **held, "call": call},
        "expires_s": planned.expires_s,
    }
