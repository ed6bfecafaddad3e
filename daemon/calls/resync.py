"""After every login: what the PBX says of itself and its channels, read from the answers. Pure."""

from __future__ import annotations

from daemon.ami.session import Answer


def boot_of(status: Answer) -> str:
    """When this Asterisk started, from CoreStatus; empty when the right to ask is missing."""
    date, time = status.response.get("CoreStartupDate"), status.response.get("CoreStartupTime")
    return f"{date}T{time}" if status.ok and date and time else ""


def channels_of(shown: Answer) -> set[str] | None:
    """The Uniqueids that CoreShowChannels lists; None when it may not be asked."""
    if not shown.ok:
        return None
    return {uniqueid for item in shown.items if (uniqueid := item.get("Uniqueid"))}
