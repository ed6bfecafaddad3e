"""What happened to a call, as the rooms after the model hear it."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.model.call import Call


@dataclass(frozen=True, slots=True)
class Ringing:
    """These extensions began to be alerted (for an outgoing call: its initiator, when the customer's side is dialled)."""

    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoppedRinging:
    """These extensions are no longer alerted although the call goes on: their popup closes."""

    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """The customer talks with a person for the first time."""

    by: str | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The record is complete. `extensions`: those whose popup is still open."""

    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordingAdded:
    """A recording whose name came after the call's end; it stands last in `recordings`."""

    name: str


Signal = Ringing | StoppedRinging | Answered | Ended | RecordingAdded


@dataclass(frozen=True, slots=True)
class CallChange:
    """A call's new record and what brought it about. `at`: Unix seconds of the PBX event's arrival."""

    call: Call
    signals: tuple[Signal, ...]
    at: float
