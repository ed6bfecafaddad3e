"""Calls compared with what every CRM confirmed: whatever should be in a journal and is not known to be there is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from daemon.calls.plan import Planner
from daemon.model.call import iso
from daemon.model.delivery import Kind
from daemon.model.signal import CallChange, Ended
from daemon.store.backfill import BackfillRepository

PAGE = 500
CONFIRMED = ("delivered", "observed")


@dataclass(frozen=True, slots=True)
class Difference:
    """state: the delivery's (waiting, sending, dead, discarded, dropped), or missing when there never was one."""

    call_id: str
    started_at: float
    integration: str
    state: str
    error: str | None

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {"call": self.call_id, "started_at": iso(self.started_at), "integration": self.integration, "state": self.state, "error": self.error}


class Reconciliation:
    """What should have been journaled is what the adapters would plan for the call's end under the present settings."""

    def __init__(self, store: BackfillRepository, planner: Planner) -> None:
        self._store = store
        self._planner = planner

    async def differences(self, enterprise: str, since: datetime, until: datetime) -> AsyncIterator[Difference]:
        """Calls that started in the window and are not confirmed, oldest first."""
        after: tuple[datetime, Any] | None = None
        while calls := await self._store.ended(enterprise, since, until, after, PAGE):
            last = calls[-1]
            after = (datetime.fromtimestamp(last.started_at, UTC), UUID(last.id))
            wanted: dict[str, dict[str, Any]] = {}
            for call in calls:
                change = CallChange(call, (Ended(()),), call.ended_at or call.started_at, late=True)
                for told in self._planner.plan(enterprise, change):
                    if told.planned.kind is Kind.JOURNAL:
                        wanted.setdefault(told.integration, {})[told.planned.key] = call
            for integration, keys in wanted.items():
                states = await self._store.states(enterprise, integration, list(keys))
                for key, call in keys.items():
                    state, error = states.get(key, ("missing", None))
                    if state not in CONFIRMED:
                        yield Difference(call.id, call.started_at, integration, state, error)
            if len(calls) < PAGE:
                return
