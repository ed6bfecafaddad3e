"""The ticket desk over tenants, outbox, recordings and the adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.tickets.config import TicketsSettings
from adapters.tickets.limits import most_bytes
from daemon.delivery.dispatcher import Dispatcher
from daemon.live import Live
from daemon.model.call import Call
from daemon.model.delivery import Delivery, Record
from daemon.model.ticket import CallNote, Side
from daemon.recordings.links import RecordingLinks
from daemon.security.vault import Vault
from daemon.store.attachments import AttachmentRepository
from daemon.store.calls import CallRepository
from daemon.store.pool import Database
from daemon.tenants.document import DirectoryRecordings, HttpRecordings
from daemon.tenants.service import Tenants
from daemon.tickets.attachments import Attachments, Playable, Rules, Sessions
from daemon.tickets.desk import INTEGRATION, TicketDesk
from daemon.wiring.crm import Crm

DEFAULT_DAYS = 365


@dataclass(frozen=True, slots=True)
class DeskRoom:
    """The desk and its attachments; `run` fetches them."""

    desk: TicketDesk
    attachments: Attachments


@dataclass(frozen=True, slots=True)
class OneDesk:
    """The desk of one enterprise, as its adapter sees it."""

    room: DeskRoom
    enterprise: str

    async def take_call(self, call: Call, note: CallNote) -> int | None:
        return await self.room.desk.take_call(self.enterprise, call, note)

    async def handed_over(self, attachments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return await self.room.attachments.handed_over(self.enterprise, attachments)

    async def note_remote(self, ticket_id: int, message_id: int | None, remote_id: str) -> None:
        await self.room.desk.tickets.note_remote(self.enterprise, ticket_id, message_id, remote_id)

    async def agent_of(self, phone: str) -> str | None:
        agent, _ = await self.room.desk.tickets.agent_of(self.enterprise, phone)
        return agent


def open_desk(
    db: Database, tenants: Tenants, crm: Crm, dispatcher: Dispatcher, live: Live, sessions: Sessions, recordings: Playable, vault: Vault, base_url: str
) -> DeskRoom:
    """The room, and `crm` told of it."""

    def epoch(enterprise: str) -> int | None:
        tenancy = tenants.get(enterprise)
        return tenancy.recordings_epoch if tenancy else None

    def days(enterprise: str) -> int:
        tenancy = tenants.get(enterprise)
        kept = [pbx.recordings for pbx in tenancy.enterprise.pbxs] if tenancy else []
        return max((one.retention_days for one in kept if isinstance(one, DirectoryRecordings | HttpRecordings)), default=DEFAULT_DAYS)

    def role(enterprise: str) -> tuple[Side, str] | None:
        tenancy = tenants.get(enterprise)
        settings = tenancy.integrations.get(INTEGRATION) if tenancy else None
        return (Side(settings.role), settings.project) if isinstance(settings, TicketsSettings) else None

    links = RecordingLinks(vault.derived_keys("attachments"), epoch, "/attachments/")
    attachments = Attachments(AttachmentRepository(db), CallRepository(db), sessions, links, recordings, Rules(most_bytes, days), base_url)
    room = DeskRoom(TicketDesk(db, role, live, dispatcher.wake, attachments.wake), attachments)
    crm.desks = lambda enterprise: OneDesk(room, enterprise)
    return room


def tell_settled(live: Live) -> Callable[[str, str, Delivery, str], None]:
    """What the dispatcher calls after every attempt: watchers hear of the delivery, those of a ticket's page of their ticket alone."""

    def tell(enterprise: str, integration: str, told: Delivery, state: str) -> None:
        live.tell(enterprise, "delivery", {"id": told.id, "integration": integration, "kind": str(told.kind), **told.names, "state": state})
        if isinstance(told.about, Record) and told.about.type == "ticket":
            live.tell(enterprise, "ticket", {"id": int(told.about.id), "message": told.payload.get("message_id"), "state": state})

    return tell
