"""Posted calls on their way: read what is stored, apply the event, store and tell, in one transaction. Thin shell."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from daemon.calls.plan import Planner
from daemon.calls.posted import Posted, apply, posted_id
from daemon.calls.recorder import outbox_row
from daemon.calls.view import PbxView
from daemon.model.call import Call
from daemon.model.signal import CallChange
from daemon.store.calls import CallRepository
from daemon.store.pool import Database


class PostedCalls:
    """Takes events of PBXs without a link. `on_stored(enterprise, changes, integrations)` is called after every commit."""

    def __init__(self, db: Database, planner: Planner, owner: str, on_stored: Callable[[str, list[CallChange], set[str]], None]) -> None:
        self._db = db
        self._planner = planner
        self._owner = owner
        self._on_stored = on_stored
        self._calls = CallRepository(db)

    async def take(self, view: PbxView, event: Posted) -> bool:
        """Records one event durably; False when the same one (enterprise, UniqueId, kind) was recorded before."""
        enterprise, at = view.enterprise, time.time()
        async with self._db.tenant(enterprise) as connection:
            # One event of a call after the other, on whichever daemon they arrive.
            await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 13))", f"{enterprise} {event.uniqueid}")
            if await connection.fetchval(
                "select exists (select from posted_events where enterprise_number = $1 and uniqueid = $2 and event_type = $3)",
                enterprise, event.uniqueid, str(event.kind),
            ):  # fmt: skip
                return False
            stored = await self._calls.read(connection, enterprise, uuid.UUID(posted_id(view, event.uniqueid)))
            change = apply(event, Call.from_json(stored) if stored else None, view, at)
            record = [change.call.to_json()] if change else []
            told = self._planner.plan(enterprise, change) if change else ()
            await connection.execute(
                "select record_posted($1, $2, $3, $4, $5, $6, $7)",
                enterprise, view.pbx, self._owner, event.uniqueid, str(event.kind), record, [outbox_row(record[0], item) for item in told],
            )  # fmt: skip
        if change is not None:
            self._on_stored(enterprise, [change], {item.integration for item in told})
        return True
