"""What was seen of one PBX, and which channels belong together. Pure.

Channels are joined into groups by union over dials, bridges, Local pairs and Linkedids; the families of events
(on_*.py) add to the facts through here, one standing on the other since a compiled class has one base. Nothing here judges; rules.py does.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, Protocol

from daemon.ami.wire import unescape
from daemon.calls.graph import Bridge, Channel, Graph, Group, Recall, Talk
from daemon.calls.parties import has_customer
from daemon.calls.telling import Teller
from daemon.calls.view import PbxView
from daemon.model.call import CLICK_CHANNEL, Call
from daemon.model.signal import CallChange

TOMBSTONE_S = 60.0  # events of a hung-up channel are ignored this long
MAX_CHANNELS = 50_000  # a PBX that never hangs up must not fill the memory; the oldest call is closed as lost


class Event(Protocol):
    """An AMI event, from the wire or from a file. Header names are case-insensitive."""

    event: str

    def get(self, header: str, /) -> str | None:
        """The header's first value, or None."""


class Headers:
    """The headers in which an event speaks of one of its channels."""

    def __init__(self, prefix: str) -> None:
        self.uniqueid = f"{prefix}Uniqueid"
        self.linkedid = f"{prefix}Linkedid"
        self.channel = f"{prefix}Channel"
        self.state = f"{prefix}ChannelState"
        self.context = f"{prefix}Context"
        self.exten = f"{prefix}Exten"
        self.number = f"{prefix}CallerIDNum"
        self.name = f"{prefix}CallerIDName"


# Made once, since every event asks for some.
_PREFIXES = (
    "", "Dest", "LocalOne", "LocalTwo", "Transferer", "Transferee", "OrigTransferer", "SecondTransferer", "TransferTarget", "Target", "Parkee",
    "Retriever",
)  # fmt: skip
HEADERS: Final = {prefix: Headers(prefix) for prefix in _PREFIXES}


class BridgeHeaders:
    """The headers in which an event speaks of one of its bridges."""

    def __init__(self, prefix: str) -> None:
        self.uniqueid = f"{prefix}BridgeUniqueid"
        self.kind = f"{prefix}BridgeType"
        self.technology = f"{prefix}BridgeTechnology"


ITS_BRIDGE: Final = BridgeHeaders("")
MERGED_INTO: Final = BridgeHeaders("To")


class Facts:
    """The channels, bridges and groups of one PBX."""

    def __init__(self, view: PbxView) -> None:
        self.view = view
        self._graph = Graph()
        self._by_linkedid: dict[str, Group] = {}
        self._teller = Teller()
        self._closing: dict[Group, float] = {}
        self._next_close_at = math.inf  # no close is due before
        self._tombstones: dict[str, float] = {}
        self._tombstone_order: deque[str] = deque()
        self._dirty: dict[Group, bool] = {}  # to be judged; False: only who hears the customer may have changed
        self._adopted: dict[str, Call] = {}
        self._recalls: dict[Group, Recall] = {}
        self._groups_seen = 0
        self._order = 0
        self._out: list[CallChange] = []

    # -- channels ---------------------------------------------------------------------------------------------------------

    def _channel(self, event: Event, at: float, prefix: str = "") -> Channel | None:
        """The channel an event speaks of; one that was never announced is taken in as it is (the trace began later)."""
        headers = HEADERS[prefix]
        uniqueid = event.get(headers.uniqueid)
        if not uniqueid:
            return None
        channel = self._graph.channels.get(uniqueid)
        if channel is None:
            if uniqueid in self._tombstones or not event.get(headers.channel):
                return None
            return self._add(event, prefix, at, is_partial=True)
        linkedid = event.get(headers.linkedid)
        if linkedid and linkedid != channel.group.linkedid:
            other = self._by_linkedid.get(linkedid)
            if other is not None and other is not channel.group:
                self._join(channel.group, other, at)
        return channel

    def _add(self, event: Event, prefix: str, at: float, *, is_partial: bool) -> Channel:
        headers = HEADERS[prefix]
        uniqueid = event.get(headers.uniqueid) or ""
        linkedid = event.get(headers.linkedid) or uniqueid
        group = self._by_linkedid.get(linkedid)
        if group is None or group.closed_at is not None:
            group = self._by_linkedid[linkedid] = self._new_group(uniqueid, linkedid, at)
        name = event.get(headers.channel) or ""
        channel = Channel(
            uniqueid=uniqueid,
            name=name,
            linkedid=linkedid,
            context=event.get(headers.context) or "",
            exten=event.get(headers.exten) or "",
            number=known(event.get(headers.number)),
            caller_name=_name(event.get(headers.name)),
            created_at=at,
            group=group,
        )
        channel.was_born_called = linkedid != uniqueid and not is_partial
        if is_partial and not channel.is_plumbing:
            group.has_gap = True
        if linkedid.startswith(CLICK_CHANNEL):  # ours, even when its DialBegin without a caller was not seen
            group.originated, group.parties = True, None
        if not channel.is_plumbing:
            group.parties = None
        self._graph.channels[uniqueid] = channel
        group.channels[uniqueid] = channel
        self._state(channel, event.get(headers.state), at)
        if channel.is_started or is_partial:
            self._touch(group, at)
        else:
            self._see(group, at)
        if len(self._graph.channels) > MAX_CHANNELS:
            self._drop_oldest()
        return channel

    def _new_group(self, uniqueid: str, linkedid: str, at: float) -> Group:
        self._groups_seen += 1
        group = Group(uniqueid, linkedid, at, self._groups_seen)
        prior = self._adopted.pop(linkedid, None)
        if prior is not None:
            group.prior, group.started_at, group.has_gap = prior, prior.started_at, True
            group.recordings = list(prior.recordings)
            if prior.answered_at is not None:
                group.talks.append(Talk(prior.last_talked or "", prior.answered_at))
            self._teller.take_over(group, prior)
        return group

    def _state(self, channel: Channel, state: str | None, at: float) -> bool:
        """Whether it is news: a phone rings or is picked up, a channel begins to act."""
        is_news = False
        if state == "5":
            if channel.ringing_at is None:
                channel.ringing_at, is_news = at, True
        elif state == "6" and channel.up_at is None:
            channel.up_at, is_news = at, self._rings_first_now(channel)
        if state in ("4", "6") and not channel.is_started:
            channel.is_started = True
            is_news = is_news or channel.dialled is None
        return is_news and not channel.is_plumbing

    def _rings_first_now(self, channel: Channel) -> bool:
        """Whether being picked up is the first that is heard of a called phone: one that rang is merely off the hook now."""
        dial = channel.dialled
        if dial is None:
            return channel.was_born_called
        return (channel.ringing_at is None and dial.alerted_at is None) or channel.group.parties is None

    def _end_channel(self, channel: Channel, at: float, cause: int | None) -> None:
        channel.ended_at, channel.cause = at, cause
        if channel.dialled is not None and channel.dialled.ended_at is None:
            channel.dialled.ended_at = at
        self._leave(channel)
        del self._graph.channels[channel.uniqueid]
        self._bury(channel.uniqueid, at)
        if channel.is_plumbing:
            self._see(channel.group, at)
        else:
            self._touch(channel.group, at)
        self._consider_end(channel.group, at)
        if channel.group.closed_at is not None and not channel.group.live():
            channel.group.let_go()

    def _consider_end(self, group: Group, at: float) -> None:
        """A channel of the group is gone: it may be over."""
        raise NotImplementedError

    def _bury(self, uniqueid: str, at: float) -> None:
        self._tombstones[uniqueid] = at
        self._tombstone_order.append(uniqueid)
        while self._tombstone_order and self._tombstones[self._tombstone_order[0]] < at - TOMBSTONE_S:
            del self._tombstones[self._tombstone_order.popleft()]

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._graph.channels.values())).group
        oldest.is_lost = oldest.has_gap = True
        for channel in oldest.live():
            self._end_channel(channel, oldest.last_seen_at, None)

    def _leave(self, channel: Channel) -> None:
        bridge = self._graph.bridges.get(channel.bridge or "")
        channel.bridge = None
        if bridge is not None:
            channel.parted = self._order
            bridge.members.pop(channel.uniqueid, None)
            if not bridge.members:
                del self._graph.bridges[bridge.id]
            elif len(bridge.members) == 1 and (alone := self._graph.channels.get(next(iter(bridge.members)))) is not None:
                alone.parted = self._order

    def _bridge(self, event: Event, headers: BridgeHeaders) -> Bridge | None:
        bridge_id = event.get(headers.uniqueid)
        if not bridge_id:
            return None
        bridge = self._graph.bridges.get(bridge_id)
        if bridge is None:  # what kind it is does not change
            kind = "holding" if event.get(headers.technology) == "holding_bridge" else event.get(headers.kind)
            bridge = self._graph.bridges[bridge_id] = Bridge(bridge_id, kind or "basic")
        return bridge

    # -- groups -----------------------------------------------------------------------------------------------------------

    def _see(self, group: Group, at: float) -> None:
        """Something was heard of the group that nobody would notice in its record before something else comes."""
        if at > group.last_seen_at and group.closed_at is None:
            group.last_seen_at = at

    def _touch(self, group: Group, at: float) -> None:
        """The group's record may have changed: it is judged when the event is through."""
        if group.closed_at is None:
            if at > group.last_seen_at:
                group.last_seen_at = at
            self._dirty[group] = True

    def _touch_talk(self, group: Group, at: float) -> None:
        """Somebody left: it is news only when the customer hears somebody else now."""
        if group.closed_at is None:
            self._see(group, at)
            self._dirty.setdefault(group, group.parties is None)

    def _join(self, one: Group, other: Group, at: float) -> None:
        """Two groups turn out to be one conversation: the customer's goes on, else the older; the other's record is closed."""
        if one is other or one.closed_at is not None or other.closed_at is not None:
            return
        keep, give = (one, other) if one.order < other.order else (other, one)
        if has_customer(give, self.view):
            if keep.confers and give.confers and has_customer(keep, self.view):
                return  # two customers in one conference: two conversations
            if not has_customer(keep, self.view):
                keep, give = give, keep
        self._close_as_consult(give, at)
        keep.parties = give.parties = None
        self._dirty.pop(give, None)
        self._closing.pop(give, None)
        if (recall := self._recalls.pop(give, None)) is not None:
            self._recalls[keep] = recall
        for channel in give.channels.values():
            channel.group = keep
            channel.consulted |= give.consult and (channel.up_at is not None or channel.ended_at is not None)
        keep.channels |= give.channels
        keep.dials = sorted(keep.dials + give.dials, key=lambda dial: dial.order)
        keep.moves = sorted(keep.moves + give.moves, key=lambda move: move.order)
        keep.recordings += [name for name in give.recordings if name not in keep.recordings]
        keep.queue = keep.queue or give.queue
        if give.order < keep.order or not give.consult:
            keep.originated |= give.originated
        keep.originate_exten = keep.originate_exten or give.originate_exten
        keep.has_gap |= give.has_gap
        keep.confers |= give.confers
        keep.saw_hangup_request |= give.saw_hangup_request
        for linkedid in {give.linkedid, *[channel.linkedid for channel in give.channels.values()]}:
            if self._by_linkedid.get(linkedid) is give:
                self._by_linkedid[linkedid] = keep
        self._touch(keep, at)

    def _close_as_consult(self, group: Group, at: float) -> None:
        """The record of a group that is joined to another: told when anything was told of it."""
        raise NotImplementedError


def known(text: str | None) -> str | None:
    """A caller id's number, None when the PBX has none."""
    return None if text in (None, "", "<unknown>") else text


def _name(text: str | None) -> str | None:
    found = known(text)
    return unescape(found).strip() or None if found else None
