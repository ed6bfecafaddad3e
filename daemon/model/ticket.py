"""Support tickets: what the two sides of a desk say to each other, and who they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

MAX_SEQUENCE = 2**53


class Side(StrEnum):
    """The two sides of a desk: the mini app with the customer, and the CRM with the agents."""

    TMA = "tma"
    CRM = "crm"

    @property
    def other(self) -> Side:
        return Side.CRM if self is Side.TMA else Side.TMA


class TicketStatus(StrEnum):
    """How a ticket stands."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file beside a message, by its address. `size`: bytes as the sender says, None when it does not. `data`: the file itself, of one that
    was handed in here and has no address."""

    name: str
    url: str
    mime: str
    size: int | None = None
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NewTicket:
    """A ticket with its first message. `external_ticket_id` is a UUID in canonical form."""

    external_ticket_id: str
    subject: str
    message: str
    attachments: tuple[Attachment, ...] = ()
    external_url: str | None = None
    project: str = "tma"


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to a ticket. `external_message_id`: tma's is a UUID, crm's a whole number, both as text; None only from a legacy
    sender, who has none. `sequence`: its place on the ticket's clock, where the sender keeps one."""

    external_ticket_id: str
    message: str
    sender: Side
    external_message_id: str | None
    attachments: tuple[Attachment, ...] = ()
    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class NewStatus:
    """A ticket's new status. `sequence` as in NewMessage: with it a late status is told from a new one."""

    external_ticket_id: str
    status: TicketStatus
    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class CallNote:
    """What the desk is to write about a call. `about`: ended, recording or called_back; once for each of them (and recording).

    `agent`: the extension that has talked. `opens`: a ticket is opened when the customer has no open one. `status`: what becomes of the
    ticket that the call opened; None leaves it. `recordings`: which of the call's recordings to attach, by index. `by_call`: the call that
    returned this one.
    """

    about: str
    subject: str
    text: str
    opens: bool = True
    agent: str | None = None
    status: TicketStatus | None = None
    recordings: tuple[int, ...] = ()
    by_call: str | None = None
