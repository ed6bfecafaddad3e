"""The only writer of calls: a change and what is to be told about it, in one transaction.

`record` returns when it is durable. A write is refused when the lease on the PBX is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from daemon.calls.plan import Planner, Told
from daemon.model.call import Call
from daemon.model.signal import CallChange
from daemon.store.calls import CallRepository
from daemon.store.leases import LeaseLost, Leases
from daemon.store.pool import Database

LEASE_LOST = "VL001"


class Recorder:
    """Writes changes of all PBXs that this process reads."""

    def __init__(self, db: Database, leases: Leases, planner: Planner) -> None:
        self._db = db
        self._leases = leases
        self._planner = planner
        self._calls = CallRepository(db)

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
        try:
            await self._db.fetch(
                "select record_changes($1, $2, $3, $4, $5, $6)",
                enterprise, pbx, self._leases.owner, epoch, list(calls.values()), [outbox_row(*item) for item in told],
            )  # fmt: skip
        except asyncpg.PostgresError as error:
            if error.sqlstate == LEASE_LOST:
                raise LeaseLost(f"{enterprise}/{pbx}") from None
            raise
        return {item.integration for _, item in told}

    async def left_open(self, enterprise: str, pbx: str) -> list[Call]:
        """Calls of a PBX that are stored without an end: a former process was stopped while they lived."""
        return [Call.from_json(record) for record in await self._calls.open(enterprise, pbx)]


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
