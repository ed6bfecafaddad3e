"""What amoCRM is told: who rings, every call once, what rules make of it, and orders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from adapters.amocrm import module, oauth
from adapters.amocrm.admin import check_connection
from adapters.amocrm.calls import Journal
from adapters.amocrm.client import Accepted, AmoClient, as_outcome
from adapters.amocrm.config import AmoCrmSettings
from adapters.amocrm.limits import POLICY
from adapters.amocrm.lookup import look_up
from adapters.amocrm.made import BY_RULE, CALLED_BACK, Maker
from adapters.amocrm.orders import Orders
from adapters.amocrm.rules import may_make
from adapters.base import Connection, Tenant
from daemon.model.call import Call, Direction
from daemon.model.crm import CrmUser, Registered, Registration, Responsible
from daemon.model.delivery import Check, Delivered, Delivery, Kind, Outcome, Planned, Policy, Priority, Retry
from daemon.model.integration import IntegrationSettings
from daemon.model.signal import CallChange, CalledBack, Ended, RecordingAdded, Ringing

POPUP_LIFETIME_S = 30.0
# A task that could not be made for so long is no use any more.
TASK_LIFETIME_S = 7 * 86_400.0
RECORDING_LIFETIME_S = 30 * 86_400.0


class AmoCrm:
    """The adapter."""

    name: ClassVar[str] = "amocrm"
    title: ClassVar[str] = "amoCRM"
    settings: ClassVar[type[IntegrationSettings]] = AmoCrmSettings
    policy: ClassVar[Policy] = POLICY

    def account(self, settings: AmoCrmSettings) -> str:
        return settings.base_url

    def plan(self, change: CallChange, settings: AmoCrmSettings, tenant: Tenant) -> Sequence[Planned]:
        call = change.call
        if call.direction is Direction.INTERNAL or call.customer_number is None:  # a call is kept with whose number it is
            return ()
        planned: list[Planned] = []
        for signal in change.signals:
            match signal:
                case Ringing(extensions):
                    planned += _popup(call, extensions, settings, change.at)
                case Ended() if settings.send.journal:
                    late = {"late": True} if change.late else {}
                    planned.append(Planned(Kind.JOURNAL, f"journal:{call.id}", late, Priority.JOURNAL, with_recordings=settings.send.recordings))
                    if not change.late and may_make(settings, call):
                        planned.append(Planned(Kind.TASK, f"rule:{call.id}", {"what": BY_RULE}, Priority.SYNC, TASK_LIFETIME_S))
                case RecordingAdded(name) if settings.send.journal and settings.send.recordings:
                    key = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]
                    planned.append(Planned(Kind.RECORDING, f"recording:{call.id}:{key}", {}, Priority.SYNC, RECORDING_LIFETIME_S, with_recordings=True))
                case CalledBack(_, _, by, _) if settings.send.journal and may_make(settings, call):
                    planned.append(Planned(Kind.TASK, f"called_back:{call.id}", {"what": CALLED_BACK, "by": by}, Priority.SYNC, TASK_LIFETIME_S))
        return planned

    async def deliver(self, connection: Connection, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        client = AmoClient(connection)
        settings, tenant, first = client.settings, connection.tenant, batch[0]
        match first.kind:
            case Kind.POPUP:
                return [await _show(client, delivery) for delivery in batch]
            case Kind.RECORDING:
                return [await Journal(client, settings, tenant).add_recording(delivery) for delivery in batch]
            case Kind.TASK:
                return [await Maker(client, settings, tenant).make(delivery) for delivery in batch]
            case Kind.ORDER:
                return [await Orders(client, settings, tenant.country).make(delivery) for delivery in batch]
            case _:
                return await Journal(client, settings, tenant).tell(batch)

    async def reconcile(self, connection: Connection, delivery: Delivery) -> Outcome:
        client = AmoClient(connection)
        match delivery.kind:
            case Kind.JOURNAL:
                return await Journal(client, client.settings, connection.tenant).reconcile(delivery)
            case Kind.TASK:
                return await Maker(client, client.settings, connection.tenant).reconcile(delivery)
            case Kind.ORDER:
                return await Orders(client, client.settings, connection.tenant.country).reconcile(delivery)
            case _:
                return Retry("repeating is safe", after_s=0)

    async def check(self, connection: Connection) -> Sequence[Check]:
        return await check_connection(
            AmoClient(connection), is_connected=await oauth.current(connection) is not None, renamed=lambda: oauth.renamed(connection)
        )

    async def responsible(self, connection: Connection, phone: str) -> Responsible | None:
        # Whoever asks here may be cut short at any moment, an exchange of tokens may not.
        return await look_up(AmoClient(connection, may_exchange=False), phone, connection.tenant.country)

    async def managers(self, connection: Connection) -> Sequence[CrmUser]:
        return await module.managers(AmoClient(connection))

    async def set_extensions(self, connection: Connection, extensions: Mapping[str, str], registration: Registration | None) -> None:
        """amoCRM holds no extensions: the ones that are set here are all there are."""

    async def register(self, connection: Connection, registration: Registration) -> Registered:
        return await module.register(AmoClient(connection), registration)

    async def unregister(self, connection: Connection, registration: Registration) -> Registered:
        return await module.unregister(AmoClient(connection), registration)

    def consent_url(self, settings: AmoCrmSettings, state: str, callback_url: str) -> str:
        return oauth.consent_url(settings, state)

    async def consented(self, connection: Connection, answer: Mapping[str, str], callback_url: str) -> Registered:
        return await oauth.consented(connection, answer, callback_url)

    def renew_at(self, tokens: Mapping[str, Any]) -> float | None:
        return oauth.renew_at(tokens)

    async def renew(self, connection: Connection, seen: Mapping[str, Any]) -> Registered:
        return await oauth.renew(connection, seen)


def _popup(call: Call, extensions: tuple[str, ...], settings: AmoCrmSettings, at: float) -> list[Planned]:
    """To those who ring and are users; not for a call that was begun by a click: its card is open already."""
    wanted = settings.send.popup_in if call.direction is Direction.IN else settings.send.popup_out
    users = sorted(user for extension in extensions if (user := settings.user_of(extension)) is not None)
    if not wanted or not users or call.click_to_call:
        return []
    key = f"popup:{call.id}:{'+'.join(extensions)}:{at:.3f}"
    return [Planned(Kind.POPUP, key, {"users": users}, Priority.POPUP, POPUP_LIFETIME_S)]


async def _show(client: AmoClient, delivery: Delivery) -> Outcome:
    event = {"type": "phone_call", "phone_number": delivery.call.customer_number, "users": list(delivery.payload["users"])}
    answer = await client.post("api/v2/events/", {"add": [event]})
    return Delivered() if isinstance(answer, Accepted) else as_outcome(answer)
