"""After every login: what the PBX says of itself and its channels, read from the answers. Pure."""

from __future__ import annotations

from daemon.ami.session import Answer
from daemon.calls.rules import given_up
from daemon.model.call import Call
from daemon.model.signal import CallChange, Ended


def boot_of(status: Answer) -> str:
    """When this Asterisk started, from CoreStatus; empty when the right to ask is missing."""
    date, time = status.response.get("CoreStartupDate"), status.response.get("CoreStartupTime")
    return f"{date}T{time}" if status.ok and date and time else ""


def channels_of(shown: Answer) -> set[str] | None:
    """The Uniqueids that CoreShowChannels lists; None when it may not be asked."""
    return {uniqueid for item in shown.items if (uniqueid := item.get("Uniqueid"))} if shown.ok else None


def sort_out(left: list[Call], shown: Answer, at: float) -> tuple[list[Call], list[CallChange]]:
    """What a former process left open: calls that still live, and the ends of those that do not."""
    alive = {item.get("Linkedid") for item in shown.items}
    gone = [call for call in left if call.linkedid not in alive]
    ends = [CallChange(given_up(call, at), (Ended(call.rang or tuple(filter(None, [call.initiator]))),), at) for call in gone]
    return [call for call in left if call.linkedid in alive], ends
