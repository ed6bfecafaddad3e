"""What happened to a call, as the rooms after the model hear it."""

from __future__ import annotations

from daemon.model.call import Call
from daemon.model.immutable import immutable


@immutable
class Ringing:
    """These extensions began to be alerted (for an outgoing call: its initiator, when the customer's side is dialled)."""

    extensions: tuple[str, ...]


@immutable
class StoppedRinging:
    """These extensions are no longer alerted although the call goes on: their popup closes."""

    extensions: tuple[str, ...]


@immutable
class Answered:
    """The customer talks with a person for the first time."""

    by: str | None


@immutable
class Ended:
    """The record is complete. `extensions`: those whose popup is still open."""

    extensions: tuple[str, ...]


@immutable
class RecordingAdded:
    """A recording whose name came after the call's end; it stands last in `recordings`."""

    name: str


@immutable
class CalledBack:
    """This missed call is closed: somebody talked with the customer since, or said that it is done. Told once, long after Ended.

    how: called_back, got_through or done. at: Unix seconds. by: an extension, or who said so. call_id: the call in which it happened.
    """

    how: str
    at: float
    by: str | None
    call_id: str | None


Signal = Ringing | StoppedRinging | Answered | Ended | RecordingAdded | CalledBack


@immutable
class CallChange:
    """A call's new record and what brought it about. `at`: Unix seconds of the PBX event's arrival.

    late: it was found afterwards (in CDR): for the journal, not for popups, tasks and leads.
    """

    call: Call
    signals: tuple[Signal, ...]
    at: float
    late: bool = False
