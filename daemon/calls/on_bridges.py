"""Events of bridges: who is with whom. Pure.

A channel is in one bridge at a time. BridgeType `base` with softmix is a conference; a holding bridge (queue, parking) is no talk.
"""

from __future__ import annotations

from daemon.calls.facts import ITS_BRIDGE, MERGED_INTO, Event
from daemon.calls.graph import Bridge, Channel
from daemon.calls.on_dials import OnDials

CONFERENCE = "base"


class OnBridges(OnDials):
    """BridgeCreate to BridgeDestroy, and MeetMe's rooms."""

    def _bridge_create(self, event: Event, at: float) -> None:
        self._bridge(event, ITS_BRIDGE)

    def _bridge_enter(self, event: Event, at: float) -> None:
        channel, bridge = self._channel(event, at), self._bridge(event, ITS_BRIDGE)
        if channel is None or bridge is None:
            return
        if channel.up_at is None and not channel.is_plumbing:
            channel.up_at = at
        swapped = self._graph.channels.get(event.get("SwapUniqueid") or "")
        if swapped is not None and swapped.bridge == bridge.id:
            self._leave(swapped)
        self._enter(channel, bridge, at)

    def _enter(self, channel: Channel, bridge: Bridge, at: float) -> None:
        self._leave(channel)
        if bridge.kind == CONFERENCE:
            channel.group.confers = True
        for uniqueid in list(bridge.members):
            if (member := self._graph.channels.get(uniqueid)) is not None and member.group is not channel.group:
                self._join(member.group, channel.group, at)
        self._graph.bridges[bridge.id] = bridge  # it may have been empty for the moment of a swap or a repeated enter
        channel.bridge = bridge.id
        bridge.members[channel.uniqueid] = None
        self._touch_members(bridge.members, at)

    def _bridge_leave(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is not None and channel.bridge == event.get("BridgeUniqueid"):
            bridge = self._graph.bridges.get(channel.bridge or "")
            self._leave(channel)
            self._touch_talk(channel.group, at)
            if bridge is not None and channel.group.confers:
                self._touch_members(bridge.members, at)

    def _meetme_join(self, event: Event, at: float) -> None:
        """A MeetMe room is mixed outside of Asterisk's bridges and told by events of its own (until Asterisk 20)."""
        channel, room = self._channel(event, at), event.get("Meetme")
        if channel is not None and room:
            bridge_id = f"meetme {room}"
            self._enter(channel, self._graph.bridges.get(bridge_id) or Bridge(bridge_id, CONFERENCE), at)

    def _meetme_leave(self, event: Event, at: float) -> None:
        channel = self._channel(event, at)
        if channel is not None and channel.bridge == f"meetme {event.get('Meetme')}":
            self._leave(channel)
            self._touch(channel.group, at)

    def _touch_members(self, members: dict[str, None], at: float) -> None:
        """In a conference other conversations hear it too."""
        if len(members) == 1:  # nobody is heard yet
            return
        for uniqueid in members:
            if (member := self._graph.channels.get(uniqueid)) is not None:
                self._touch(member.group, at)

    def _bridge_merge(self, event: Event, at: float) -> None:
        target, source = self._bridge(event, MERGED_INTO), self._graph.bridges.get(event.get("FromBridgeUniqueid") or "")
        if target is None or source is None or target is source:
            return
        for uniqueid in list(source.members):
            if (channel := self._graph.channels.get(uniqueid)) is not None:
                self._leave(channel)
                channel.bridge = target.id
                target.members[uniqueid] = None
                self._touch(channel.group, at)
        self._graph.bridges[target.id] = target

    def _bridge_destroy(self, event: Event, at: float) -> None:
        bridge = self._graph.bridges.pop(event.get("BridgeUniqueid") or "", None)
        for uniqueid in bridge.members if bridge else ():
            if (channel := self._graph.channels.get(uniqueid)) is not None and bridge and channel.bridge == bridge.id:
                channel.bridge = None
                self._touch(channel.group, at)
