"""Clicks that a CRM sends as events: taken at once, placed afterwards, and what failed is told back.

A CRM that sends an event once and waits for no result has to hear of a refusal in another way: it becomes a delivery, which is stored
and tried like any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from daemon.errors import VochidError
from daemon.originate.service import Asked, OriginateService
from daemon.originate.states import OPEN
from daemon.store.originates import OriginateRepository
from daemon.supervisor import Supervisor

MAX_AT_WORK = 200
REPEATED = "repeated"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CrmClick:
    """A click whose sender has proved itself. `key` names it at the CRM: the same event that comes again has the same one. `user_id` None:
    nobody clicked, whoever looks after the customer is to call."""

    enterprise: str
    integration: str
    key: str
    phone: str
    user_id: str | None = None
    line: str | None = None


class CrmClicks:
    """`choose(click)`: the extension that calls when nobody clicked, or None. `tell_refused(click, code, reason)`: stores what the CRM is to be
    told."""

    def __init__(
        self,
        service: OriginateService,
        repository: OriginateRepository,
        choose: Callable[[CrmClick], Awaitable[str | None]],
        tell_refused: Callable[[CrmClick, str, str], Awaitable[None]],
    ) -> None:
        self._service = service
        self._repository = repository
        self._choose = choose
        self._tell_refused = tell_refused
        self._at_work: set[tuple[str, str]] = set()
        self._supervisor = Supervisor("clicks")

    def take(self, click: CrmClick) -> bool:
        """Begins; False when too many are at work, and nothing was begun. The same one that is at work already is taken as the same."""
        key = click.enterprise, click.key
        if key in self._at_work:
            return True
        if len(self._at_work) >= MAX_AT_WORK:
            return False
        self._at_work.add(key)
        self._supervisor.job(f"click {click.enterprise}", self._place(click, key))
        return True

    async def stop(self) -> None:
        await self._supervisor.stop()

    async def _place(self, click: CrmClick, key: tuple[str, str]) -> None:
        try:
            refusal = await self._try(click)
            if refusal is not None:
                log.warning("click refused", enterprise=click.enterprise, integration=click.integration, code=refusal[0])
                await self._tell_refused(click, *refusal)
        finally:
            self._at_work.discard(key)

    async def _try(self, click: CrmClick) -> tuple[str, str] | None:
        """Code and words of a refusal, or None: whatever becomes of the call from here on is told as the call's end."""
        try:
            extension = None if click.user_id is not None else await self._choose(click)
            if click.user_id is None and extension is None:
                return "nobody", "nobody is there to call back: neither the customer's manager nor the line's default"
            asked = Asked(click.phone, click.integration, extension, click.user_id, click.line, click.key)
            placed = await self._service.click(click.enterprise, asked)
        except VochidError as error:
            # What the PBX refused after it was sent is recorded as a call, whose end is told.
            return None if error.code == "pbx_refused" else (error.code, str(error))
        if await self._repository.key_of(click.enterprise, placed.request_id) == click.key:
            return None
        return REPEATED, "the same call was asked for a moment ago" + (" and is being placed" if placed.state in OPEN else "")
