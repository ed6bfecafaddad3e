"""After every login: which boot this is, what is gone, and which calls of a former process go on. Pure.

A boot is named by CoreStatus' startup time. That has seconds only, is written in the PBX's own zone and comes from its clock,
so it alone proves nothing: a channel that is still there (Uniqueid, name and age) shows that a differing name is a changed zone,
and one that is younger than the channel we know by its Uniqueid and name is another, although the boot's name is the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from daemon.calls.rules import given_up
from daemon.calls.snapshot import AGE_SLACK_S, ChannelNow, Known, Snapshot, is_younger
from daemon.model.call import Call, Leg
from daemon.model.signal import CallChange, Ended


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a snapshot says about the time before it. gone: channels that ended unseen; boot: the name to go on under."""

    rebooted: bool
    boot: str
    gone: frozenset[str]


@dataclass(frozen=True, slots=True)
class Left:
    """What a former process left of a PBX: its boot's name, when it was last heard, the calls without an end."""

    boot: str = ""
    seen_at: float | None = None
    calls: tuple[Call, ...] = ()


def judge(snapshot: Snapshot, former_boot: str, known: Mapping[str, Known], hung_up: Collection[str]) -> Verdict:
    """`known`: channels believed to be up. `hung_up`: those whose end stands in the events still to be applied."""
    channels = snapshot.channels
    if channels is None:  # it may not be asked: only a changed boot tells anything
        rebooted = bool(former_boot and snapshot.boot and former_boot != snapshot.boot)
        return Verdict(rebooted, snapshot.boot or former_boot, frozenset(known if rebooted else ()))
    is_named_same = not former_boot or not snapshot.boot or former_boot == snapshot.boot
    survivors = {uid for uid, before in known.items() if _survived(before, channels.get(uid), snapshot, is_named_same)}
    if not is_named_same and not survivors:
        return Verdict(True, snapshot.boot, frozenset(known))
    return Verdict(False, former_boot or snapshot.boot, frozenset(uid for uid in known.keys() - survivors if uid in channels or uid not in hung_up))


def _survived(before: Known, now: ChannelNow | None, snapshot: Snapshot, is_named_same: bool) -> bool:
    if now is None:
        return False
    if is_named_same:
        return before.name == now.name or not now.name or not is_younger(now, snapshot, before.created_at)
    return before.name == now.name and now.age_s is not None and not is_younger(now, snapshot, before.created_at)


def sort_out(left: Left, snapshot: Snapshot) -> tuple[bool, list[Call], list[CallChange]]:
    """Whether it is the boot that the former process saw, its calls that still live (under their present Linkedid), and the ends of the others."""
    is_named_same = not left.boot or not snapshot.boot or left.boot == snapshot.boot
    present = {call.id: _present_linkedid(call, snapshot, is_named_same) for call in left.calls}
    living = [replace(call, linkedid=linkedid) for call in left.calls if (linkedid := present[call.id])]
    gone = [call for call in left.calls if not present[call.id]]
    return is_named_same or bool(living), living, [_ended_unseen(call, left.seen_at, snapshot.at) for call in gone]


def _present_linkedid(call: Call, snapshot: Snapshot, is_named_same: bool) -> str | None:
    channels = (snapshot.channels or {}).values()
    legs = {leg.channel: leg for leg in call.legs if leg.ended_at is None}
    for channel in channels:
        leg = legs.get(channel.name)
        if leg is not None and _is_leg(channel, leg, snapshot):
            return channel.linkedid
    if is_named_same and any(channel.linkedid == call.linkedid for channel in channels):
        return call.linkedid
    return None


def _is_leg(channel: ChannelNow, leg: Leg, snapshot: Snapshot) -> bool:
    return channel.age_s is not None and abs(snapshot.made_at(channel) - leg.started_at) <= AGE_SLACK_S


def _ended_unseen(call: Call, seen_at: float | None, now: float) -> CallChange:
    """It ended some time after it was last heard of; the talk is counted to there."""
    begun = call.answered_at if call.answered_at is not None else call.started_at
    at = min(max(seen_at if seen_at is not None else now, begun), max(now, begun))
    ended = given_up(call, at)
    if call.answered_at is not None:
        ended = replace(ended, talk_seconds=max(call.talk_seconds, at - call.answered_at))
    return CallChange(ended, (Ended(call.rang or tuple(filter(None, [call.initiator]))),), now)


def astray(snapshot_channels: Mapping[str, ChannelNow], known: Iterable[str]) -> set[str]:
    """Channels that only one side knows. Twice in a row the same, and something was not seen."""
    return set(known) ^ set(snapshot_channels)
