"""Steers the world: tells phones how to behave, places calls from them, hangs up, presses keys."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field

from daemon.ami.actions import Action, Headers
from daemon.ami.link import Link, LinkTarget
from daemon.ami.session import Answer
from daemon.ami.wire import Frame, Skipped
from daemon.supervisor import Supervisor
from lab.office import Office


@dataclass(frozen=True)
class _Steer(Action):
    values: tuple[tuple[str, str], ...]

    def headers(self) -> Headers:
        return list(self.values)


def steer(action: str, *values: tuple[str, str]) -> Action:
    """Any manager action: for the lab's own Asterisk, whose user may do everything."""
    named: Action = type(action, (_Steer,), {"name": action})(values)
    return named


@dataclass
class Placed:
    """A call that the world placed: `events` tells what became of it on the phone's side."""

    phones: Phones
    channel_id: str
    channel: str = ""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    cause: int | None = None

    async def hangup(self) -> None:
        """The caller puts the phone down."""
        await self.phones.do("Hangup", ("Channel", self.channel or self.channel_id), ("Cause", "16"))

    async def press(self, digits: str) -> None:
        """The caller presses keys."""
        for digit in digits:
            await self.phones.do("PlayDTMF", ("Channel", self.channel), ("Digit", digit))
            await asyncio.sleep(0.2)


class Phones:
    """All user agents of an office's world."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._supervisor = Supervisor("lab")
        target = LinkTarget("127.0.0.1", office.ports.world_ami, "lab", office.world_secret)
        self._link = Link("world", target, self, asyncio.Semaphore(1))
        self._ready = asyncio.Event()
        self._placed: dict[str, Placed] = {}
        self._channels: dict[str, str] = {}
        self._callees: dict[str, list[str]] = {}
        self._up: set[str] = set()  # channels that answered
        self._changed = asyncio.Event()
        self.shown: dict[str, list[str]] = {}  # the callers that each called phone showed, one for every time it rang

    async def __aenter__(self) -> Phones:
        self._supervisor.serve("world", self._link.run)
        await asyncio.wait_for(self._ready.wait(), 60)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop()

    async def do(self, action: str, *values: tuple[str, str]) -> Answer:
        """Sends one manager action to the world."""
        return await self._link.request(steer(action, *values))

    async def behave(self, number: str, how: str, *, delay_s: float = 0.3, talk_s: float = 600, arg: str = "") -> None:
        """What `number` does when it is called: answer, ring, progress, hangup or decline (`arg`: cause), forward (`arg`: to)."""
        digits = "".join(filter(str.isdigit, number))
        if how == "forward":
            arg = f"sip:{arg}@127.0.0.1:{self._office.ports.pbx_sip}"
        for family, value in (("do", how), ("delay", str(delay_s)), ("talk", str(talk_s)), ("arg", arg or "0")):
            await self.do("DBPut", ("Family", family), ("Key", digits), ("Val", value))

    async def call(self, to: str, *, phone: str | None = None, caller: str = "", caller_name: str = "", timeout_s: float = 120) -> Placed:
        """Places a call to `to` at the PBX, from `phone` or from an outside `caller`."""
        channel_id = f"lab-{secrets.token_hex(6)}"
        placed = self._placed[channel_id] = Placed(self, channel_id)
        endpoint = f"phone{phone}" if phone else "office"
        uri = f"sip:{to}@127.0.0.1:{self._office.ports.pbx_sip}"
        answer = await self.do(
            "Originate", ("Channel", f"PJSIP/{endpoint}/{uri}"), ("Context", "talk"), ("Exten", "s"), ("Priority", "1"),
            ("CallerID", f'"{caller_name}" <{caller or phone}>'), ("Timeout", str(int(timeout_s * 1000))),
            ("Async", "true"), ("ChannelId", channel_id),
        )  # fmt: skip
        if not answer.ok:
            raise RuntimeError(f"the lab could not place a call: {answer.message}")
        return placed

    async def hangup_callee(self, number: str) -> None:
        """The called `number` puts the phone down (or stops ringing)."""
        for channel in list(self._callees.get("".join(filter(str.isdigit, number)), [])):
            await self.do("Hangup", ("Channel", channel), ("Cause", "16"))

    async def press_callee(self, number: str, digits: str) -> None:
        """The called `number` presses keys."""
        [channel, *_] = self._callees["".join(filter(str.isdigit, number))]
        for digit in digits:
            await self.do("PlayDTMF", ("Channel", channel), ("Digit", digit), ("Duration", "120"))
            await asyncio.sleep(0.2)

    async def answered(self, number: str, timeout_s: float = 30) -> None:
        """Until the called `number` is off the hook. Raises TimeoutError."""
        digits = "".join(filter(str.isdigit, number))
        async with asyncio.timeout(timeout_s):
            while self._up.isdisjoint(self._callees.get(digits, [])):
                self._changed.clear()
                await self._changed.wait()

    async def rings(self, number: str, timeout_s: float = 30) -> None:
        """Until somebody calls `number`. Raises TimeoutError."""
        digits = "".join(filter(str.isdigit, number))
        async with asyncio.timeout(timeout_s):
            while not self._callees.get(digits):
                self._changed.clear()
                await self._changed.wait()

    async def pick_up(self, number: str) -> None:
        """The called `number`, which rings, answers now."""
        [channel, *_] = self._callees["".join(filter(str.isdigit, number))]
        await self.do("Redirect", ("Channel", channel), ("Context", "talk"), ("Exten", "s"), ("Priority", "1"))

    # -- events of the world -------------------------------------------------------------------------------------

    def on_ready(self, link: Link) -> None:
        self._ready.set()

    def on_event(self, frame: Frame, at: float) -> None:
        unique, channel = frame.get("Uniqueid") or "", frame.get("Channel") or ""
        placed = self._placed.get(unique)
        match frame.event:
            case "Newchannel":
                if placed:
                    placed.channel = channel
                else:
                    self._channels[unique] = digits = "".join(filter(str.isdigit, frame.get("Exten") or ""))
                    self._callees.setdefault(digits, []).append(channel)
                    self._changed.set()
                    self.shown.setdefault(digits, []).append(frame.get("CallerIDNum") or "")
            case "Newstate" if frame.get("ChannelState") == "6":
                self._up.add(channel)
                self._changed.set()
                if placed:
                    placed.answered.set()
            case "Hangup":
                self._up.discard(channel)
                if placed:
                    placed.cause = int(frame.get("Cause") or 0)
                    placed.ended.set()
                elif unique in self._channels:
                    self._callees[self._channels.pop(unique)].remove(channel)
            case "OriginateResponse" if frame.get("Response") == "Failure":
                failed = self._placed.get(unique)
                if failed:
                    failed.ended.set()

    def on_unseen(self, skipped: Skipped) -> None: ...

    def on_down(self, reason: str) -> None: ...
