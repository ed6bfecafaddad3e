"""What Bitrix24 is told: a call is registered when it rings, shown to who rings, finished once, given its recording.

`plan` decides; telling.py makes the portal's commands of what was planned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from adapters.base import Connection, Tenant
from adapters.bitrix24 import module, oauth, telling
from adapters.bitrix24.admin import check_connection
from adapters.bitrix24.client import Portal
from adapters.bitrix24.config import Bitrix24Settings
from adapters.bitrix24.limits import POLICY
from adapters.bitrix24.lookup import look_up
from adapters.bitrix24.rules import makes_entity, settled_rule
from adapters.bitrix24.sync_portal import equalise
from daemon.model.call import Call, Direction
from daemon.model.crm import CrmUser, Registered, Registration, Responsible
from daemon.model.delivery import Check, Delivery, Kind, Outcome, Planned, Policy, Priority, Retry
from daemon.model.integration import IntegrationSettings
from daemon.model.signal import CallChange, CalledBack, Ended, RecordingAdded, Ringing, StoppedRinging

POPUP_LIFETIME_S = 30.0


class Bitrix24:
    """The adapter."""

    name: ClassVar[str] = "bitrix24"
    title: ClassVar[str] = "Bitrix24"
    settings: ClassVar[type[IntegrationSettings]] = Bitrix24Settings
    policy: ClassVar[Policy] = POLICY
    extensions_in_entry: ClassVar[bool] = False

    def account(self, settings: Bitrix24Settings) -> str:
        return settings.portal

    def plan(self, change: CallChange, settings: Bitrix24Settings, tenant: Tenant) -> Sequence[Planned]:
        call = change.call
        if call.direction is Direction.INTERNAL or call.customer_number is None:  # the portal registers no call without a number
            return ()
        planned: list[Planned] = []
        for signal in change.signals:
            match signal:
                case Ringing(extensions):
                    planned += _shown(call, extensions, settings, change.at)
                case StoppedRinging(extensions):
                    planned += _hidden(call, extensions, settings, f"{change.at:.3f}")
                case Ended(extensions) if settings.send.journal:
                    planned += _ended(call, settings, change.late)
                case Ended(extensions):
                    planned += _hidden(call, extensions, settings, "end")
                case RecordingAdded(name) if settings.send.journal and settings.send.recordings:
                    planned.append(_recording(call, hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]))
                case CalledBack(how, _, by) if any(rule.do == "task" for rule in settings.rules):
                    planned.append(Planned(Kind.JOURNAL, f"closed:{call.id}", {"step": "close", "how": how, "by": by}, Priority.SYNC))
        return planned

    async def deliver(self, connection: Connection, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        if batch[0].kind is Kind.SYNC:
            return await equalise(connection, batch)
        return await telling.tell(connection, batch)

    async def reconcile(self, connection: Connection, delivery: Delivery) -> Outcome:
        if delivery.kind is Kind.SYNC:
            return Retry("it is looked for before it is made", after_s=0)
        return await telling.reconcile(connection, delivery)

    async def check(self, connection: Connection) -> Sequence[Check]:
        return await check_connection(connection)

    async def responsible(self, connection: Connection, phone: str) -> Responsible | None:
        return await look_up(Portal(connection), phone)

    async def register(self, connection: Connection, registration: Registration) -> Registered:
        return await module.register(connection, registration)

    async def unregister(self, connection: Connection, registration: Registration) -> Registered:
        return await module.unregister(connection, registration)

    async def lines(self, connection: Connection) -> Mapping[str, str]:
        return await module.lines(connection)

    async def managers(self, connection: Connection) -> Sequence[CrmUser]:
        return await module.managers(connection)

    async def set_extensions(self, connection: Connection, extensions: Mapping[str, str], registration: Registration | None) -> None:
        await module.set_extensions(connection, extensions)

    def consent_url(self, settings: Bitrix24Settings, state: str, callback_url: str) -> str:
        return oauth.consent_url(settings, state)

    async def consented(self, connection: Connection, answer: Mapping[str, str], callback_url: str) -> Registered:
        return await oauth.consented(connection, answer)


def _shown(call: Call, extensions: tuple[str, ...], settings: Bitrix24Settings, at: float) -> list[Planned]:
    wanted = settings.send.popup_in if call.direction is Direction.IN else settings.send.popup_out
    if not wanted or not extensions:
        return []
    payload = {"extensions": list(extensions), "create": makes_entity(settings, call, ended=False)}
    return [Planned(Kind.POPUP, f"popup:{call.id}:{'+'.join(extensions)}:{at:.3f}", payload, Priority.POPUP, POPUP_LIFETIME_S)]


def _hidden(call: Call, extensions: tuple[str, ...], settings: Bitrix24Settings, when: str) -> list[Planned]:
    if not settings.send.hangup or not extensions:
        return []
    return [Planned(Kind.HANGUP, f"hide:{call.id}:{'+'.join(extensions)}:{when}", {"extensions": list(extensions)}, Priority.POPUP, POPUP_LIFETIME_S)]


def _ended(call: Call, settings: Bitrix24Settings, late: bool) -> list[Planned]:
    """finish closes every card by itself. It goes at once; what takes longer follows in the same lane."""
    rules = {name: settled_rule(settings.rules, call, known=name == "known") for name in ("known", "unknown")}
    responsible = {name: rule.responsible for name, rule in rules.items() if rule is not None}
    payload: dict[str, Any] = {"step": "finish", "create": not late and makes_entity(settings, call, ended=True), "responsible": responsible}
    planned = [Planned(Kind.JOURNAL, f"journal:{call.id}", payload, Priority.JOURNAL)]
    made = {name: rule.model_dump(mode="json") for name, rule in rules.items() if rule is not None and rule.do != "nothing"}
    if made and not late:
        planned.append(Planned(Kind.JOURNAL, f"rule:{call.id}", {"step": "rule", **made}, Priority.JOURNAL))
    if call.recordings and settings.send.recordings:
        planned.append(_recording(call, "end"))
    return planned


def _recording(call: Call, which: str) -> Planned:
    return Planned(Kind.RECORDING, f"recording:{call.id}:{which}", {}, Priority.SYNC, with_recordings=True)
