"""The desk at work: what comes in, what is written here, what telephony notes; each in one transaction with what the other side is told.

Whatever adds to a ticket holds the ticket's row first, so that the lane's order is the order of the ticket's clock.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from daemon.delivery.outbox import tell_of
from daemon.errors import NotFound
from daemon.live import Live
from daemon.model.call import Call
from daemon.model.delivery import Kind, Planned, Priority, Record
from daemon.model.ticket import Attachment, CallNote, NewMessage, NewStatus, NewTicket, Side, TicketStatus
from daemon.store.pool import Connection, Database
from daemon.store.tickets import Row, TicketRepository, message_json, message_key, status_key, ticket_json
from daemon.tickets.rules import after_call, is_later, place

INTEGRATION = "tickets"
SAME_LEGACY_S = 10.0  # a legacy message has no id: the same text again within this time is the same message


class TicketDesk:
    """All desks. `role` gives the part that vochid plays for an enterprise and its project, None where there is no desk; `wake` the dispatcher,
    `fetch` whoever fetches attachments."""

    def __init__(
        self, db: Database, role: Callable[[str], tuple[Side, str] | None], live: Live, wake: Callable[[str, str], None], fetch: Callable[[], None]
    ) -> None:
        self._db = db
        self._role = role
        self._live = live
        self._wake = wake
        self._fetch = fetch
        self.tickets = TicketRepository(db)

    def role(self, enterprise: str) -> Side:
        """The part that vochid plays. Raises NotFound where there is no desk."""
        return self._desk(enterprise)[0]

    # -- from the other side ---------------------------------------------------------------------------------------------------

    async def receive_ticket(self, enterprise: str, new: NewTicket) -> tuple[Row, bool]:
        """A ticket that the other side opened, and whether it is new."""
        sender = self.role(enterprise).other
        async with self._db.tenant(enterprise) as connection:
            ticket = await self.tickets.insert(
                connection, enterprise,
                {
                    "external_id": new.external_ticket_id, "subject": new.subject, "project": new.project, "external_url": new.external_url, "shared": True,
                    "status_by": sender,
                },
            )  # fmt: skip
            if ticket is None:
                return ticket_json(await self.tickets.known(connection, enterprise, "external_id", new.external_ticket_id)), False
            message = {"sender": sender, "body": new.message, "external_message_id": None, "sequence": 1}
            await self._add(connection, enterprise, ticket, message, new.attachments)
            ticket = await self.tickets.known(connection, enterprise, "external_id", new.external_ticket_id)
        self._done(enterprise, ticket["id"], fetch=bool(new.attachments))
        return ticket_json(ticket), True

    async def receive_message(self, enterprise: str, new: NewMessage) -> tuple[Row, bool]:
        """A message of the other side, and whether it is new. Raises NotFound for an unknown ticket."""
        async with self._db.tenant(enterprise) as connection:
            ticket = await self.tickets.lock(connection, enterprise, external_id=new.external_ticket_id)
            known = await self._known(connection, enterprise, ticket["id"], new)
            if known is not None:
                return message_json(known, new.external_ticket_id), False
            sequence, _ = place(new.sequence, ticket["sequence"])
            message = {"sender": new.sender, "body": new.message, "external_message_id": new.external_message_id, "sequence": sequence}
            row = await self._add(connection, enterprise, ticket, message, new.attachments)
        self._done(enterprise, ticket["id"], row["id"], fetch=bool(new.attachments))
        return message_json(row, new.external_ticket_id), True

    async def receive_status(self, enterprise: str, new: NewStatus) -> Row:
        """The ticket after the other side set its status: unchanged when that was late. Raises NotFound for an unknown ticket."""
        by = self.role(enterprise).other
        async with self._db.tenant(enterprise) as connection:
            ticket = await self.tickets.lock(connection, enterprise, external_id=new.external_ticket_id)
            sequence, _ = place(new.sequence, ticket["sequence"])
            if new.sequence is None and new.status == ticket["status"]:
                return ticket_json(ticket)
            if not is_later(sequence, by, ticket["status_sequence"], Side(ticket["status_by"])):
                return ticket_json(ticket)
            ticket = await self.tickets.set_status(connection, enterprise, ticket, new.status, sequence, by)
        self._done(enterprise, ticket["id"])
        return ticket_json(ticket)

    # -- written here ----------------------------------------------------------------------------------------------------------

    async def open(
        self, enterprise: str, subject: str, message: str, *, attachments: Sequence[Attachment] = (), phone: str | None = None, agent: str | None = None,
        external_url: str | None = None, author: str | None = None, idempotency_key: str | None = None,
    ) -> tuple[Row, bool]:  # fmt: skip
        """A ticket opened here, with its conversation, and whether it is new. As tma it is told to the crm; as crm it stays here, for tma takes none."""
        async with self._db.tenant(enterprise) as connection:
            found = await self._open(connection, enterprise, subject, phone=phone, agent=agent, external_url=external_url, idempotency_key=idempotency_key)
            if found is None:
                known = await self.tickets.known(connection, enterprise, "idempotency_key", idempotency_key)
            else:
                await self._first(connection, enterprise, found, {"body": message, "author": author}, attachments)
        ticket_id = known["id"] if found is None else found["id"]
        if found is not None:
            self._done(enterprise, ticket_id, told=found["shared"], fetch=bool(attachments))
        return await self.tickets.get(enterprise, ticket_id), found is not None

    async def reply(
        self, enterprise: str, ticket_id: int, message: str, *, attachments: Sequence[Attachment] = (), author: str | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[Row, bool]:  # fmt: skip
        """A message written here, and whether it is new. Raises NotFound."""
        async with self._db.tenant(enterprise) as connection:
            ticket = await self.tickets.lock(connection, enterprise, ticket_id=ticket_id)
            external = str(ticket["external_id"])
            if idempotency_key is not None:
                known = await self.tickets.find_message(connection, enterprise, ticket_id, idempotency_key=idempotency_key)
                if known is not None:
                    return message_json(known, external), False
            row = await self._say(connection, enterprise, ticket, {"body": message, "author": author, "idempotency_key": idempotency_key}, attachments)
        self._done(enterprise, ticket_id, row["id"], told=ticket["shared"], fetch=bool(attachments))
        return message_json(row, external), True

    async def set_status(self, enterprise: str, ticket_id: int, status: TicketStatus, agent: str | None = None) -> Row:
        """A status set here, and who looks after the ticket from now on where `agent` says so ("" for nobody). Raises NotFound."""
        async with self._db.tenant(enterprise) as connection:
            ticket = await self.tickets.lock(connection, enterprise, ticket_id=ticket_id)
            if agent is not None:
                await self.tickets.set_agent(connection, enterprise, ticket_id, agent or None)
            if status != ticket["status"]:
                await self._move(connection, enterprise, ticket, status)
        self._done(enterprise, ticket_id, told=ticket["shared"])
        return await self.tickets.get(enterprise, ticket_id)

    # -- telephony -------------------------------------------------------------------------------------------------------------

    async def take_call(self, enterprise: str, call: Call, note: CallNote) -> int | None:
        """Writes a note about a call, once; gives the ticket, None when the call has none and opens none."""
        recordings = [{"name": call.recordings[n].rpartition("/")[2], "call": call.id, "index": n} for n in note.recordings if n < len(call.recordings)]
        key = f"recording {note.recordings} of {call.id}" if note.about == "recording" else f"by {note.by_call}" if note.by_call else None
        message = {"body": note.text, "call_id": call.id, "about": note.about, "attachments": recordings, "idempotency_key": key}
        async with self._db.tenant(enterprise) as connection:
            ticket, is_written = await self._ticket_of(connection, enterprise, call, note, key)
            if is_written or (ticket is None and not note.opens):
                return int(ticket["id"]) if ticket is not None else None
            if ticket is None:
                ticket = await self._open(connection, enterprise, note.subject, phone=call.customer_number, agent=note.agent)
                await self._first(connection, enterprise, ticket, message)
            else:
                await self._say(connection, enterprise, ticket, message)
                if note.agent is not None:
                    await self.tickets.set_agent(connection, enterprise, ticket["id"], note.agent)
                await self._moved_on(connection, enterprise, ticket["id"], note)
            assert ticket is not None
        self._done(enterprise, ticket["id"], told=ticket["shared"])
        return int(ticket["id"])

    async def _ticket_of(self, connection: Connection, enterprise: str, call: Call, note: CallNote, key: str | None) -> tuple[Any | None, bool]:
        """The held row of the ticket that a note belongs to, and whether it is written there already. Nobody else opens or finds one for this
        customer meanwhile."""
        open_one = await self.tickets.open_for(connection, enterprise, call.customer_number or f"call {call.id}")
        written = await self.tickets.find_note(connection, enterprise, call_id=call.id, about=note.about, key=key if note.about == "recording" else None)
        if written is not None:
            return await self.tickets.lock(connection, enterprise, ticket_id=written["ticket_id"]), True
        ended = await self.tickets.find_note(connection, enterprise, call_id=call.id, about="ended")
        # The call that returned a missed one belongs to its ticket, although that was closed with it.
        ended = ended or await self.tickets.find_note(connection, enterprise, about="called_back", key=f"by {call.id}")
        if ended is None:
            return open_one, False
        ticket = await self.tickets.lock(connection, enterprise, ticket_id=ended["ticket_id"])
        # Several missed calls of one ticket are returned by one call: it is said once.
        said = note.by_call is not None and await self.tickets.find_message(connection, enterprise, ticket["id"], idempotency_key=key) is not None
        return ticket, said

    async def _moved_on(self, connection: Connection, enterprise: str, ticket_id: int, note: CallNote) -> None:
        ticket = await self.tickets.lock(connection, enterprise, ticket_id=ticket_id)
        only_calls = await self.tickets.has_only_calls(connection, enterprise, ticket_id)
        status = after_call(note.status, TicketStatus(ticket["status"]), only_calls)
        if status != ticket["status"]:
            await self._move(connection, enterprise, ticket, status)

    # -- parts of a transaction --------------------------------------------------------------------------------------------------

    def _desk(self, enterprise: str) -> tuple[Side, str]:
        desk = self._role(enterprise)
        if desk is None:
            raise NotFound(f"enterprise {enterprise} has no ticket desk: set up the integration tickets")
        return desk

    async def _known(self, connection: Connection, enterprise: str, ticket_id: int, new: NewMessage) -> Any | None:
        if new.external_message_id is not None:
            named = {"sender": str(new.sender), "external_message_id": new.external_message_id}
            return await self.tickets.find_message(connection, enterprise, ticket_id, **named)
        last = await self.tickets.find_message(connection, enterprise, ticket_id, sender=str(new.sender), body=new.message)
        is_same = last is not None and last["external_message_id"] is None and last["attachments"] == [_shown(item) for item in new.attachments]
        age = await connection.fetchval("select extract(epoch from now() - $1)::float8", last["created_at"]) if last is not None and is_same else None
        return last if age is not None and age < SAME_LEGACY_S else None

    async def _open(self, connection: Connection, enterprise: str, subject: str, **more: Any) -> Any | None:
        """A new ticket's row, not told of yet; None when its idempotency_key is known."""
        role, project = self._desk(enterprise)
        named = {"customer_phone": more.get("phone"), **{key: more.get(key) for key in ("agent", "external_url", "idempotency_key")}}
        return await self.tickets.insert(
            connection, enterprise,
            {"external_id": str(uuid.uuid4()), "subject": subject, "project": project, "shared": role is Side.TMA, "status_by": role, **named},
        )  # fmt: skip

    async def _first(self, connection: Connection, enterprise: str, ticket: Any, message: Row, attachments: Sequence[Attachment] = ()) -> None:
        """The message that a ticket opened here begins with; it is told with the ticket."""
        role = self.role(enterprise)
        row = await self._add(connection, enterprise, ticket, {**message, "sender": role, "external_message_id": None, "sequence": 1}, attachments)
        if ticket["shared"]:
            payload = {
                "external_ticket_id": str(ticket["external_id"]), "subject": ticket["subject"], "message": row["body"],
                "attachments": _told(row, attachments), "external_url": ticket["external_url"], "project": ticket["project"], "ticket_id": ticket["id"],
            }  # fmt: skip
            await self._tell(connection, enterprise, ticket["id"], Kind.TICKET, f"ticket:{ticket['id']}", payload)

    async def _say(self, connection: Connection, enterprise: str, ticket: Any, message: Row, attachments: Sequence[Attachment] = ()) -> Any:
        """One more message of ours, told where the other side knows the ticket."""
        role = self.role(enterprise)
        external = str(uuid.uuid4()) if role is Side.TMA else "own"
        full = {**message, "sender": role, "external_message_id": external, "sequence": ticket["sequence"] + 1}
        row = await self._add(connection, enterprise, ticket, full, attachments)
        if ticket["shared"]:
            shown = message_json(row, str(ticket["external_id"]))
            payload = {
                **{key: shown[key] for key in ("external_ticket_id", "message", "sender", "external_message_id", "sequence", "ticket_id")},
                "attachments": _told(row, attachments), "message_id": row["id"],
            }  # fmt: skip
            await self._tell(connection, enterprise, ticket["id"], Kind.MESSAGE, message_key(ticket["id"], row["id"]), payload)
        return row

    async def _move(self, connection: Connection, enterprise: str, ticket: Any, status: TicketStatus) -> None:
        sequence = ticket["sequence"] + 1
        await self.tickets.set_status(connection, enterprise, ticket, status, sequence, self.role(enterprise))
        if ticket["shared"]:
            payload = {"external_ticket_id": str(ticket["external_id"]), "status": str(status), "sequence": sequence, "ticket_id": ticket["id"]}
            await self._tell(connection, enterprise, ticket["id"], Kind.STATUS, status_key(ticket["id"], sequence), payload)

    async def _add(self, connection: Connection, enterprise: str, ticket: Any, message: Row, attachments: Sequence[Attachment]) -> Any:
        items = [_shown(item) for item in attachments] + list(message.get("attachments", ()))
        row = await self.tickets.add_message(connection, enterprise, ticket, {**message, "attachments": items})
        await self.tickets.add_attachments(connection, enterprise, row["id"], attachments)
        return row

    async def _tell(self, connection: Connection, enterprise: str, ticket_id: int, kind: Kind, key: str, payload: Row) -> None:
        await tell_of(connection, enterprise, INTEGRATION, Record("ticket", str(ticket_id)), [Planned(kind, key, payload, Priority.JOURNAL)])

    def _done(self, enterprise: str, ticket_id: int, message_id: int | None = None, *, told: bool = False, fetch: bool = False) -> None:
        """After the commit: whoever waits for it is woken."""
        if told:
            self._wake(enterprise, INTEGRATION)
        if fetch:
            self._fetch()
        self._live.tell(enterprise, "ticket", {"id": ticket_id, "message": message_id})


def _shown(item: Attachment) -> Row:
    """An attachment as it is kept with its message."""
    return {"name": item.name, "url": item.url or None, "mime": item.mime, "size": item.size}


def _told(row: Any, attachments: Sequence[Attachment]) -> list[Row]:
    """A message's attachments in what the other side is told: where each is found once it is handed over."""
    copies = len(attachments)
    return [{**item, "message": row["id"], "position": n} if n < copies else dict(item) for n, item in enumerate(row["attachments"])]
