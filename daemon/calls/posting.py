"""Posted calls on their way: read what is stored, apply the event, store and tell, in one transaction. Thin shell."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable

from daemon.calls.plan import Planner
from daemon.calls.posted import Posted, apply, open_popups, posted_id
from daemon.calls.recorder import outbox_row
from daemon.calls.rules import given_up
from daemon.calls.view import PbxView
from daemon.model.call import Call
from daemon.model.signal import CallChange, Ended, RecordingAdded
from daemon.store.calls import CallRepository
from daemon.store.pool import Connection, Database

GIVEN_UP = "given_up"


class PostedCalls:
    """Takes events of PBXs without a link. `on_stored(enterprise, changes, integrations)` is called after every commit.

    attach: gives a call that is over a recording (enterprise, call id, name) and tells it; harmless when it is given again.
    """

    def __init__(
        self,
        db: Database,
        planner: Planner,
        owner: str,
        on_stored: Callable[[str, list[CallChange], set[str]], None],
        attach: Callable[[str, str, str], Awaitable[bool]],
    ) -> None:
        self._db = db
        self._planner = planner
        self._owner = owner
        self._on_stored = on_stored
        self._attach = attach
        self._calls = CallRepository(db)

    async def take(self, view: PbxView, event: Posted) -> bool:
        """Records one event durably; False when the same one (enterprise, UniqueId, kind) was recorded before."""
        enterprise, kind, at = view.enterprise, str(event.kind), time.time()
        async with self._db.tenant(enterprise) as connection:
            if not await self._is_new(connection, enterprise, event.uniqueid, kind):
                return False
            stored = await self._calls.read(connection, enterprise, uuid.UUID(posted_id(view, event.uniqueid)))
            change = apply(event, Call.from_json(stored) if stored else None, view, at)
            late = change is not None and any(isinstance(signal, RecordingAdded) for signal in change.signals)
            told = set() if late else await self._record(connection, view.pbx, event.uniqueid, kind, enterprise, change)
        if change is not None and late:
            return await self._take_late(view, event, change)
        if change is not None:
            self._on_stored(enterprise, [change], told)
        return True

    async def _take_late(self, view: PbxView, event: Posted, change: CallChange) -> bool:
        """A recording of a call that is over. The event is noted last: if that fails it is posted again, and attached once all the same."""
        added = [await self._attach(view.enterprise, change.call.id, signal.name) for signal in change.signals if isinstance(signal, RecordingAdded)]
        async with self._db.tenant(view.enterprise) as connection:
            if await self._is_new(connection, view.enterprise, event.uniqueid, str(event.kind)):
                await self._record(connection, view.pbx, event.uniqueid, str(event.kind), view.enterprise, None)
        if any(added):
            self._on_stored(view.enterprise, [change], set())
        return any(added)

    async def close_stale(self, after_s: float) -> int:
        """Ends calls of which nothing was posted for so long: their hangup was lost. Gives how many."""
        rows = await self._db.fetch("select * from stale_posted_calls($1)", after_s)
        for row in rows:
            enterprise, at = row["enterprise_number"], time.time()
            async with self._db.tenant(enterprise) as connection:
                await self._lock(connection, enterprise, row["linkedid"])
                stored = await self._calls.read(connection, enterprise, row["id"])
                if stored is None or stored["ended_at"] is not None:
                    continue
                call = Call.from_json(stored)
                change = CallChange(given_up(call, call.answered_at or call.started_at), (Ended(open_popups(call)),), at)
                told = await self._record(connection, call.pbx, call.linkedid, GIVEN_UP, enterprise, change)
            self._on_stored(enterprise, [change], told)
        return len(rows)

    async def _is_new(self, connection: Connection, enterprise: str, uniqueid: str, kind: str) -> bool:
        """Whether this event was not recorded before; until the transaction ends no other event of the call is taken."""
        await self._lock(connection, enterprise, uniqueid)
        seen = "select exists (select from posted_events where enterprise_number = $1 and uniqueid = $2 and event_type = $3)"
        return not await connection.fetchval(seen, enterprise, uniqueid, kind)

    async def _lock(self, connection: Connection, enterprise: str, uniqueid: str) -> None:
        """One event of a call after the other, on whichever daemon they arrive."""
        await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 13))", f"{enterprise} {uniqueid}")

    async def _record(self, connection: Connection, pbx: str, uniqueid: str, kind: str, enterprise: str, change: CallChange | None) -> set[str]:
        """Writes the event and what it changed; gives the integrations that have something to be told."""
        record = [change.call.to_json()] if change else []
        told = self._planner.plan(enterprise, change) if change else ()
        await connection.execute(
            "select record_posted($1, $2, $3, $4, $5, $6, $7)",
            enterprise, pbx, self._owner, uniqueid, kind, record, [outbox_row(record[0], item) for item in told],
        )  # fmt: skip
        return {item.integration for item in told}
