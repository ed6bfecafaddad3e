"""Events in, changed calls out. Pure: no clock, no I/O; `at` comes with every event.

One instance per PBX. Events become facts by family (on_channels.py, on_dials.py, on_bridges.py, on_moves.py; the facts
themselves are facts.py and graph.py); what they mean is judged by rules.py, what is told of them by telling.py. No event makes it raise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from daemon.calls.facts import MAX_CHANNELS, Event
from daemon.calls.graph import Channel, Group, Talk
from daemon.calls.on_moves import OnMoves
from daemon.calls.parties import IN, OUT, extension_of, is_external
from daemon.calls.rules import Judgement
from daemon.calls.view import PbxView
from daemon.model.call import Call
from daemon.model.signal import CallChange, Ended

__all__ = ["MAX_CHANNELS", "Correlator", "Event"]

GRACE_S = 1.0  # from the customer's hangup to the end of the record: what the other legs still have to say


class Correlator(OnMoves):
    """The call model of one PBX."""

    def __init__(self, view: PbxView) -> None:
        super().__init__(view)
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
            "MeetmeJoin": self._meetme_join,
            "MeetmeLeave": self._meetme_leave,
            "LocalBridge": self._local_bridge,
            "BlindTransfer": self._blind_transfer,
            "AttendedTransfer": self._attended_transfer,
            "Pickup": self._pickup,
            "ParkedCall": self._parked_call,
            "UnParkedCall": self._unparked_call,
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
        if at >= self._next_close_at:
            self._close_due(at)
        handler = self._handlers.get(event.event)
        if handler is not None:
            self._order += 1
            handler(event, at)
            if self._dirty:
                self._settle(at)
        return self._drain() if self._out else []

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
        for group in dict.fromkeys([channel.group for channel in lost]):
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

    # -- groups ---------------------------------------------------------------------------------------------------------

    def _close_as_consult(self, group: Group, at: float) -> None:
        popups = self._teller.forget(group)
        group.consult, group.closed_at = popups is not None, at
        if popups is not None:
            self._out.append(CallChange(Judgement(group, self.view).record(), (Ended(popups),), at))

    def _settle(self, at: float) -> None:
        while self._dirty:
            group, is_record = self._dirty.popitem()
            if group.closed_at is None and self._is_worth_telling(group):
                judgement = Judgement(group, self.view)
                is_heard = self._follow_talk(group, judgement, at)
                if is_record or is_heard or not self._teller.knows(group):
                    self._tell(group, judgement, at)

    def _is_worth_telling(self, group: Group) -> bool:
        """Not before it is clear what it is: a channel that was only created may yet be dialled, or be a click-to-call; one of
        ours that dialled nobody yet may be about to pick up, to fetch a parked call or to enter a conference.
        """
        is_clear = group.dials or group.closed_at is not None or self._teller.knows(group)
        for channel in group.channels.values():
            if not channel.is_plumbing and ((channel.is_started or channel.dialled) if is_clear else (channel.is_started and is_external(channel, self.view))):
                return True
        return False

    def _follow_talk(self, group: Group, judgement: Judgement, at: float) -> bool:
        """Notes who talks with the customer now; gives whether anybody does."""
        heard = self._heard(judgement)
        for person in heard:
            group.heard[person] = self._order
        current = group.talks[-1] if group.talks and group.talks[-1].end is None else None
        if current is not None and current.person not in heard:
            current.end = at
            current = None
        if current is None and heard:
            group.talks.append(Talk(heard[0], at, order=self._order))
        return bool(heard)

    def _heard(self, judgement: Judgement) -> list[str]:
        """Who of ours the customer hears now. In a conference that may be somebody of another conversation, but not its customer."""
        heard: list[str] = []
        for customer in judgement.customers:
            if customer.ended_at is None and customer.bridge:
                for channel in self._graph.reach(customer):
                    if channel in judgement.customers:
                        continue
                    if channel.group is judgement.group:
                        heard.append(judgement.parties.number_of(channel) or "")
                    elif not is_external(channel, self.view):
                        heard.append(extension_of(channel, self.view) or "")
        return heard

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
            self._next_close_at = min(self._next_close_at, self._closing.setdefault(group, at + GRACE_S))

    def _customer_is_gone(self, group: Group, judgement: Judgement) -> bool:
        customers = judgement.customers
        if not customers or any(channel.ended_at is None for channel in customers):
            return False
        return judgement.direction is IN or bool(group.talks)

    def _close_due(self, at: float) -> None:
        for group in [group for group, due in self._closing.items() if due <= at]:
            del self._closing[group]
            if group.closed_at is None and self._customer_is_gone(group, Judgement(group, self.view)):
                self._close(group, at)
        self._next_close_at = min(self._closing.values(), default=math.inf)

    def _close(self, group: Group, at: float) -> None:
        judgement = Judgement(group, self.view)
        ends = [channel.ended_at for channel in judgement.customers if channel.ended_at is not None]
        if not ends or (judgement.direction is OUT and not group.talks):
            ends = [channel.ended_at for channel in group.channels.values() if channel.ended_at is not None]
        if group.talks and group.talks[-1].end is None:
            group.talks[-1].end = at
        group.closed_at = max(ends) if ends else at
        if self._is_worth_telling(group):
            self._tell(group, judgement, at)
        self._teller.forget(group)
        self._recalls.pop(group, None)
        self._closing.pop(group, None)
        self._dirty.pop(group, None)
        for linkedid in {group.linkedid, *[channel.linkedid for channel in group.channels.values()]}:
            if self._by_linkedid.get(linkedid) is group:
                del self._by_linkedid[linkedid]

    def _drain(self) -> list[CallChange]:
        out, self._out = self._out, []
        return out
