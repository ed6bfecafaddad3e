"""What a PBX shows of itself when it is asked, and as events that the model understands. Pure.

Facts: Asterisk main/manager.c (CoreStatus, CoreShowChannels: class system or reporting) and main/manager_bridges.c (BridgeList: any
logged-in user), seen on 16.28 and 22.10. There is no dial relation in a snapshot: who called whom is read from the applications
(`Dial`, `Queue`; `AppDial`, `AppQueue` for who is called, `AppDial2` for the first leg of an Originate), from Linkedid and bridges.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from daemon.ami.session import Answer

CALLING = frozenset({"Dial", "Queue", "FollowMe", "RetryDial", "Page"})
CALLED = frozenset({"AppDial", "AppQueue"})
ORIGINATED = "AppDial2"
PARKED = frozenset({"Park", "BridgeWait", "ParkedCall"})
INTERNAL_TECHNOLOGIES = ("Message/", "CBAnn/", "CBRec/", "Announcer/", "Recorder/", "Surrogate/", "BridgeChan/")
RINGING, UP = "5", "6"
AGE_SLACK_S = 2.5  # ages come in whole seconds, cut


class Known(Protocol):
    """What the model knows of a channel (graph.Channel)."""

    name: str
    created_at: float
    up_at: float | None
    ringing_at: float | None
    bridge: str | None


class Heard(Protocol):
    """Any event."""

    def get(self, header: str, /) -> str | None: ...


@dataclass(frozen=True, slots=True)
class ChannelNow:
    """One channel as CoreShowChannels shows it. `age_s`: whole seconds since it was made; None when not told."""

    uniqueid: str
    name: str = ""
    linkedid: str = ""
    state: str = ""
    context: str = ""
    exten: str = ""
    number: str = ""
    caller_name: str = ""
    application: str = ""
    data: str = ""
    bridge: str = ""
    age_s: float | None = None


@dataclass(frozen=True, slots=True)
class BridgeNow:
    """One bridge as BridgeList shows it."""

    kind: str
    technology: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A PBX at Unix time `at`. boot: when it says it started; channels None: it may not be asked."""

    at: float
    boot: str = ""
    channels: Mapping[str, ChannelNow] | None = None
    bridges: Mapping[str, BridgeNow] = field(default_factory=dict)

    def made_at(self, channel: ChannelNow) -> float:
        """When the channel was made, by our clock, to the second."""
        return self.at - (channel.age_s or 0.0)


class SnapshotEvent:
    """An event that nobody sent; headers by name, case-insensitive."""

    __slots__ = ("_headers", "event")

    def __init__(self, event: str, headers: Mapping[str, str]) -> None:
        self.event = event
        self._headers = {name.lower(): value for name, value in headers.items()}

    def get(self, header: str, /) -> str | None:
        """The header's value, or None."""
        return self._headers.get(header.lower())


Timed = tuple[SnapshotEvent, float]


def read_snapshot(status: Answer, shown: Answer, bridges: Answer | None, at: float) -> Snapshot:
    """The answers to CoreStatus, CoreShowChannels and BridgeList as one picture."""
    date, time = status.response.get("CoreStartupDate"), status.response.get("CoreStartupTime")
    return Snapshot(at, f"{date}T{time}" if status.ok and date and time else "", read_channels(shown), _read_bridges(bridges))


def read_channels(shown: Answer) -> dict[str, ChannelNow] | None:
    """The channels by Uniqueid; None when they may not be asked for."""
    if not shown.ok:
        return None
    found = {}
    for item in shown.items:
        uniqueid, name = item.get("Uniqueid"), item.get("Channel") or ""
        if not uniqueid or name.startswith(INTERNAL_TECHNOLOGIES):
            continue
        found[uniqueid] = ChannelNow(
            uniqueid, name, item.get("Linkedid") or uniqueid, item.get("ChannelState") or "", item.get("Context") or "", item.get("Exten") or "",
            item.get("CallerIDNum") or "", item.get("CallerIDName") or "", item.get("Application") or "", item.get("ApplicationData") or "",
            item.get("BridgeId") or "", _seconds(item.get("Duration")),
        )  # fmt: skip
    return found


def _read_bridges(answer: Answer | None) -> dict[str, BridgeNow]:
    if answer is None or not answer.ok:
        return {}
    rows = ((item.get("BridgeUniqueid"), BridgeNow(item.get("BridgeType") or "", item.get("BridgeTechnology") or "")) for item in answer.items)
    return {bridge_id: bridge for bridge_id, bridge in rows if bridge_id}


def _seconds(text: str | None) -> float | None:
    """`01:02:03` -> 3723."""
    parts = (text or "").split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        return None
    return float(int(parts[0]) * 3600 + int(parts[1]) * 60 + int(parts[2]))


def is_younger(channel: ChannelNow, snapshot: Snapshot, than: float) -> bool:
    """Whether this channel was certainly made after Unix time `than`: then a known one of that Uniqueid is another."""
    return channel.age_s is not None and snapshot.made_at(channel) > than + AGE_SLACK_S


def is_heard_of(event: Heard, familiar: Collection[str]) -> bool:
    """Whether a buffered event speaks only of what is known, shown, or began within the buffer.

    What does not was gone before the snapshot and never known: its last words would make a call of their own; CDR tells of it.
    """
    names = [name for header in ("Uniqueid", "DestUniqueid") if (name := event.get(header))]
    return all(name in familiar for name in names)


def events_of(snapshot: Snapshot, known: Mapping[str, Known], born: Collection[str]) -> list[Timed]:
    """What must have happened for the PBX to look like this, given what is known of it.

    `born`: channels whose beginning stands in the events that are still to be applied; those events tell their story better.
    """
    channels = [channel for channel in (snapshot.channels or {}).values() if channel.uniqueid not in born]
    channels.sort(key=lambda channel: (snapshot.made_at(channel), channel.uniqueid))
    fresh = [channel for channel in channels if channel.uniqueid not in known]
    story = [(_event("Newstate", channel, state="0" if channel.application in CALLED else "4"), snapshot.made_at(channel)) for channel in fresh]
    story += _pairs(fresh, snapshot)
    for channel in fresh:
        story += _dial(channel, channels, snapshot)
    for channel in channels:
        story += _as_it_stands(channel, known.get(channel.uniqueid), snapshot)
    return story


def _event(name: str, channel: ChannelNow, prefix: str = "", *, state: str | None = None, **more: str) -> SnapshotEvent:
    return SnapshotEvent(name, {**_headers(channel, prefix, state), **more})


def _headers(channel: ChannelNow, prefix: str = "", state: str | None = None) -> dict[str, str]:
    values = {
        "Channel": channel.name, "Uniqueid": channel.uniqueid, "Linkedid": channel.linkedid, "Context": channel.context, "Exten": channel.exten,
        "CallerIDNum": channel.number, "CallerIDName": channel.caller_name, "ChannelState": channel.state if state is None else state,
    }  # fmt: skip
    return {prefix + key: value for key, value in values.items()}


def _pairs(fresh: list[ChannelNow], snapshot: Snapshot) -> list[Timed]:
    """The halves of Local channels belong together by their name: `…;1` and `…;2`."""
    by_name = {channel.name: channel for channel in fresh if channel.name.startswith("Local/")}
    story = []
    for name, one in by_name.items():
        two = by_name.get(name[:-1] + "2") if name.endswith(";1") else None
        if two is not None:
            story.append((SnapshotEvent("LocalBridge", {**_headers(one, "LocalOne"), **_headers(two, "LocalTwo")}), snapshot.made_at(one)))
    return story


def _dial(channel: ChannelNow, channels: list[ChannelNow], snapshot: Snapshot) -> list[Timed]:
    """How a called channel came to be called."""
    at = snapshot.made_at(channel)
    if channel.application == ORIGINATED:
        return [(SnapshotEvent("DialBegin", _headers(channel, "Dest")), at)]
    if channel.application not in CALLED:
        return []
    callers = [c for c in channels if c.application in CALLING and c.linkedid == channel.linkedid and c.uniqueid != channel.uniqueid]
    callers.sort(key=lambda caller: (_target(caller, channel) == "", caller.bridge != channel.bridge or not channel.bridge))
    if callers:
        caller = callers[0]
        return [(SnapshotEvent("DialBegin", {**_headers(caller), **_headers(channel, "Dest"), "DialString": _target(caller, channel)}), at)]
    # Whoever called it has left, as after a transfer: that it was called is still to be known.
    return [(SnapshotEvent("DialEnd", {**_headers(channel, "Dest"), "DialStatus": "ANSWER" if channel.state == UP else ""}), at)]


def _target(caller: ChannelNow, channel: ChannelNow) -> str:
    """What of the caller's `PJSIP/150&PJSIP/151,4` reached this channel, without its technology; empty when nothing fits."""
    endpoint = channel.name.rpartition("-")[0]
    account = endpoint.partition("/")[2]
    for part in caller.data.partition(",")[0].split("&"):
        technology, _, rest = part.partition("/")
        if endpoint.startswith(f"{technology}/") and account and account in rest:
            return rest
    return ""


def _as_it_stands(channel: ChannelNow, before: Known | None, snapshot: Snapshot) -> list[Timed]:
    """Its state, its application and its bridge, as far as they are news."""
    at = snapshot.at
    story: list[Timed] = []
    if before is not None and before.name != channel.name and channel.name:
        story.append((_event("Rename", channel, Newname=channel.name), at))
    story.append((_event("Newstate", channel), at))
    if channel.application in CALLED and channel.state == UP and (before is None or before.up_at is None):
        story.append((SnapshotEvent("DialEnd", {**_headers(channel, "Dest"), "DialStatus": "ANSWER"}), at))
    if before is None and channel.application == "Queue":
        story.append((_event("QueueCallerJoin", channel, Queue=channel.data.partition(",")[0]), at))
    if channel.application == "VoiceMail":
        story.append((_event("Newexten", channel, Application="VoiceMail"), at))
    was_in = before.bridge if before is not None else None
    if channel.bridge and channel.bridge != was_in:
        story.append((_event("BridgeEnter", channel, **_bridge(channel, snapshot)), at))
    elif was_in and not channel.bridge:
        story.append((_event("BridgeLeave", channel, BridgeUniqueid=was_in), at))
    return story


def _bridge(channel: ChannelNow, snapshot: Snapshot) -> dict[str, str]:
    found = snapshot.bridges.get(channel.bridge)
    if found is None:  # BridgeList did not know it (any more): who is parked says so by the application
        found = BridgeNow("", "holding_bridge" if channel.application in PARKED else "simple_bridge")
    return {"BridgeUniqueid": channel.bridge, "BridgeType": found.kind, "BridgeTechnology": found.technology}
