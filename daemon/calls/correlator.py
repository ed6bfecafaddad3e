"""Events in, changed calls out. Pure: no clock, no I/O; `at` comes with every event.

One instance per PBX. It keeps the facts (graph.py) and joins channels into groups by union over dials, bridges, Local
pairs and Linkedids; what they mean is judged by rules.py, what is told of them by telling.py. No event makes it raise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from daemon.ami.wire import unescape
from daemon.calls.graph import Bridge, Channel, Dial, Graph, Group, Talk
from daemon.calls.rules import Judgement
from daemon.calls.telling import Teller
from daemon.calls.view import PbxView
from daemon.model.call import CLICK_CHANNEL, Call, Direction
from daemon.model.signal import CallChange, Ended

GRACE_S = 1.0  # from the customer's hangup to the end of the record: what the other legs still have to say
TOMBSTONE_S = 60.0  # events of a hung-up channel are ignored this long
MAX_CHANNELS = 50_000  # a PBX that never hangs up must not fill the memory; the oldest call is closed as lost


class Event(Protocol):
    """An AMI event, from the wire or from a file. Header names are case-insensitive."""

    event: str

    def get(self, header: str, /) -> str | None:
        """The header's first value, or None."""


class Correlator:
    """The call model of one PBX."""

    def __init__(self, view: PbxView) -> None:
        self.view = view
        self._graph = Graph()
        self._by_linkedid: dict[str, Group] = {}
        self._teller = Teller()
        self._closing: dict[Group, float] = {}
        self._tombstones: dict[str, float] = {}
        self._tombstone_order: deque[str] = deque()
        self._dirty: dict[Group, None] = {}
        self._adopted: dict[str, Call] = {}
        self._groups_seen = 0
        self._out: list[CallChange] = []
        self._handlers: dict[str, Callable[[Event, float], None]] = {
            "Newchannel": self._newchannel,
            "Newstate": self._newstate,
            "NewCallerid": self._newcallerid,
            "Rename": self._rename,
            "DialBegin": self._dial_begin,
            "DialState": self._dial_state,
            "DialEnd": self._dial_end,
            "BridgeCreate": self._bridge_create,
            "BridgeEnter": self._bridge_enter,
            "BridgeLeave": self._bridge_leave,
            "BridgeMerge": self._bridge_merge,
            "BridgeDestroy": self._bridge_destroy,
            "LocalBridge": self._local_bridge,
            "HangupRequest": self._hangup_request,
            "SoftHangupRequest": self._soft_hangup_request,
            "Hangup": self._hangup,
            "QueueCallerJoin": self._queue_join,
            "QueueCallerAbandon": self._queue_abandon,
            "Newexten": self._newexten,
            "VarSet": self._varset,
            "OriginateResponse": self._originate_response,
        }

    # -- outside ----------------------------------------------------------------------------------------------------------

    @property
    def live_calls(self) -> int:
        """How many conversations are open."""
        return len({id(channel.group) for channel in self._graph.channels.values() if channel.group.closed_at is None})

    def feed(self, event: Event, at: float) -> list[CallChange]:
        """Takes one event that arrived at Unix time `at`; gives the changes it brought, in order."""
        if self._closing:
            self._close_due(at)
        handler = self._handlers.get(event.event)
        if handler is not None:
            handler(event, at)
            self._settle(at)
        return self._drain()

    def tick(self, at: float) -> list[CallChange]:
        """Lets time pass: closes calls whose grace is over."""
        self._close_due(at)
        self._settle(at)
        return self._drain()

    def take_in(self, events: Iterable[tuple[Event, float]], at: float) -> list[CallChange]:
        """Takes what a snapshot says as one step, so that nothing half-told gets out."""
        for event, seen_at in events:
            if (handler := self._handlers.get(event.event)) is not None:
                handler(event, seen_at)
        self._settle(at)
        return self._drain()

    def knows(self) -> set[str]:
        """Uniqueids of the channels believed to be up."""
        return set(self.present())

    def present(self) -> dict[str, Channel]:
        """The channels believed to be up, by Uniqueid; to be read only."""
        return {uid: channel for uid, channel in self._graph.channels.items() if channel.ended_at is None}

    def lose(self, uniqueids: Iterable[str], at: float, *, reused: bool = False) -> list[CallChange]:
        """These channels are gone and their end was not seen: their calls end with `gap`.

        reused: their Uniqueids may come again and mean others (after a restart).
        """
        gone = set(uniqueids)
        lost = [channel for uniqueid, channel in self._graph.channels.items() if uniqueid in gone]
        for group in dict.fromkeys(channel.group for channel in lost):
            group.has_gap = True
            group.is_lost = group.is_lost or not any(channel.uniqueid not in gone for channel in group.live())
        for channel in lost:
            self._end_channel(channel, max(channel.created_at, channel.group.last_seen_at), None)
        if reused:
            self._tombstones.clear()
            self._tombstone_order.clear()
        self._settle(at)
        return self._drain()

    def adopt(self, calls: Iterable[Call]) -> None:
        """Calls that a former process stored and that still live: they go on under their id when they are next heard of."""
        self._adopted.update({call.linkedid: call for call in calls})

    def mark_gap(self) -> None:
        """Something was not seen: every live call may lack a part."""
        for channel in self._graph.channels.values():
            channel.group.has_gap = True

    # -- channels ---------------------------------------------------------------------------------------------------------

    def _newchannel(self, event: Event, at: float) -> None:
        uniqueid = event.get("Uniqueid") or ""
        if uniqueid and uniqueid not in self._graph.channels and uniqueid not in self._tombstones:
            self._add(event, "", at, is_partial=False)

    def _add(self, event: Event, prefix: str, at: float, *, is_partial: bool) -> Channel:
        uniqueid = event.get(f"{prefix}Uniqueid") or ""
        linkedid = event.get(f"{prefix}Linkedid") or uniqueid
        group = self._by_linkedid.get(linkedid)
        if group is None or group.closed_at is not None:
            group = self._by_linkedid[linkedid] = self._new_group(uniqueid, linkedid, at)
        channel = Channel(
            uniqueid=uniqueid,
            name=event.get(f"{prefix}Channel") or "",
            linkedid=linkedid,
            context=event.get(f"{prefix}Context") or "",
            exten=event.get(f"{prefix}Exten") or "",
            number=_known(event.get(f"{prefix}CallerIDNum")),
            caller_name=_name(event.get(f"{prefix}CallerIDName")),
            created_at=at,
            group=group,
            was_born_called=linkedid != uniqueid and not is_partial,
        )
        if is_partial and not channel.is_local:
            group.has_gap = True
        if linkedid.startswith(CLICK_CHANNEL):  # ours, even when its DialBegin without a caller was not seen
            group.originated = True
        self._graph.channels[uniqueid] = channel
        group.channels[uniqueid] = channel
        self._state(channel, event.get(f"{prefix}ChannelState"), at)
        self._touch(group, at)
        if len(self._graph.channels) > MAX_CHANNELS:
            self._drop_oldest(at)
        return channel

    def _new_group(self, uniqueid: str, linkedid: str, at: float) -> Group:
        self._groups_seen += 1
        group = Group(uniqueid, linkedid, at, self._groups_seen, last_seen_at=at)
        prior = self._adopted.pop(linkedid, None)
        if prior is not None:
            group.prior, group.started_at, group.has_gap = prior, prior.started_at, True
            group.recordings = list(prior.recordings)
            if prior.answered_at is not None:
                group.talks.append(Talk(prior.last_talked or "", prior.answered_at))
            self._teller.take_over(group, prior)
        return group

    def _channel(self, event: Event, at: float, prefix: str = "") -> Channel | None:
        """The channel an event speaks of; one that was never announced is taken in as it is (the trace began later)."""
        uniqueid = event.get(f"{prefix}Uniqueid")
        if not uniqueid or uniqueid in self._tombstones:
            return None
        channel = self._graph.channels.get(uniqueid)
        if channel is None:
            if not event.get(f"{prefix}Channel"):
                return None
            return self._add(event, prefix, at, is_partial=True)
        linkedid = event.get(f"{prefix}Linkedid")
        if linkedid and linkedid != channel.group.linkedid:
            other = self._by_linkedid.get(linkedid)
            if other is not None and other is not channel.group:
                self._join(channel.group, other, at)
        return channel

    def _newstate(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is not None:
            self._state(channel, event.get("ChannelState"), at)
            self._touch(channel.group, at)

    def _state(self, channel: Channel, state: str | None, at: float) -> None:
        if state == "5" and channel.ringing_at is None:
            channel.ringing_at = at
        elif state == "6" and channel.up_at is None:
            channel.up_at = at
        if state in ("4", "6"):
            channel.is_started = True

    def _newcallerid(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is None:
            return
        number = _known(event.get("CallerIDNum"))
        channel.shown_as = number
        if channel.number is None:
            channel.number = number
        self._touch(channel.group, at)

    def _rename(self, event: Event, at: float) -> None:
        channel = self._graph.channels.get(event.get("Uniqueid") or "")
        if channel is not None and (name := event.get("Newname")):
            channel.name = name

    def _hangup_request(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is None:
            return
        if channel.hangup_requested_at is None:
            channel.hangup_requested_at = at
        channel.group.saw_hangup_request = True
        self._touch(channel.group, at)

    def _soft_hangup_request(self, event: Event, at: float) -> None:
        """The PBX ends a channel by itself, or after its peer asked: so this stream has hangup requests at all."""
        channel = self._channel(event, at)
        if channel is not None:
            channel.group.saw_hangup_request = True

    def _hangup(self, event: Event, at: float) -> None:
        channel = self._graph.channels.get(event.get("Uniqueid") or "")
        if channel is None:
            return
        cause = event.get("Cause") or ""
        self._end_channel(channel, at, int(cause) if cause.isascii() and cause.isdigit() and len(cause) < 4 else None)

    def _end_channel(self, channel: Channel, at: float, cause: int | None) -> None:
        channel.ended_at, channel.cause = at, cause
        if channel.dialled is not None and channel.dialled.ended_at is None:
            channel.dialled.ended_at = at
        self._leave(channel)
        del self._graph.channels[channel.uniqueid]
        self._bury(channel.uniqueid, at)
        self._touch(channel.group, at)
        self._consider_end(channel.group, at)

    # -- dials --------------------------------------------------------------------------------------------------------------

    def _dial_begin(self, event: Event, at: float) -> None:
        dest = self._channel(event, at, "Dest")
        if dest is None:
            return
        caller = self._channel(event, at)
        if caller is not None:
            self._join(caller.group, dest.group, at)
        else:
            dest.group.originated = True
        dial = Dial(
            caller=caller.uniqueid if caller else None,
            dest=dest.uniqueid,
            began_at=at,
            dial_string=event.get("DialString") or "",
            caller_exten=event.get("Exten") or "",
            caller_shown=event.get("CallerIDNum") or "",
        )
        dest.dialled = dial
        dest.group.dials.append(dial)
        self._touch(dest.group, at)

    def _dial_state(self, event: Event, at: float) -> None:
        dest = self._channel(event, at, "Dest")
        if dest is None or dest.dialled is None:
            return
        match event.get("DialStatus"):
            case "RINGING":
                dest.dialled.alerted_at = at
            case "PROGRESS":
                dest.dialled.progress_at = at
        self._touch(dest.group, at)

    def _dial_end(self, event: Event, at: float) -> None:
        dest = self._channel(event, at, "Dest")
        if dest is None:
            return
        if dest.dialled is None:  # pickup, attended transfer: an end without a beginning
            dest.dialled = Dial(event.get("Uniqueid"), dest.uniqueid, at, event.get("DialString") or "", event.get("Exten") or "")
            dest.group.dials.append(dest.dialled)
        dial = dest.dialled
        if dial.status is None:  # a queue says CANCEL twice
            dial.status, dial.ended_at = event.get("DialStatus") or "", at
            dial.forwarded = bool(event.get("Forward"))
        self._touch(dest.group, at)

    def _originate_response(self, event: Event, at: float) -> None:
        channel = self._graph.channels.get(event.get("Uniqueid") or "")
        group = channel.group if channel else None
        if group is None:
            return
        group.originate_exten = event.get("Exten") or _dialled_by_data(event.get("Data"))
        self._touch(group, at)

    # -- bridges --------------------------------------------------------------------------------------------------------------

    def _bridge_create(self, event: Event, at: float) -> None:
        self._bridge(event)

    def _bridge(self, event: Event, prefix: str = "") -> Bridge | None:
        bridge_id = event.get(f"{prefix}BridgeUniqueid")
        if not bridge_id:
            return None
        bridge = self._graph.bridges.get(bridge_id)
        if bridge is None:
            bridge = self._graph.bridges[bridge_id] = Bridge(bridge_id)
        if kind := event.get(f"{prefix}BridgeType"):
            bridge.kind = kind
        if event.get(f"{prefix}BridgeTechnology") == "holding_bridge":
            bridge.kind = "holding"
        return bridge

    def _bridge_enter(self, event: Event, at: float) -> None:
        channel, bridge = self._channel(event, at), self._bridge(event)
        if channel is None or bridge is None:
            return
        if channel.up_at is None:
            channel.up_at = at
        swapped = self._graph.channels.get(event.get("SwapUniqueid") or "")
        if swapped is not None and swapped.bridge == bridge.id:
            self._leave(swapped)
        self._leave(channel)
        for uniqueid in list(bridge.members):
            if (member := self._graph.channels.get(uniqueid)) is not None:
                self._join(member.group, channel.group, at)
        self._graph.bridges[bridge.id] = bridge  # it may have been empty for the moment of a swap or a repeated enter
        channel.bridge = bridge.id
        bridge.members[channel.uniqueid] = None
        self._touch(channel.group, at)

    def _bridge_leave(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is not None and channel.bridge == event.get("BridgeUniqueid"):
            self._leave(channel)
            self._touch(channel.group, at)

    def _bridge_merge(self, event: Event, at: float) -> None:
        target, source = self._bridge(event, "To"), self._graph.bridges.get(event.get("FromBridgeUniqueid") or "")
        if target is None or source is None:
            return
        for uniqueid in list(source.members):
            if (channel := self._graph.channels.get(uniqueid)) is not None:
                self._leave(channel)
                channel.bridge = target.id
                target.members[uniqueid] = None
                self._touch(channel.group, at)

    def _bridge_destroy(self, event: Event, at: float) -> None:
        bridge = self._graph.bridges.pop(event.get("BridgeUniqueid") or "", None)
        for uniqueid in bridge.members if bridge else ():
            if (channel := self._graph.channels.get(uniqueid)) is not None and bridge and channel.bridge == bridge.id:
                channel.bridge = None
                self._touch(channel.group, at)

    def _leave(self, channel: Channel) -> None:
        bridge = self._graph.bridges.get(channel.bridge or "")
        channel.bridge = None
        if bridge is not None:
            bridge.members.pop(channel.uniqueid, None)
            if not bridge.members:
                del self._graph.bridges[bridge.id]

    def _local_bridge(self, event: Event, at: float) -> None:
        one, two = self._channel(event, at, "LocalOne"), self._channel(event, at, "LocalTwo")
        if one is not None and two is not None:
            one.pair, two.pair = two.uniqueid, one.uniqueid
            self._join(one.group, two.group, at)

    # -- what else is told -------------------------------------------------------------------------------------------------------

    def _queue_join(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is not None:
            channel.group.queue = event.get("Queue")
            self._touch(channel.group, at)

    def _queue_abandon(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is not None:
            channel.group.abandoned_at = at
            self._touch(channel.group, at)

    def _newexten(self, event: Event, at: float) -> None:
        if event.get("Application") == "VoiceMail" and (channel := self._channel(event, at)) is not None:
            channel.mailbox_at = at
            self._touch(channel.group, at)

    def _varset(self, event: Event, at: float) -> None:
        if event.get("Variable") != "MIXMONITOR_FILENAME":
            return
        channel, value = self._channel(event, at), unescape(event.get("Value") or "")
        if channel is not None and value and value not in channel.group.recordings:
            channel.group.recordings.append(value)
            self._touch(channel.group, at)

    # -- groups ------------------------------------------------------------------------------------------------------------------

    def _join(self, one: Group, other: Group, at: float) -> None:
        """Two groups turn out to be one conversation: the older one goes on, the younger's record is closed."""
        if one is other or one.closed_at is not None or other.closed_at is not None:
            return
        keep, give = sorted((one, other), key=lambda group: group.order)
        self._close_as_consult(give, at)
        self._dirty.pop(give, None)
        self._closing.pop(give, None)
        for channel in give.channels.values():
            channel.group = keep
        keep.channels |= give.channels
        keep.dials = sorted(keep.dials + give.dials, key=lambda dial: dial.began_at)
        keep.talks = sorted(keep.talks + give.talks, key=lambda talk: talk.start)
        keep.recordings += [name for name in give.recordings if name not in keep.recordings]
        keep.queue = keep.queue or give.queue
        keep.originated |= give.originated
        keep.originate_exten = keep.originate_exten or give.originate_exten
        keep.has_gap |= give.has_gap
        keep.saw_hangup_request |= give.saw_hangup_request
        for linkedid in {give.linkedid, *(channel.linkedid for channel in give.channels.values())}:
            if self._by_linkedid.get(linkedid) is give:
                self._by_linkedid[linkedid] = keep
        self._touch(keep, at)

    def _close_as_consult(self, group: Group, at: float) -> None:
        popups = self._teller.forget(group)
        group.consult, group.closed_at = True, at
        if popups is not None:
            self._out.append(CallChange(Judgement(group, self.view).record(), (Ended(popups),), at))

    def _touch(self, group: Group, at: float) -> None:
        if group.closed_at is None:
            group.last_seen_at = max(group.last_seen_at, at)
            self._dirty[group] = None

    def _settle(self, at: float) -> None:
        while self._dirty:
            group, _ = self._dirty.popitem()
            if group.closed_at is None:
                self._update(group, at)

    def _update(self, group: Group, at: float) -> None:
        if _is_worth_telling(group):
            judgement = Judgement(group, self.view)
            self._follow_talk(group, judgement, at)
            self._tell(group, judgement, at)

    def _follow_talk(self, group: Group, judgement: Judgement, at: float) -> None:
        heard: list[str] = []
        for customer in judgement.customers:
            if customer.ended_at is None and customer.bridge:
                for channel in self._graph.reach(customer):
                    if channel.group is group and channel not in judgement.customers:
                        heard.append(judgement.number_of(channel) or "")
        current = group.talks[-1] if group.talks and group.talks[-1].end is None else None
        if current is not None and current.person not in heard:
            current.end = at
            current = None
        if current is None and heard:
            group.talks.append(Talk(heard[0], at))

    def _tell(self, group: Group, judgement: Judgement, at: float) -> None:
        change = self._teller.tell(group, judgement, at)
        if change is not None:
            self._out.append(change)

    # -- ends ----------------------------------------------------------------------------------------------------------------------

    def _consider_end(self, group: Group, at: float) -> None:
        if group.closed_at is not None:
            return
        judgement = Judgement(group, self.view)
        self._follow_talk(group, judgement, at)
        if not group.live():
            self._close(group, at)
        elif self._customer_is_gone(group, judgement):
            self._closing.setdefault(group, at + GRACE_S)

    def _customer_is_gone(self, group: Group, judgement: Judgement) -> bool:
        customers = judgement.customers
        if not customers or any(channel.ended_at is None for channel in customers):
            return False
        return judgement.direction is Direction.IN or bool(group.talks)

    def _close_due(self, at: float) -> None:
        for group in [group for group, due in self._closing.items() if due <= at]:
            del self._closing[group]
            if group.closed_at is None and self._customer_is_gone(group, Judgement(group, self.view)):
                self._close(group, at)

    def _close(self, group: Group, at: float) -> None:
        judgement = Judgement(group, self.view)
        ends = [channel.ended_at for channel in judgement.customers if channel.ended_at is not None]
        if not ends or (judgement.direction is Direction.OUT and not group.talks):
            ends = [channel.ended_at for channel in group.channels.values() if channel.ended_at is not None]
        if group.talks and group.talks[-1].end is None:
            group.talks[-1].end = at
        group.closed_at = max(ends) if ends else at
        if _is_worth_telling(group):
            self._tell(group, judgement, at)
        self._teller.forget(group)
        self._closing.pop(group, None)
        self._dirty.pop(group, None)
        for linkedid in {group.linkedid, *(channel.linkedid for channel in group.channels.values())}:
            if self._by_linkedid.get(linkedid) is group:
                del self._by_linkedid[linkedid]

    def _bury(self, uniqueid: str, at: float) -> None:
        self._tombstones[uniqueid] = at
        self._tombstone_order.append(uniqueid)
        while self._tombstone_order and self._tombstones[self._tombstone_order[0]] < at - TOMBSTONE_S:
            del self._tombstones[self._tombstone_order.popleft()]

    def _drop_oldest(self, at: float) -> None:
        oldest = next(iter(self._graph.channels.values())).group
        oldest.is_lost = oldest.has_gap = True
        for channel in oldest.live():
            self._end_channel(channel, oldest.last_seen_at, None)

    def _drain(self) -> list[CallChange]:
        out, self._out = self._out, []
        return out


def _is_worth_telling(group: Group) -> bool:
    """Not before it is clear what it is: a channel that was only created may yet be dialled, or be a click-to-call."""
    return any(not c.is_local and (c.is_started or c.dialled) for c in group.channels.values())


def _known(text: str | None) -> str | None:
    return None if text in (None, "", "<unknown>") else text


def _name(text: str | None) -> str | None:
    known = _known(text)
    return unescape(known).strip() or None if known else None


def _dialled_by_data(data: str | None) -> str | None:
    """`Local/+375…@inoffice` of an originated Dial -> the number."""
    if not data or not data.startswith("Local/"):
        return None
    return data.partition("/")[2].partition("@")[0] or None
