"""One call's whole story, for `vochid calls explain` and the trace route."""

from __future__ import annotations

from typing import Any

from daemon.calls.timeline import CrmSide, stamped, timeline, why_not
from daemon.errors import NotFound
from daemon.store.calls import CallRepository
from daemon.store.pool import Database
from daemon.store.traces import TraceRepository
from daemon.tenants.service import Tenants


class Explain:
    """Reads what was kept of a call and puts it in order."""

    def __init__(self, db: Database, tenants: Tenants) -> None:
        self._calls = CallRepository(db)
        self._traces = TraceRepository(db)
        self._tenants = tenants

    async def story(self, enterprise: str, call_id: str) -> dict[str, Any]:
        """{"call", "items": the timeline, "notes": why something was not told, or is not here}. Raises NotFound."""
        call = await self._calls.get(enterprise, call_id)
        trace = await self._traces.get(enterprise, call["id"])
        deliveries, logs = await self._traces.told(enterprise, call["id"])
        notes = []
        if trace is None:
            notes.append("Of this call no raw events are kept: it began a moment ago, it came from CDR, or they are past their time (VOCHID_TRACE_DAYS).")
        elif trace.left_out:
            notes.append(f"{trace.left_out} events beyond the bound of a call's trace were left out.")
        if trace is not None and trace.masked:
            notes.append("Numbers and names in the raw events are masked (VOCHID_TRACE_MASK).")
        if call["gap"]:
            notes.append("A part of this call was not seen (gap): some fields are reconstructed.")
        tenancy = self._tenants.get(enterprise)
        sides = [] if tenancy is None else [CrmSide(n, s.enabled, str(s.mode), s.send.model_dump()) for n, s in tenancy.integrations.items()]
        notes += why_not(call, deliveries, sides, paused=tenancy is not None and tenancy.enterprise.paused)
        raw, chunks, changes = (trace.raw, trace.chunks, trace.changes) if trace else (b"", [], [])
        return {"call": call, "items": timeline(call, raw, chunks, changes, deliveries, logs), "notes": notes}

    async def has_trace(self, enterprise: str, call_id: str) -> bool:
        """Whether raw events of a call are kept."""
        return await self._traces.has(enterprise, call_id)

    async def trace(self, enterprise: str, call_id: str) -> bytes:
        """The raw events as a TRACE, their times in `Timestamp` headers. Raises NotFound."""
        call = await self._calls.get(enterprise, call_id)
        found = await self._traces.get(enterprise, call["id"])
        if found is None:
            raise NotFound("no raw events of this call are kept")
        return stamped(found.raw, found.chunks)
