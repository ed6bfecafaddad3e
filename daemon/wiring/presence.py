"""Who is where: phones and channels, on whichever daemon their PBX is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from daemon.ami.devices import Devices
from daemon.ami.watch import DeviceWatch
from daemon.model.device import DeviceState

_FIRST = (DeviceState.BUSY, DeviceState.RINGING, DeviceState.FREE, DeviceState.AWAY)
PRESENCE, DEVICES, CHANNEL = "presence", "devices", "channel"
DEVICES_AT_ONCE = 150  # extensions in one question: what fits into a message
DEVICES_WITHIN_S = 0.5
CHANNEL_WITHIN_S = 0.5


class Elsewhere(Protocol):
    """The other daemons, for what they know of the PBXs they read."""

    def read_elsewhere(self, enterprise: str) -> set[str]:
        """The enterprise's PBXs that are not read here and that another daemon may read."""

    async def ask(self, kind: str, body: Mapping[str, Any], is_enough: Callable[[list[Mapping[str, Any]]], bool], within_s: float) -> list[Mapping[str, Any]]:
        """What they answer, until it is enough or the time is up."""

    def answer(self, kind: str, how: Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any] | None]]) -> None:
        """How such questions are answered here."""


@dataclass(frozen=True, slots=True)
class Around:
    """What is known around a call, once: the conversation it belongs to, the extension's state, whether it was part of that conversation."""

    conversation: str | None
    found: DeviceState
    tried: bool

    def state(self, extension: str) -> DeviceState:
        return self.found

    def was_tried(self, extension: str) -> bool:
        return self.tried


class PbxPresence:
    """Presence from the PBXs that this process reads, and from what the other daemons tell of theirs."""

    def __init__(self, watches: Mapping[tuple[str, str], DeviceWatch], elsewhere: Elsewhere) -> None:
        self._watches = watches
        self._elsewhere = elsewhere
        elsewhere.answer(PRESENCE, self._tell_presence)
        elsewhere.answer(DEVICES, self._tell_devices)
        elsewhere.answer(CHANNEL, self._tell_channel)

    async def at(self, enterprise: str, channel: str, uniqueid: str, extension: str, within_s: float) -> Around:
        here, missing = self._at(enterprise, channel, uniqueid, extension), self._elsewhere.read_elsewhere(enterprise)
        if here.conversation is not None or not missing or within_s <= 0:
            return here
        body = {"enterprise": enterprise, "channel": channel, "uniqueid": uniqueid, "extension": extension}

        def is_enough(answers: list[Mapping[str, Any]]) -> bool:
            return any(answer["conversation"] for answer in answers) or missing <= {pbx for answer in answers for pbx in answer["pbxs"]}

        answers = await self._elsewhere.ask(PRESENCE, body, is_enough, within_s)
        arounds = [Around(answer["conversation"], DeviceState(answer["state"]), bool(answer["tried"])) for answer in answers]
        return next((around for around in arounds if around.conversation), Around(None, _strongest([here.found, *(a.found for a in arounds)]), False))

    async def states(self, enterprise: str, extensions: Sequence[str]) -> dict[str, DeviceState]:
        """The extensions' states, on whichever PBX."""
        found = {extension: self._state(enterprise, extension) for extension in extensions}
        missing = self._elsewhere.read_elsewhere(enterprise)
        for first in range(0, len(extensions) if missing else 0, DEVICES_AT_ONCE):
            body = {"enterprise": enterprise, "extensions": list(extensions[first : first + DEVICES_AT_ONCE])}
            answers = await self._elsewhere.ask(DEVICES, body, lambda told: missing <= {p for one in told for p in one["pbxs"]}, DEVICES_WITHIN_S)
            for answer in answers:
                for extension, state in answer["states"].items():
                    if extension in found:
                        found[extension] = _strongest([found[extension], DeviceState(state)])
        return found

    async def pbx_with(self, enterprise: str, channel: str) -> str | None:
        """The PBX on which a channel of exactly this name is up; None when nobody knows it."""
        here = next((pbx for (owner, pbx), watch in self._watches.items() if owner == enterprise and watch.devices.is_live(channel)), None)
        if here is not None or not self._elsewhere.read_elsewhere(enterprise):
            return here
        answers = await self._elsewhere.ask(CHANNEL, {"enterprise": enterprise, "channel": channel}, bool, CHANNEL_WITHIN_S)
        return str(answers[0]["pbx"]) if answers else None

    # -- inside ------------------------------------------------------------------------------------------------------------------

    def _devices(self, enterprise: str) -> list[Devices]:
        return [watch.devices for (owner, _), watch in self._watches.items() if owner == enterprise]

    def _pbxs(self, enterprise: str) -> list[str]:
        return [pbx for owner, pbx in self._watches if owner == enterprise]

    def _state(self, enterprise: str, extension: str) -> DeviceState:
        return _strongest([devices.state(extension) for devices in self._devices(enterprise)])

    def _at(self, enterprise: str, channel: str, uniqueid: str, extension: str) -> Around:
        """The PBX with the call on it counts alone."""
        for devices in self._devices(enterprise):
            for named in filter(None, (uniqueid, channel)):
                if (conversation := devices.linkedid(named)) is not None:
                    return Around(conversation, devices.state(extension), devices.was_tried(conversation, extension))
        return Around(None, self._state(enterprise, extension), False)

    async def _tell_presence(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if not (pbxs := self._pbxs(body["enterprise"])):
            return None
        around = self._at(body["enterprise"], body["channel"], body["uniqueid"], body["extension"])
        return {"pbxs": pbxs, "conversation": around.conversation, "state": str(around.found), "tried": around.tried}

    async def _tell_devices(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if not (pbxs := self._pbxs(body["enterprise"])):
            return None
        return {"pbxs": pbxs, "states": {extension: str(self._state(body["enterprise"], extension)) for extension in body["extensions"]}}

    async def _tell_channel(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        enterprise, channel = body["enterprise"], body["channel"]
        live = next((pbx for (owner, pbx), watch in self._watches.items() if owner == enterprise and watch.devices.is_live(channel)), None)
        return {"pbx": live} if live is not None else None


def _strongest(states: Iterable[DeviceState]) -> DeviceState:
    """Busy on one PBX is busy."""
    among = set(states)
    return next((state for state in _FIRST if state in among), DeviceState.UNKNOWN)
