"""Events of moves: transfers, pickup, parking. Pure.

They say who moved the call and what was meant; whether anybody took it is judged later from the talks (rules.py). Linkedid
ties their legs only afterwards, so the channels that the event names are joined here.
"""

from __future__ import annotations

from daemon.calls.facts import HEADERS, Event, known
from daemon.calls.graph import Channel, Group, Move, Recall
from daemon.calls.on_bridges import OnBridges


class OnMoves(OnBridges):
    """BlindTransfer, AttendedTransfer, Pickup, ParkedCall, UnParkedCall."""

    def _party(self, event: Event, at: float, prefix: str) -> Channel | None:
        """A channel that a move names. It may have hung up already: the mover's thread tells the move last, the channels have their own."""
        channel = self._channel(event, at, prefix)
        if channel is None and (group := self._by_linkedid.get(event.get(HEADERS[prefix].linkedid) or "")) is not None:
            channel = group.channels.get(event.get(HEADERS[prefix].uniqueid) or "")
        return channel

    def _blind_transfer(self, event: Event, at: float) -> None:
        source, moved = self._party(event, at, "Transferer"), self._party(event, at, "Transferee")
        if source is None:
            return
        group = moved.group if moved is not None else source.group
        last = group.moves[-1] if group.moves else None
        if last is not None and last.kind == "park" and last.parked is moved and last.source is None and last.target is None:
            last.source = source  # a transfer to the parking place: ParkedCall told it already
            return
        failed = event.get("Result") not in (None, "Success")
        # Told late, when the moved one already dials on: that began when the two parted.
        is_late = moved is not None and moved.parted and not failed and (moved.bridge is None or moved.bridge != source.bridge)
        order = moved.parted if moved is not None and is_late else self._order
        group.moves.append(Move("blind", order, source, exten=event.get("Extension") or "", parked=moved, failed=failed))
        self._touch(group, at)

    def _attended_transfer(self, event: Event, at: float) -> None:
        first, second = self._party(event, at, "OrigTransferer"), self._party(event, at, "SecondTransferer")
        moved = self._party(event, at, "Transferee")
        one = moved or first
        if one is None or second is None:
            return
        failed = event.get("Result") not in (None, "Success") or event.get("DestType") == "Fail"
        if not failed:
            self._join(one.group, second.group, at)
        group = one.group
        asked = self._target(event, at, moved, second)
        target = self._behind(asked, group)
        is_reached = target is not None and target.up_at is not None
        kind = "attended" if is_reached or (event.get("DestType") == "App" and event.get("DestApp") not in ("Dial", "Queue")) else "blonde"
        source = second if first is None else first
        group.moves.append(Move(kind, self._order, source, target, parked=moved, failed=failed))
        if kind == "blonde" and not failed and asked is not None and event.get("DestType") != "App":  # a phone's own line is not called back
            self._recalls[group] = Recall(source.endpoint, known(event.get("TransfereeCallerIDNum")), asked)
        self._touch(group, at)

    def _target(self, event: Event, at: float, moved: Channel | None, second: Channel) -> Channel | None:
        """Who the transferer was with: named, or a member of the bridge, or whom the second line is ringing."""
        named = self._channel(event, at, "TransferTarget")
        if named is not None:
            return named
        bridge = self._graph.bridges.get(event.get("DestBridgeUniqueid") or "")
        for uniqueid in bridge.members if bridge else ():
            member = self._graph.channels.get(uniqueid)
            if member is not None and member is not moved and member is not second:
                return member
        return next((found for dial in reversed(second.group.dials) if dial.caller == second.uniqueid and (found := self._live(dial.dest))), None)

    def _live(self, uniqueid: str | None) -> Channel | None:
        return self._graph.channels.get(uniqueid or "")

    def _behind(self, channel: Channel | None, group: Group) -> Channel | None:
        """The real phone behind a Local channel: whom its other half dialled."""
        for _ in range(8):  # Locals in a row are few; a loop of them must not hang us
            if channel is None or not channel.is_plumbing:
                return channel
            channel = next((group.channels.get(dial.dest) for dial in reversed(group.dials) if dial.caller == channel.pair), None)
        return None

    def _pickup(self, event: Event, at: float) -> None:
        picker, target = self._channel(event, at), self._channel(event, at, "Target")
        if picker is None or target is None:
            return
        self._join(target.group, picker.group, at)
        group = picker.group
        move = Move("pickup", self._order, self._behind(target, group), picker)
        told = next((n for n, m in enumerate(group.moves) if m.kind == "pickup" and m.target is picker), None)
        if told is None:
            group.moves.append(move)
        else:  # the DialEnd of the same pickup came first (seen live on 22: the two are sent by different threads); this one is exact
            group.moves[told] = move
        self._touch(group, at)

    # -- parking ----------------------------------------------------------------------------------------------------------

    def _parked_call(self, event: Event, at: float) -> None:
        parked = self._channel(event, at, "Parkee")
        if parked is None:
            return
        group, by = parked.group, event.get("ParkerDialString") or ""
        last = group.moves[-1] if group.moves else None
        source = None
        if last is not None and last.kind == "blind" and last.parked is parked and not any(dial.order > last.order for dial in group.dials):
            group.moves.pop()  # the transfer was to the parking place
            source = last.source
        group.moves.append(Move("park", self._order, source, parked=parked, source_shown=by, exten=event.get("ParkingSpace") or ""))
        self._touch(group, at)

    def _unparked_call(self, event: Event, at: float) -> None:
        parked, by = self._channel(event, at, "Parkee"), self._channel(event, at, "Retriever")
        if parked is None or by is None:
            return
        self._join(parked.group, by.group, at)
        for move in reversed(parked.group.moves):
            if move.kind == "park" and move.parked is parked:
                move.target = by
                break
        self._touch(parked.group, at)
