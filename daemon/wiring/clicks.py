"""Clicks that come as events, joined with lookups, lines and the outbox."""

from __future__ import annotations

import time
import uuid

from daemon.calls.plan import Told
from daemon.calls.recorder import Recorder
from daemon.delivery.dispatcher import Dispatcher
from daemon.lookup.decision import Status
from daemon.lookup.service import Question
from daemon.model.call import Call, Direction, Result
from daemon.model.delivery import Kind, Planned, Priority
from daemon.model.phone import digits_of, to_e164
from daemon.originate.clicks import CrmClick, CrmClicks
from daemon.store.originates import OriginateRepository
from daemon.store.pool import Database
from daemon.tenants.service import Tenants
from daemon.wiring.asks import PbxAsks
from daemon.wiring.originate import Originating

_NAMESPACE = uuid.UUID("5f4dbb5e-1d0c-4c55-9b1c-2f4b8a6d7e31")


def open_clicks(db: Database, tenants: Tenants, originating: Originating, asks: PbxAsks, recorder: Recorder, dispatcher: Dispatcher) -> CrmClicks:
    """The service; the caller must `stop` it."""

    async def choose(click: CrmClick) -> str | None:
        """Who looks after the customer and is free, else whoever stands for the line."""
        decision = await asks.lookup.ask(Question(click.enterprise, click.phone, via=click.integration))
        if decision.status is Status.FOUND and decision.extension:
            return decision.extension
        tenancy = tenants.get(click.enterprise)
        lines = tenancy.enterprise.lines if tenancy else ()
        return next((line.default_code for line in lines if line.default_code and digits_of(line.number) == digits_of(click.line or "")), None)

    async def tell_refused(click: CrmClick, code: str, reason: str) -> None:
        tenancy, now = tenants.get(click.enterprise), time.time()
        settings = tenancy.integrations.get(click.integration) if tenancy else None
        if tenancy is None or settings is None:
            return
        call = Call(
            id=str(uuid.uuid5(_NAMESPACE, "\0".join((click.enterprise, click.integration, click.key)))),
            enterprise=click.enterprise,
            pbx="",
            linkedid="",
            direction=Direction.OUT,
            started_at=now,
            ended_at=now,
            customer_number=to_e164(click.phone, tenancy.enterprise.country) or digits_of(click.phone) or None,
            line=click.line,
            result=Result.REJECTED,
            initiator=settings.user_extensions.get(click.user_id or ""),
            click_to_call=True,
        )
        payload = {"step": "finish", "click": click.key, "user": click.user_id, "code": code, "reason": reason[:200]}
        told = Told(click.integration, Planned(Kind.JOURNAL, f"refused:{click.key}", payload, Priority.JOURNAL))
        await recorder.tell(call, told)
        dispatcher.wake(click.enterprise, click.integration)

    return CrmClicks(originating.service, OriginateRepository(db), choose, tell_refused)
