"""Which orders of one moment's events an Asterisk can really send, made from one that it did send. Pure.

Every channel is run by a thread of its own, and each thread publishes what it does as it does it; AMI has one queue. So what one thread
tells, and what is told under one bridge's lock, keeps its order; between threads it is chance (Asterisk 22 and 16, read in main/pickup.c,
bridge.c, bridge_channel.c, app_dial.c, res_parking). A move (transfer, pickup) is told last by a thread that is none of the moved
channels' own: they may have dialled on or hung up before. OriginateResponse does not pass the queue at all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from daemon.calls.correlator import Event
from daemon.calls.facts import HEADERS

MOMENT_S = 0.02  # events that are no further apart may be told in another order
OWN_THREAD = frozenset({"BlindTransfer", "AttendedTransfer", "Pickup", "OriginateResponse", "Rename"})


class Told:
    """An event with what decides its place among others."""

    def __init__(self, event: Event, at: float, makers: dict[str, str]) -> None:
        self.event, self.at = event, at
        named = [event.get(name) for headers in HEADERS.values() for name in (headers.uniqueid, headers.linkedid)]
        self.named = frozenset(filter(None, [*named, event.get("SwapUniqueid")]))
        self.threads = frozenset(filter(None, _threads(event, makers)))

    def precedes(self, other: Told) -> bool:
        """Whether this one, told first, is told first always."""
        one, two = self.event, other.event
        if self.threads & other.threads:
            return True
        if one.event == "Newchannel" and one.get("Uniqueid") in other.named:
            return True
        if one.event == "BridgeMerge" and two.event == "AttendedTransfer":
            return True  # by keys: one thread does both
        # Who dials hangs up what was dialled; a picker hangs up what is left of the phone that rang.
        left = {"Pickup": "TargetUniqueid"}.get(one.event, "DestUniqueid")
        return two.event == "Hangup" and (one.event == "Pickup" or one.event.startswith("Dial")) and one.get(left) == two.get("Uniqueid")


def _threads(event: Event, makers: dict[str, str]) -> list[str | None]:
    """The channels and bridges whose thread or lock this is told under."""
    channel, name = event.get("Uniqueid"), event.event
    if name in OWN_THREAD:
        return []
    if name == "DialBegin" and not channel:  # Page begins its dials one after the other, then each has a thread
        return [event.get("DestUniqueid"), event.get("DestLinkedid")]
    if name.startswith("Dial"):
        return [channel or event.get("DestUniqueid")]
    if name == "Newchannel":
        return [channel, makers.get(channel or "")]
    if name == "LocalBridge":
        return [event.get("LocalOneUniqueid"), event.get("LocalTwoUniqueid")]
    if name in ("ParkedCall", "UnParkedCall"):
        return [event.get("ParkeeUniqueid")]
    return [channel, event.get("BridgeUniqueid"), event.get("ToBridgeUniqueid"), event.get("FromBridgeUniqueid")]


def told(events: Sequence[tuple[Event, float]]) -> list[Told]:
    """A recording's events with their places. Who dials a channel has made it."""
    makers: dict[str, str] = {}
    for event, _ in events:
        if event.event == "DialBegin" and (caller := event.get("Uniqueid") or event.get("DestLinkedid")):
            makers.setdefault(event.get("DestUniqueid") or "", caller)
    return [Told(event, at, makers) for event, at in events]


def as_late_and_as_early(recording: list[Told]) -> Iterator[list[Told]]:
    """Every event put off for a moment with all that must follow it, and brought forward with all that must precede it; each order once."""
    seen = {tuple(map(id, recording))}
    for n, one in enumerate(recording):
        end = next((m for m in range(n, len(recording)) if recording[m].at - one.at > MOMENT_S), len(recording))
        held, others = [one], []
        for other in recording[n + 1 : end]:
            (held if any(before.precedes(other) for before in held) else others).append(other)
        late = [*recording[:n], *others, *held, *recording[end:]]
        start = next((m for m in range(n, -1, -1) if one.at - recording[m].at > MOMENT_S), -1) + 1
        held, others = [one], []
        for other in reversed(recording[start:n]):
            (held if any(other.precedes(after) for after in held) else others).append(other)
        early = [*recording[:start], *reversed(held), *reversed(others), *recording[n + 1 :]]
        for order in (late, early):
            if (key := tuple(map(id, order))) not in seen:
                seen.add(key)
                yield order


def shuffled(recording: list[Told], chance: random.Random) -> list[Told]:
    """Neighbours of one moment changed places again and again, wherever they may."""
    order = list(recording)
    near = [n for n in range(len(order) - 1) if order[n + 1].at - order[n].at <= MOMENT_S]
    for _ in range(3 * len(order) if near else 0):
        n = chance.choice(near)
        if not order[n].precedes(order[n + 1]):
            order[n], order[n + 1] = order[n + 1], order[n]
    return order
