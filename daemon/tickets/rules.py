"""Which of two statuses is the later one, and what a returned call does to its ticket. Pure."""

from __future__ import annotations

from daemon.model.ticket import Side, TicketStatus


def is_later(sequence: int, by: Side, known_sequence: int, known_by: Side) -> bool:
    """Whether a status set at `sequence` by one side supersedes the one that is known.

    A ticket's clock counts on with every message and status, on both sides (Lamport's rule), so what was set by somebody who had seen the
    known status is later. When both sides set one without having seen the other's, the crm's holds: both come to the same answer.
    """
    return (sequence, by is Side.CRM) > (known_sequence, known_by is Side.CRM)


def place(sent: int | None, clock: int) -> tuple[int, int]:
    """Where a message or status that comes in stands on the ticket's clock, and the clock afterwards. Without a sequence it is the newest."""
    sequence = clock + 1 if sent is None else sent
    return sequence, max(clock, sequence)


def after_call(wanted: TicketStatus | None, status: TicketStatus, only_calls: bool) -> TicketStatus:
    """The status of a ticket whose missed call was returned. `only_calls`: nobody has written in it, so that it may be closed with the call;
    a conversation is only moved on."""
    if wanted is None or status is TicketStatus.CLOSED:
        return status
    if wanted is TicketStatus.CLOSED and not only_calls:
        wanted = TicketStatus.IN_PROGRESS
    return wanted
