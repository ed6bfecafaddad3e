"""What the desk is told of calls, and what the other side is told of the desk.

Two steps: a call's note is written into a ticket here, in a lane of the call; what a ticket gains is told to the other side in the lane of
the ticket, in its order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

from adapters.base import Connection, Tenant
from adapters.http import Observed, Response
from adapters.tickets.admin import check_connection
from adapters.tickets.client import Accepted, DeskClient, interpret, is_no_route
from adapters.tickets.config import TicketsSettings
from adapters.tickets.limits import NOTED, POLICY
from adapters.tickets.lookup import look_up
from adapters.tickets.wording import recording_of, returned, subject_of, summary_of
from daemon.model.call import Call, Direction, Result
from daemon.model.crm import Responsible
from daemon.model.delivery import Check, Delivered, Delivery, Exchange, Kind, Outcome, Planned, Policy, Priority, Rejected, Retry
from daemon.model.integration import IntegrationSettings, Rule
from daemon.model.signal import CallChange, CalledBack, Ended, RecordingAdded
from daemon.model.ticket import CallNote, TicketStatus

_PATHS = {Kind.TICKET: "tickets", Kind.MESSAGE: "messages", Kind.STATUS: "status"}
_OURS = ("ticket_id", "message_id", "sequence")  # in a payload for ourselves


class Tickets:
    """The adapter."""

    name: ClassVar[str] = "tickets"
    title: ClassVar[str] = "Tickets"
    settings: ClassVar[type[IntegrationSettings]] = TicketsSettings
    policy: ClassVar[Policy] = POLICY

    def account(self, settings: TicketsSettings) -> str:
        return settings.remote_url

    def plan(self, change: CallChange, settings: TicketsSettings, tenant: Tenant) -> Sequence[Planned]:
        call = change.call
        if call.direction is Direction.INTERNAL or change.late:
            return ()
        planned: list[Planned] = []
        for signal in change.signals:
            match signal:
                case Ended() if settings.send.journal and wants_ticket(call, settings):
                    planned.append(_noted(Kind.JOURNAL, f"journal:{call.id}", with_recordings=settings.send.recordings))
                case RecordingAdded(name) if settings.send.journal and settings.send.recordings and wants_ticket(call, settings):
                    key = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]
                    planned.append(_noted(Kind.RECORDING, f"recording:{call.id}:{key}", {"index": call.recordings.index(name)}, with_recordings=True))
                case CalledBack(how, at, by, call_id) if settings.calls.called_back != "nothing":
                    signal_json = {"how": how, "at": at, "by": by, "call_id": call_id}
                    planned.append(_noted(Kind.CALLED_BACK, f"called_back:{call.id}", signal_json))
        return planned

    async def deliver(self, connection: Connection, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        return [await (_note(connection, delivery) if delivery.kind in NOTED else _tell(connection, delivery)) for delivery in batch]

    async def reconcile(self, connection: Connection, delivery: Delivery) -> Outcome:
        return Retry("repeating is safe: the other side knows it by its external id", after_s=0)

    async def check(self, connection: Connection) -> Sequence[Check]:
        return await check_connection(DeskClient(connection.settings, connection.http), connection.settings.role)

    async def responsible(self, connection: Connection, phone: str) -> Responsible | None:
        return await look_up(connection.desk, phone)


def _noted(kind: Kind, key: str, payload: dict[str, Any] | None = None, *, with_recordings: bool = False) -> Planned:
    return Planned(kind, key, payload or {}, Priority.JOURNAL, with_recordings=with_recordings)


def wants_ticket(call: Call, settings: TicketsSettings) -> bool:
    """Whether this ended call becomes a ticket or a message to one: the first rule that fits decides, else the switches. Pure."""
    answered = call.result is Result.ANSWERED
    for rule in settings.rules:
        if _fits(rule, call, answered):
            return rule.do == "ticket"
    if answered:
        return settings.calls.answered
    if call.result is Result.VOICEMAIL:
        return settings.calls.voicemail
    # Nobody can be called back without a number; a voicemail can still be heard.
    return settings.calls.missed and call.missed and call.customer_number is not None


def _fits(rule: Rule, call: Call, answered: bool) -> bool:
    """The desk knows tickets, not customers: a rule about known ones is passed by."""
    pairs = ((rule.line, call.line), (rule.direction, str(call.direction)), (rule.answered, answered))
    return rule.known is None and all(wanted is None or wanted == found for wanted, found in pairs)


# -- calls into the desk -------------------------------------------------------------------------------------------------


async def _note(connection: Connection, delivery: Delivery) -> Outcome:
    if connection.http.observe:
        connection.http.exchanges.append(Exchange({"desk": str(delivery.kind)}, {"observed": True}, 0.0))
        raise Observed
    if connection.desk is None:
        return Rejected("this desk has no store")
    note = note_of(delivery, connection.settings, connection.tenant)
    ticket = await connection.desk.take_call(delivery.call, note)
    return Delivered(f"ticket {ticket}" if ticket is not None else "the customer has no ticket of this call")


def note_of(delivery: Delivery, settings: TicketsSettings, tenant: Tenant) -> CallNote:
    """What is written about a call. Pure."""
    call, payload = delivery.call, delivery.payload
    language, zone = settings.language, tenant.timezone
    if delivery.kind is Kind.CALLED_BACK:
        signal = CalledBack(payload["how"], payload["at"], payload["by"], payload["call_id"])
        by = signal.by if signal.how != "done" else None
        wanted = TicketStatus(settings.calls.called_back)
        text = returned(call, signal, language, zone)
        return CallNote("called_back", subject_of(call, language), text, opens=False, agent=by, status=wanted, by_call=signal.call_id)
    if delivery.kind is Kind.RECORDING:
        return CallNote("recording", subject_of(call, language), recording_of(call, language, zone), opens=False, recordings=(payload["index"],))
    recordings = tuple(range(len(call.recordings))) if delivery.recordings else ()
    agent = next((one for one in (call.last_talked, call.answered_by) if one and not one.startswith("+")), None)
    return CallNote("ended", subject_of(call, language), summary_of(call, language, zone), agent=agent, recordings=recordings)


# -- the desk to the other side ------------------------------------------------------------------------------------------


async def _tell(connection: Connection, delivery: Delivery) -> Outcome:
    payload = delivery.payload
    body = {name: value for name, value in payload.items() if name not in _OURS}
    if connection.desk is not None and payload.get("attachments"):
        body["attachments"] = await connection.desk.handed_over(payload["attachments"])
    client = DeskClient(connection.settings, connection.http)
    response = await client.raw(_PATHS[delivery.kind], body, payload.get("sequence"))
    if not isinstance(response, Response):
        return response
    if delivery.kind is Kind.STATUS and connection.settings.role == "tma" and is_no_route(response):
        return Delivered("the other side takes no statuses")  # the contract asks it of tma only
    answer = interpret(response)
    if not isinstance(answer, Accepted):
        return answer
    if connection.desk is not None and answer.remote_id is not None and delivery.kind is not Kind.STATUS:
        await connection.desk.note_remote(payload["ticket_id"], payload.get("message_id"), answer.remote_id)
    return Delivered("it was there already" if answer.was_there and delivery.kind is not Kind.STATUS else "")
