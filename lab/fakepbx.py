"""A PBX that can only remember: a manager port that plays recorded bytes. For machines without root, and for faults.

It never invents events: what it sends besides answers is a recording of a real Asterisk. An Originate is heard and answered, and
rings nowhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from daemon.ami.wire import Frame, FrameReader

QUEUED = "Originate successfully queued"
BANNER = b"Asterisk Call Manager/11.0.0\r\n"


@dataclass
class FakePbx:
    """One manager port on loopback. `login`: accept, refuse, in_use or silent. `answers`: False, and it only listens.

    `originate`: what an Originate is answered with; "silent": nothing, "drop": the connection goes instead, and the channel lives. `heard_at`: when, by
    time.perf_counter(), the bytes of each Originate came.
    """

    username: str = "vochid"
    secret: str = field(default_factory=lambda: secrets.token_hex(8))
    login: str = "accept"
    boots: bool = False  # says FullyBooted after the login
    clock_s: float | None = None  # how wrong its clock is; None: it stands at 0
    actions: tuple[str, ...] = ()  # what ListCommands allows
    md5: bool = True
    answers: bool = True
    boot: tuple[str, str] = ("2026-11-21", "08:00:00")
    channels: list[str] = field(default_factory=list)
    devices: dict[str, str] = field(default_factory=dict)  # device -> state, as DeviceStateList tells them
    heard: list[Frame] = field(default_factory=list)
    originate: str = QUEUED
    heard_at: list[float] = field(default_factory=list)
    logins: int = 0
    accepted: int = 0  # of these
    port: int = 0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.connected = asyncio.Event()
        self.looked_at = asyncio.Event()  # whoever logged in last has asked what lives and got its answer: what is sent from now on, it hears as news

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.drop()
        await asyncio.sleep(0)

    @property
    def connections(self) -> set[asyncio.StreamWriter]:
        """Everybody who is logged in."""
        return self._writers

    @property
    def originates(self) -> list[Frame]:
        """Every Originate that came, in order."""
        return [frame for frame in self.heard if frame.get("Action") == "Originate"]

    def drop(self) -> None:
        """Resets every connection."""
        self.connected.clear()
        for writer in list(self._writers):
            writer.transport.abort()

    def hang_up(self) -> None:
        """Closes every connection once what was sent has left."""
        self.connected.clear()
        for writer in list(self._writers):
            writer.close()

    def send(self, data: bytes) -> None:
        """Sends raw bytes to everybody who is logged in."""
        for writer in self._writers:
            writer.write(data)

    async def play(self, trace: Path, *, speed: float = 1.0) -> None:
        """Plays a recording with its own pauses, `speed` times as fast."""
        data = trace.read_bytes()
        chunks = json.loads(trace.with_name(trace.name + ".json").read_bytes())["chunks"]
        ends = [offset for offset, _ in chunks[1:]] + [len(data)]
        before = chunks[0][1]
        for (offset, at), end in zip(chunks, ends, strict=True):
            await asyncio.sleep(max(0.0, at - before) / speed)
            before = at
            self.send(data[offset:end])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames, challenge = FrameReader(), str(secrets.randbelow(10**9))
        writer.write(BANNER)
        try:
            while data := await reader.read(65_536):
                for frame in frames.feed(data):
                    if isinstance(frame, Frame):
                        self.heard.append(frame)
                        if self.answers and not await self._answer(frame, writer, challenge):
                            return
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, frame: Frame, writer: asyncio.StreamWriter, challenge: str) -> bool:
        action, action_id = frame.get("Action"), frame.get("ActionID") or ""
        match action:
            case "Challenge" if self.md5:
                self._reply(writer, action_id, [("Response", "Success"), ("Challenge", challenge)])
            case "Login":
                return await self._login(frame, writer, challenge, action_id)
            case "Ping":
                self._reply(
                    writer,
                    action_id,
                    [("Response", "Success"), ("Ping", "Pong"), ("Timestamp", "0" if self.clock_s is None else f"{time.time() + self.clock_s:.6f}")],
                )
            case "ListCommands" if self.actions:
                self._reply(writer, action_id, [("Response", "Success"), *((action, "(allowed)") for action in self.actions)])
            case "CoreStatus":
                self._reply(writer, action_id, [("Response", "Success"), ("CoreStartupDate", self.boot[0]), ("CoreStartupTime", self.boot[1])])
            case "CoreShowChannels":
                self._reply(writer, action_id, [("Response", "Success"), ("EventList", "start")])
                for uniqueid in self.channels:
                    self._reply(writer, action_id, [("Event", "CoreShowChannel"), ("Uniqueid", uniqueid), ("Linkedid", self.channels[0])])
                self._reply(writer, action_id, [("Event", "CoreShowChannelsComplete"), ("EventList", "Complete"), ("ListItems", str(len(self.channels)))])
                self.looked_at.set()
            case "Originate":
                self.heard_at.append(time.perf_counter())
                if self.originate == "drop":
                    self.channels = [frame.get("ChannelId") or ""]
                    self.drop()
                elif self.originate != "silent":
                    response = "Success" if self.originate == QUEUED else "Error"
                    self._reply(writer, action_id, [("Response", response), ("Message", self.originate)])
            case "DeviceStateList":
                items = [[("Event", "DeviceStateChange"), ("Device", device), ("State", state)] for device, state in self.devices.items()]
                self._list(writer, action_id, items, "DeviceStateListComplete")
            case "ExtensionStateList":
                self._list(writer, action_id, [], "ExtensionStateListComplete")
            case "Redirect":
                self._reply(writer, action_id, [("Response", "Success"), ("Message", "Redirect successful")])
            case "Logoff":
                self._reply(writer, action_id, [("Response", "Goodbye")])
                return False
            case _:
                self._reply(writer, action_id, [("Response", "Error"), ("Message", "Invalid/unknown command")])
        return True

    def _list(self, writer: asyncio.StreamWriter, action_id: str, items: list[list[tuple[str, str]]], end: str) -> None:
        for headers in ([("Response", "Success"), ("EventList", "start")], *items, [("Event", end), ("EventList", "Complete"), ("ListItems", str(len(items)))]):
            self._reply(writer, action_id, headers)

    async def _login(self, frame: Frame, writer: asyncio.StreamWriter, challenge: str, action_id: str) -> bool:
        self.logins += 1
        if self.login == "silent":
            return True
        key = hashlib.md5((challenge + self.secret).encode(), usedforsecurity=False).hexdigest()
        good = frame.get("Username") == self.username and (frame.get("Key") == key or frame.get("Secret") == self.secret)
        if self.login == "in_use" or self.login == "refuse" or not good:
            message = "Login Already In Use" if self.login == "in_use" else "Authentication failed"
            self._reply(writer, action_id, [("Response", "Error"), ("Message", message)])
            await writer.drain()
            writer.close()
            return False
        self._reply(writer, action_id, [("Response", "Success"), ("Message", "Authentication accepted")])
        self._writers.add(writer)
        self.accepted += 1
        self.looked_at.clear()
        self.connected.set()
        if self.boots:
            writer.write(b"Event: FullyBooted\r\nPrivilege: system,all\r\nStatus: Fully Booted\r\n\r\n")
        return True

    def _reply(self, writer: asyncio.StreamWriter, action_id: str, headers: Iterable[tuple[str, str]]) -> None:
        lines = [*headers]
        lines.insert(1, ("ActionID", action_id))
        writer.write("".join(f"{key}: {value}\r\n" for key, value in lines).encode() + b"\r\n")
