"""Delivery end to end without a process of its own: a database, tenants, an adapter, a CRM, the dispatcher."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from adapters.base import Adapter
from daemon.calls.recorder import Recorder
from daemon.delivery.dispatcher import Dispatcher
from daemon.delivery.outbox import Outbox
from daemon.live import Live
from daemon.model.call import Call, Direction, Leg, LegKind, Result
from daemon.model.delivery import Policy
from daemon.model.signal import CallChange, Ended, Ringing, Signal
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.calls import CallRepository
from daemon.store.leases import Leases
from daemon.store.pool import Database
from daemon.supervisor import Supervisor
from daemon.tenants.service import Tenants
from daemon.tickets.desk import TicketDesk
from daemon.wiring.crm import Crm, GuardedSessions
from daemon.wiring.tickets import open_desk
from tests.patience import PATIENCE_S

NUMBER = "0367"
WITHIN_S = 60.0  # for what surely comes; nothing is proved by how soon


class OneRecording:
    """Instead of the recordings room: every recording is there."""

    async def one_for_crm(self, call: Call, index: int) -> tuple[str, str, int] | None:
        return f"https://vochid.example/recordings/{call.id}-{index}.wav", "audio/wav", 1_000


def a_call(**more: Any) -> Call:
    """A finished, answered incoming call."""
    base: dict[str, Any] = {
        "id": str(uuid.uuid4()), "enterprise": NUMBER, "pbx": "main", "linkedid": "1.1", "direction": Direction.IN, "started_at": 1_763_701_800.0,
        "customer_number": "+375296254070", "customer_name": "ООО «Восток, север»", "line": "+375171112233", "answered_at": 1_763_701_807.2,
        "ended_at": 1_763_701_848.2, "talk_seconds": 41.0, "result": Result.ANSWERED, "rang": ("150", "151"), "answered_by": "151", "last_talked": "151",
        "legs": (Leg("PJSIP/provider-1", "+375296254070", LegKind.CUSTOMER, 1_763_701_800.0),),
    }  # fmt: skip
    return Call(**{**base, **more})


def ringing(call: Call) -> Call:
    """The same call while it rings."""
    return replace(call, answered_at=None, ended_at=None, result=None, talk_seconds=0.0, answered_by=None, last_talked=None)


@dataclass
class Rig:
    """Everything between the model and the CRM."""

    db: Database
    tenants: Tenants
    crm: Crm
    outbox: Outbox
    leases: Leases
    recorder: Recorder
    dispatcher: Dispatcher
    adapter: Adapter
    states: list[tuple[str, str, str, str]] = field(default_factory=list)
    desk: TicketDesk | None = None

    async def record(self, call: Call, *signals: Signal, wake: bool = True) -> None:
        """As the model would: stores a change and wakes the dispatcher."""
        await self.record_all([call], *signals, wake=wake)

    async def record_all(self, calls: Sequence[Call], *signals: Signal, wake: bool = True) -> None:
        """The same change of many calls of one PBX, in one transaction."""
        enterprise, pbx = calls[0].enterprise, calls[0].pbx
        for integration in await self.recorder.record(enterprise, pbx, [CallChange(call, signals, time.time()) for call in calls]):
            if wake:
                self.dispatcher.wake(enterprise, integration)

    async def attach(self, enterprise: str, call_id: str, name: str) -> bool:
        """A recording that comes after the call, as the recordings room adds it."""
        call = Call.from_json(await CallRepository(self.db).get(enterprise, call_id))
        return name not in call.recordings and await self.recorder.add_recording(replace(call, recordings=(*call.recordings, name))) is not None

    async def live_call(self, call: Call) -> None:
        """Rings and ends."""
        await self.record(ringing(call), Ringing(call.rang))
        await self.record(call, Ended(("151",)))

    async def live_call_later(self, call: Call) -> None:
        """Rings and ends; nobody is woken."""
        await self.record(ringing(call), Ringing(call.rang), wake=False)
        await self.record(call, Ended(("151",)), wake=False)

    async def settled(self, *, hurry: bool = False) -> list[dict[str, Any]]:
        """Waits until nothing is waiting or in flight; gives all deliveries, oldest first. hurry: lets time pass meanwhile."""

        def is_over(found: Sequence[dict[str, Any]]) -> bool:
            return not any(d["state"] in ("waiting", "sending") for d in found)

        return await self.deliveries(is_over, hurry=hurry)

    async def deliveries(self, condition: Callable[[Sequence[dict[str, Any]]], object], *, hurry: bool = False) -> list[dict[str, Any]]:
        """Waits until the deliveries, newest first, are as wanted; gives them, oldest first. hurry: lets time pass meanwhile."""
        async with asyncio.timeout(WITHIN_S):
            while not condition(found := await self.outbox.list(NUMBER, limit=500)):
                if hurry:
                    await self.hurry()
                    self.dispatcher.wake(NUMBER, self.adapter.name)
                await asyncio.sleep(0.02)
        return list(found[::-1])

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await asyncio.sleep(0.02)

    async def at_rest(self) -> None:
        """Waits until no delivery is in flight: what an answer sets is written."""
        await self.deliveries(lambda found: not any(d["state"] == "sending" for d in found))

    async def connection_is(self, state: str) -> dict[str, Any]:
        """Waits until the connection has this state; gives it with its reason."""
        async with asyncio.timeout(WITHIN_S):
            while (found := (await self.outbox.connection_states(NUMBER)).get(self.adapter.name, {})).get("state") != state:
                await asyncio.sleep(0.02)
        return found

    def allow(self, deadline_s: float) -> None:
        """From now on every request has so much time."""
        self.adapter.policy = _with_deadline(self.adapter.policy, deadline_s)  # type: ignore[misc]

    async def hurry(self) -> None:
        """Lets time pass: whatever waits is due now."""
        async with self.db.tenant(NUMBER) as connection:
            await connection.execute("update deliveries set due_at = now() where state = 'waiting'")


def _with_deadline(policy: Policy, deadline_s: float) -> Policy:
    return replace(policy, deadline_s=dict.fromkeys(policy.deadline_s, deadline_s))


@asynccontextmanager
async def rig(db: Database, adapter: Adapter, settings: Mapping[str, Any], *, run: bool = True, deadline_s: float = PATIENCE_S) -> AsyncIterator[Rig]:
    """A rig with one enterprise that has one integration. deadline_s: of each request; the adapter's own would make a machine that stands
    still for a moment a CRM that does."""
    adapter.policy = _with_deadline(adapter.policy, deadline_s)  # type: ignore[misc]
    egress = EgressPolicy(["127.0.0.0/8"])
    vault = Vault(["k" * 40])
    tenants = Tenants(db, vault, egress, {adapter.name: adapter.settings})
    await tenants.put(
        NUMBER, {"number": NUMBER, "name": "Июнь", "pbxs": [{"name": "main", "host": "127.0.0.1"}], "integrations": {adapter.name: dict(settings)}}
    )
    sessions = GuardedSessions(egress)
    crm = Crm(tenants, {adapter.name: adapter}, sessions, db, vault)
    outbox, leases = Outbox(db, "test"), Leases(db, "test", ttl_s=PATIENCE_S)
    states: list[tuple[str, str, str, str]] = []
    dispatcher = Dispatcher(outbox, crm, lambda *state: states.append(state))
    room = open_desk(db, tenants, crm, dispatcher, Live(), sessions, OneRecording(), vault, "https://vochid.example")
    tenants.on_change(dispatcher.settings_changed)
    await leases.take((NUMBER, "main"))
    supervisor = Supervisor("rig")
    supervisor.serve("leases", leases.run)
    if run:
        supervisor.serve("dispatcher", dispatcher.run)
    try:
        yield Rig(db, tenants, crm, outbox, leases, Recorder(db, leases, crm), dispatcher, adapter, states, room.desk)
    finally:
        await supervisor.stop()
        await dispatcher.stop()
        await sessions.close()
