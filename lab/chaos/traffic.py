"""PBXs whose calls are all known: what was said of each, when, whether anybody listened, and what its CDR says.

A call is a recording of a real Asterisk with identities of its own. The PBX answers what lives as a real one would, so that a daemon
that comes back finds the calls that go on.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from daemon.ami.wire import Frame, FrameReader
from lab.fakepbx import FakePbx
from lab.office import REPOSITORY

GOLDEN = REPOSITORY / "tests/golden"
KINDS = ("inbound-answered", "inbound-answered", "inbound-busy", "outbound-answered", "ring-group")
FIRST_NUMBER = 1_000_000  # of seven digits: +375 29 1000000
_UNIQUEID = re.compile(rb"(\d{10})\.(\d+)")
_CHANNEL = re.compile(rb"(PJSIP/[a-z0-9]+-)([0-9a-f]{8})")
_BRIDGE = re.compile(rb"(Bridge[A-Za-z]*: )([0-9a-f-]{36})")
_CUSTOMER = b"375296254070"


@dataclass
class MadeCall:
    """One call as the generator knows it. Times are Unix seconds; `ended` None: the PBX was switched off in the middle of it.

    heard: how many of its events reached a manager that was logged in; last_heard: whether its end did.
    """

    phone: str
    pbx: str
    kind: str
    uniqueid: str
    began: float
    ended: float | None = None
    events: int = 0
    heard: int = 0
    last_heard: bool = False


@dataclass
class _Live:
    """A channel as CoreShowChannels tells of it."""

    headers: dict[str, str]
    since: float = field(default_factory=time.time)


class LivingPbx(FakePbx):
    """A manager port that knows what lives. `made`: every call, by the customer's number."""

    def __init__(self, name: str, first_number: int, master_csv: Path | None = None) -> None:
        super().__init__()
        self.name = name
        self.made: dict[str, MadeCall] = {}
        self.lives: dict[str, _Live] = {}
        self.offline: list[tuple[float, float]] = []  # when nobody was logged in
        self._next = first_number
        self._frames = FrameReader()
        self._csv = master_csv
        self._boots = 0
        self._is_up = asyncio.Event()
        self._is_up.set()

    async def call(self, kind: str, speed: float = 1.0) -> MadeCall:
        """Makes one call from its beginning to its end, `speed` times as fast as it was recorded."""
        boot, number = self._boots, self._next
        self._next += 1
        pieces, epoch = _pieces(kind), int(time.time())
        first = _UNIQUEID.search(pieces[0][1])
        assert first is not None
        made = MadeCall(f"+37529{number:07d}", self.name, kind, f"{epoch}.{number}{int(first[2]) % 100:02d}", time.time())
        self.made[made.phone] = made
        before = pieces[0][0]
        for at, piece in pieces:
            await asyncio.sleep(max(0.0, at - before) / speed)
            before = at
            if boot != self._boots or not self._is_up.is_set():
                return made
            self._say(made, _renamed(piece, number, epoch))
        made.ended = time.time()
        if self._csv is not None:
            with self._csv.open("a") as master:
                master.write(_cdr(made, number))
        return made

    async def reboot(self, away_s: float) -> None:
        """Switched off in the middle of everything, and on again."""
        self._boots += 1
        self._is_up.clear()
        self.lives.clear()
        port = self.port
        await self.stop()
        await asyncio.sleep(away_s)
        self.port = port
        self.boot = ("2026-11-21", f"{8 + self._boots // 3600:02d}:{self._boots // 60 % 60:02d}:{self._boots % 60:02d}")
        await self.start()
        self._is_up.set()

    @property
    def is_heard(self) -> bool:
        """Whether somebody is logged in now."""
        return bool(self._writers)

    def _say(self, made: MadeCall, piece: bytes) -> None:
        frames = [frame for frame in self._frames.feed(piece) if isinstance(frame, Frame)]
        for frame in frames:
            self._follow(frame)
        made.events += len(frames)
        made.last_heard = self.is_heard
        if self.is_heard:
            made.heard += len(frames)
        self.send(piece)

    def _follow(self, frame: Frame) -> None:
        uniqueid = frame.get("Uniqueid") or ""
        match frame.event:
            case "Newchannel":
                is_called = frame.get("Context") != "from-trunk" and uniqueid != frame.get("Linkedid")
                shown = {key: frame.get(key) or "" for key in ("Channel", "Uniqueid", "Linkedid", "Context", "Exten", "ChannelState", "CallerIDNum")}
                dialled = {"Application": "AppDial", "ApplicationData": "(Outgoing Line)"}
                dialling = {"Application": "Dial", "ApplicationData": "PJSIP/150&PJSIP/151,30" if frame.get("Context") == "from-trunk" else "PJSIP/x@provider"}
                self.lives[uniqueid] = _Live({**shown, **(dialled if is_called else dialling)})
            case "Newstate" | "NewCallerid" | "NewConnectedLine" if uniqueid in self.lives:
                self.lives[uniqueid].headers.update({key: frame.get(key) or "" for key in ("ChannelState", "CallerIDNum", "Exten", "Context")})
            case "BridgeEnter" if uniqueid in self.lives:
                self.lives[uniqueid].headers["BridgeId"] = frame.get("BridgeUniqueid") or ""
            case "BridgeLeave" if uniqueid in self.lives:
                self.lives[uniqueid].headers.pop("BridgeId", None)
            case "Hangup":
                self.lives.pop(uniqueid, None)

    async def _answer(self, frame: Frame, writer: asyncio.StreamWriter, challenge: str) -> bool:
        if frame.get("Action") != "CoreShowChannels":
            return await super()._answer(frame, writer, challenge)
        items = [[("Event", "CoreShowChannel"), *live.headers.items(), ("Duration", _hms(time.time() - live.since))] for live in self.lives.values()]
        self._list(writer, frame.get("ActionID") or "", items, "CoreShowChannelsComplete")
        return True


async def traffic(pbxs: Iterable[LivingPbx], rate: float, stop: asyncio.Event, seed: int, speed: float = 1.0) -> None:
    """Makes about `rate` calls a second and PBX until `stop`, and lets those that have begun end."""
    choice, underway = random.Random(seed), set[asyncio.Task[MadeCall]]()
    while not stop.is_set():
        for pbx in pbxs:
            if pbx._is_up.is_set():
                task = asyncio.create_task(pbx.call(choice.choice(KINDS), speed * choice.uniform(0.5, 2.0)))
                underway.add(task)
                task.add_done_callback(underway.discard)
        try:
            await asyncio.wait_for(stop.wait(), choice.expovariate(rate))
        except TimeoutError:
            continue
    await asyncio.gather(*underway)


@cache
def _pieces(kind: str) -> list[tuple[float, bytes]]:
    """A recording as (time, bytes), cut between events."""
    data = (GOLDEN / kind / "asterisk-22.ami").read_bytes()
    chunks = json.loads((GOLDEN / kind / "asterisk-22.ami.json").read_bytes())["chunks"]
    found: list[tuple[float, bytes]] = []
    for event in data.split(b"\r\n\r\n")[:-1]:
        offset = data.index(event)
        found.append((max(at for start, at in chunks if start <= offset), event + b"\r\n\r\n"))
    return found


def _renamed(piece: bytes, number: int, epoch: int) -> bytes:
    """The same event with identities of this call alone."""
    piece = _UNIQUEID.sub(lambda m: b"%d.%d%02d" % (epoch, number, int(m[2]) % 100), piece)
    piece = _CHANNEL.sub(lambda m: m[1] + b"%08x" % ((number << 6) + (int(m[2], 16) & 63)), piece)
    piece = _BRIDGE.sub(lambda m: m[1] + b"%08x" % number + m[2][8:], piece)
    return piece.replace(_CUSTOMER, b"37529%07d" % number)


def _hms(seconds: float) -> str:
    whole = max(0, int(seconds))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _cdr(made: MadeCall, number: int) -> str:
    """The row that cdr_csv writes at the call's end, in UTC."""
    assert made.ended is not None
    start, end = (datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%d %H:%M:%S") for at in (made.began, made.ended))
    trunk, phone = f"PJSIP/provider-{number << 6:08x}", f"PJSIP/151-{(number << 6) + 1:08x}"
    is_answered = made.kind != "inbound-busy"
    out = io.StringIO()
    ends = (start, start if is_answered else "", end, int(made.ended) - int(made.began), int(made.ended) - int(made.began) if is_answered else 0)
    how = ("ANSWERED" if is_answered else "BUSY", "DOCUMENTATION", made.uniqueid, "", "", made.uniqueid, number)
    if made.kind.startswith("outbound"):
        who = ("", "+375171112233", made.phone[1:], "vochid-trunk", "", phone, trunk, "Dial", f"PJSIP/{made.phone[1:]}@provider,60")
    else:
        who = ("", made.phone, "+375171112230", "from-trunk", "", trunk, phone, "Dial", "PJSIP/151,3")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerow([*who, *ends, *how])
    return out.getvalue()
