"""Who can take a call on one PBX: device states, hints and live channels, from events and lists. Pure.

A device's own state tells whether it is registered; the channels tell at once who rings and who talks, also where the
driver keeps no count of them. An extension is the devices of its hint, and without a hint the device of its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Protocol

from daemon.model.device import DeviceState

TECHNOLOGIES = ("PJSIP", "SIP", "IAX2")
MAX_DEVICES = 50_000  # a PBX that invents devices must not fill the memory
MAX_CHANNELS = 50_000

# DeviceStateChange `State` (main/devicestate.c). ONHOLD is somebody in a call.
_STATES = {
    "NOT_INUSE": DeviceState.FREE,
    "RINGING": DeviceState.RINGING,
    "RINGINUSE": DeviceState.BUSY,
    "INUSE": DeviceState.BUSY,
    "BUSY": DeviceState.BUSY,
    "ONHOLD": DeviceState.BUSY,
    "UNAVAILABLE": DeviceState.AWAY,
    "INVALID": DeviceState.AWAY,
}
_BEING_CALLED = ("0", "5")  # ChannelState Down and Ringing: it is alerted, or about to be


class Event(Protocol):
    """An AMI event; header names are case-insensitive."""

    event: str

    def get(self, header: str, /) -> str | None:
        """The header's first value, or None."""


@dataclass(slots=True)
class _Channel:
    name: str
    device: str
    linkedid: str
    state: str


@dataclass(slots=True)
class _Conversation:
    """The channels that share a Linkedid, and the devices that were ever part of it."""

    live: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)


class Devices:
    """One PBX. After `forget` everything is unknown until the lists come again."""

    def __init__(self, context: str) -> None:
        self.context = context  # where internal phones dial: its hints win over others'
        self._states: dict[str, DeviceState] = {}
        self._hints: dict[str, tuple[str, ...]] = {}
        self._channels: dict[str, _Channel] = {}
        self._by_device: dict[str, set[str]] = {}
        self._conversations: dict[str, _Conversation] = {}

    # -- what is known ---------------------------------------------------------------------------------------------------

    def state(self, extension: str) -> DeviceState:
        """Whether this extension can take a call now. Busy on one device is busy; free wants one that is reachable."""
        states = {self._device_state(device) for device in self.devices_of(extension)}
        for state in (DeviceState.BUSY, DeviceState.RINGING, DeviceState.FREE, DeviceState.AWAY):
            if state in states:
                return state
        return DeviceState.UNKNOWN

    def devices_of(self, extension: str) -> tuple[str, ...]:
        """The devices that ring when this extension is called, in lower case."""
        return self._hints.get(extension) or tuple(f"{technology.lower()}/{extension.lower()}" for technology in TECHNOLOGIES)

    def is_live(self, channel: str) -> bool:
        """Whether a channel of exactly this name is up."""
        return self._find(channel) is not None

    def linkedid(self, channel_or_uniqueid: str) -> str | None:
        """The conversation that a live channel belongs to; None for a channel that is not known."""
        found = self._channels.get(channel_or_uniqueid) or self._find(channel_or_uniqueid)
        return found.linkedid if found else None

    def was_tried(self, linkedid: str, extension: str) -> bool:
        """Whether a device of this extension was already part of the conversation, while that lasts."""
        conversation = self._conversations.get(linkedid)
        return conversation is not None and not conversation.devices.isdisjoint(self.devices_of(extension))

    # -- what comes in -----------------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> None:
        """Takes one event; most are none of its business."""
        match event.event:
            case "DeviceStateChange":
                self._note_state(event)
            case "Newchannel":
                self._add(event)
            case "Newstate":
                channel = self._channels.get(event.get("Uniqueid") or "")
                if channel is not None:
                    channel.state = event.get("ChannelState") or ""
            case "Rename":
                self._rename(event.get("Uniqueid") or "", event.get("Newname") or "")
            case "Hangup":
                self._remove(event.get("Uniqueid") or "")

    def set_states(self, items: Iterable[Event]) -> None:
        """The answer to DeviceStateList."""
        self._states.clear()
        for item in items:
            self._note_state(item)

    def set_hints(self, items: Iterable[Event]) -> None:
        """The answer to ExtensionStateList."""
        found: dict[str, tuple[str, ...]] = {}
        for item in items:
            extension = item.get("Exten") or ""
            devices = tuple(part.lower() for part in (item.get("Hint") or "").partition(",")[0].split("&") if part)
            if extension and devices and (item.get("Context") == self.context or extension not in found):
                found[extension] = devices
        self._hints = found

    def set_channels(self, items: Iterable[Event]) -> None:
        """The answer to CoreShowChannels: what it does not show is gone."""
        shown = {item.get("Uniqueid") or "": item for item in items}
        for uniqueid in self._channels.keys() - shown.keys():
            self._remove(uniqueid)
        for uniqueid, item in shown.items():
            if uniqueid in self._channels:
                self._channels[uniqueid].state = item.get("ChannelState") or ""
            else:
                self._add(item)

    def forget(self) -> None:
        """The link is down."""
        for known in (self._states, self._hints, self._channels, self._by_device, self._conversations):
            known.clear()

    # -- inside ------------------------------------------------------------------------------------------------------------

    def _device_state(self, device: str) -> DeviceState:
        own = self._states.get(device, DeviceState.UNKNOWN)
        if ":" in device:  # Custom:DND and the like can keep calls away, but nobody rings there
            return own if own is DeviceState.BUSY else DeviceState.UNKNOWN
        states = [self._channels[uniqueid].state for uniqueid in self._by_device.get(device, ())]
        if any(state not in _BEING_CALLED for state in states):
            return DeviceState.BUSY
        return DeviceState.RINGING if states and own is not DeviceState.BUSY else own

    def _find(self, name: str) -> _Channel | None:
        candidates: Set[str] = self._by_device.get(_device_of(name), frozenset())
        return next((channel for uniqueid in candidates if (channel := self._channels[uniqueid]).name == name), None)

    def _note_state(self, event: Event) -> None:
        device = (event.get("Device") or "").lower()
        if device in self._states or len(self._states) < MAX_DEVICES:
            self._states[device] = _STATES.get(event.get("State") or "", DeviceState.UNKNOWN)

    def _add(self, event: Event) -> None:
        uniqueid, name = event.get("Uniqueid") or "", event.get("Channel") or ""
        if not uniqueid or uniqueid in self._channels or len(self._channels) >= MAX_CHANNELS:
            return
        device, linkedid = _device_of(name), event.get("Linkedid") or uniqueid
        self._channels[uniqueid] = _Channel(name, device, linkedid, event.get("ChannelState") or "")
        self._by_device.setdefault(device, set()).add(uniqueid)
        conversation = self._conversations.setdefault(linkedid, _Conversation())
        conversation.live.add(uniqueid)
        conversation.devices.add(device)

    def _rename(self, uniqueid: str, name: str) -> None:
        channel = self._channels.get(uniqueid)
        if channel is not None and name:
            self._leave_device(uniqueid, channel.device)
            channel.name, channel.device = name, _device_of(name)
            self._by_device.setdefault(channel.device, set()).add(uniqueid)

    def _remove(self, uniqueid: str) -> None:
        channel = self._channels.pop(uniqueid, None)
        if channel is None:
            return
        self._leave_device(uniqueid, channel.device)
        conversation = self._conversations.get(channel.linkedid)
        if conversation is not None:
            conversation.live.discard(uniqueid)
            if not conversation.live:
                del self._conversations[channel.linkedid]

    def _leave_device(self, uniqueid: str, device: str) -> None:
        on_device = self._by_device.get(device)
        if on_device is not None:
            on_device.discard(uniqueid)
            if not on_device:
                del self._by_device[device]


def _device_of(channel: str) -> str:
    """`PJSIP/150-0000001a` -> `pjsip/150`."""
    return channel.rpartition("-")[0].lower()
