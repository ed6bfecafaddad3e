"""Events of dials: who is called on whose behalf, and what became of it. Pure.

Their pairing is not to be relied on: a pickup ends a dial that never began, a queue ends one twice, an originated leg that
nobody picked up does not end at all. A dial is known by its destination, and its first end counts.
"""

from __future__ import annotations

from operator import itemgetter

from daemon.calls.facts import Event, known
from daemon.calls.graph import Channel, Dial, Group, Move
from daemon.calls.on_channels import OnChannels
from daemon.calls.parties import is_called, is_external
from daemon.model.call import CLICK_CHANNEL


class OnDials(OnChannels):
    """DialBegin, DialState, DialEnd, OriginateResponse."""

    def _dial_begin(self, event: Event, at: float) -> None:
        dest = self._channel(event, at, "Dest")
        if dest is None:
            return
        caller = self._channel(event, at)
        if caller is not None:
            self._join(caller.group, dest.group, at)
        elif (recalled := self._recalled(event, dest)) is not None:
            self._join(recalled, dest.group, at)
        elif not dest.was_born_called:  # else an application calls for somebody who is there: Page names no caller
            dest.group.originated, dest.group.parties = True, None
        if caller is not None and dest.is_started:
            self._picked_up(caller, dest)
        is_quiet = caller is not None and self._rings_for_who_arrived(caller, dest)
        self._begin(event, caller, dest, at)
        (self._see if is_quiet else self._touch)(dest.group, at)

    def _rings_for_who_arrived(self, caller: Channel, dest: Channel) -> bool:
        """Whether one of our phones is merely called for who came from outside: nobody notices before it rings. Most dials are this one.

        Not after a move or a forward: the first that is dialled then is whom the call was moved to.
        """
        group = dest.group
        is_fresh = dest.was_born_called and dest.dialled is None and dest.ringing_at is None and dest.up_at is None
        if not is_fresh or is_called(caller) or not is_external(caller, self.view) or is_external(dest, self.view):
            return False
        return self._teller.knows(group) and not group.moves and not any([dial.forwarded for dial in group.dials])

    def _recalled(self, event: Event, dest: Channel) -> Group | None:
        """The call that nobody took when it was handed over: Asterisk calls the one who hung up back and shows whom it brings.

        Two customers may show the same number, or none. But the PBX first lets go of whom it rang in vain (bridge_basic.c, one thread does both).
        """
        shown, found = known(event.get("DestConnectedLineNum")), list[tuple[bool, bool, Group]]()
        for group, recall in self._recalls.items():
            if recall.endpoint == dest.endpoint and (recall.shown == shown or recall.shown is None or shown is None):
                found.append((recall.target.is_let_go or recall.target.ended_at is not None, recall.shown == shown, group))
        if not found or dest.linkedid.startswith(CLICK_CHANNEL):
            return None
        group = max(found, key=itemgetter(0, 1))[2]
        del self._recalls[group]
        return group

    def _begin(self, event: Event, caller: Channel | None, dest: Channel, at: float) -> Dial:
        dest.dialled = Dial(
            caller=caller.uniqueid if caller else None,
            dest=dest.uniqueid,
            began_at=at,
            order=self._order,
            dial_string=event.get("DialString") or "",
            caller_exten=event.get("Exten") or "",
            caller_shown=event.get("CallerIDNum") or "",
        )
        dest.group.dials.append(dest.dialled)
        dest.group.parties = None
        return dest.dialled

    def _dial_state(self, event: Event, at: float) -> None:
        dest = self._channel(event, at, "Dest")
        if dest is None or dest.dialled is None:
            return
        status = event.get("DialStatus")
        if status == "RINGING":
            is_news = dest.dialled.alerted_at is None and dest.ringing_at is None and not dest.is_plumbing
            dest.dialled.alerted_at = at
            (self._touch if is_news else self._see)(dest.group, at)
        elif status == "PROGRESS":
            dest.dialled.progress_at = at

    def _dial_end(self, event: Event, at: float) -> None:
        dest = self._channel(event, at, "Dest")
        if dest is None:
            return
        caller, status = self._channel(event, at), event.get("DialStatus") or ""
        if caller is not None:
            self._join(caller.group, dest.group, at)
        dial = dest.dialled
        if dial is None:
            dial = self._begin(event, caller, dest, at)
            dial.unpaired = True
            if status == "ANSWER" and caller is not None:
                self._picked_up(caller, dest)
        if dial.status is None:  # a queue says CANCEL twice
            dial.status, dial.ended_at = status, at
            dial.forwarded = bool(event.get("Forward"))
        (self._touch if dial.forwarded or dial.unpaired else self._see)(dest.group, at)

    def _picked_up(self, caller: Channel, picker: Channel) -> None:
        """A channel that called by itself answers somebody else's call: a pickup, when a phone still rings for that caller.

        A pickup by Replaces has no Pickup event (seen live on 16 and 22).
        """
        group = picker.group
        if picker.is_plumbing or picker.was_born_called or any(move.target is picker for move in group.moves):
            return
        for dial in reversed(group.dials):
            ringing = group.channels.get(dial.dest)
            waits = dial.caller == caller.uniqueid and dial.status in (None, "CANCEL") and not dial.forwarded
            if waits and ringing is not None and ringing is not picker and ringing.up_at is None:
                group.moves.append(Move("pickup", self._order, ringing, picker))
                return

    def _originate_response(self, event: Event, at: float) -> None:
        channel = self._graph.channels.get(event.get("Uniqueid") or "")
        if channel is not None:
            channel.group.originate_exten = event.get("Exten") or _dialled_by_data(event.get("Data"))
            channel.group.parties = None
            self._touch(channel.group, at)


def _dialled_by_data(data: str | None) -> str | None:
    """`Local/+375…@inoffice` of an originated Dial -> the number."""
    if not data or not data.startswith("Local/"):
        return None
    return data.partition("/")[2].partition("@")[0] or None
