"""One daemon and many PBXs, an enterprise each: start, connecting, idling, memory, one PBX that floods, stop.

The PBXs are sockets of this process that answer as a manager port does and play recorded calls; the daemon is a process of its own, of which
CPU and memory are read. With TLS as without.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.event_to_popup import TRACE, _Call, _Crm, _document
from daemon.ami.wire import Frame
from lab.fakepbx import FakePbx
from lab.fleet import Usage, fill, self_signed, serving_tls
from lab.run import DaemonProcess, short_directory

CRMS = 20  # accounts: each has a rate limit of its own
CALLS_PER_S = 10
FLOOD_EVENTS, FLOOD_EVERY_S = 50, 0.01  # 5,000 events a second of one PBX
NOISE = b"Event: VarSet\r\nPrivilege: dialplan,all\r\nChannel: PJSIP/loop-00000001\r\nUniqueid: 1.1\r\nLinkedid: 1.1\r\nVariable: I\r\nValue: 1\r\n\r\n"
CONNECT_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Wide:
    """Of one fleet. Seconds from the daemon's start to ready and from there to the last PBX's login; how many logged in at once at most;
    CPU while idle in percent of a core; memory of the daemon; popups' latencies in ms, sorted, alone and beside a flood; seconds to stop."""

    ready_s: float
    connected_s: float
    at_once: int
    idle_percent: float
    memory_kb: int
    alone_ms: list[float]
    beside_ms: list[float]
    lost: int
    stop_s: float


class _Doors:
    """How many connections were open before their login, at most."""

    now = most = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            self.now -= 1


class _Pbx(FakePbx):
    doors: _Doors

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._entering = self.doors.open()
        self._entering.__enter__()
        await super()._serve(reader, writer)

    async def _login(self, frame: Frame, writer: asyncio.StreamWriter, challenge: str, action_id: str) -> bool:
        self._entering.__exit__(None, None, None)
        return await super()._login(frame, writer, challenge, action_id)


async def measure(count: int, *, tls: bool, idle_s: float, calls_s: float) -> Wide:
    """`count` PBXs; idle for `idle_s`, then calls for `calls_s` alone and as long beside a flood (0: no calls)."""
    popups: dict[str, float] = {}
    loop = asyncio.get_running_loop()
    directory = short_directory("vochid-bench-")
    servers = [await loop.create_server(lambda: _Crm(popups), "127.0.0.1", 0) for _ in range(CRMS)]
    certificate, key, fingerprint = self_signed(directory)
    doors, daemon = _Doors(), DaemonProcess(directory)
    pbxs = [_Pbx(tls=serving_tls(certificate, key) if tls else None) for _ in range(count)]
    try:
        for pbx in pbxs:
            pbx.doors = doors
            await pbx.start()
        await fill(directory, [_wide_document(n, pbx, servers, fingerprint if tls else None) for n, pbx in enumerate(pbxs)])
        began = time.perf_counter()
        await daemon.start()
        ready = time.perf_counter()
        await asyncio.wait_for(asyncio.gather(*(pbx.connected.wait() for pbx in pbxs)), CONNECT_DEADLINE_S)
        connected = time.perf_counter()
        assert daemon.process is not None
        idle = await _idle(daemon.process.pid, idle_s)
        memory_kb = Usage.of(daemon.process.pid).memory_kb
        calls = _Calls(pbxs[1:] or pbxs, popups)
        alone = await calls.play(calls_s)
        beside = await _flooded(pbxs[0], calls, calls_s)
        stopping = time.perf_counter()
        await daemon.stop(keep=True)
        stop_s = time.perf_counter() - stopping
        return Wide(ready - began, connected - ready, doors.most, idle, memory_kb, alone, beside, calls.sent - len(alone) - len(beside), stop_s)
    finally:
        await daemon.stop()
        for pbx in pbxs:
            await pbx.stop()
        for server in servers:
            server.close()
        shutil.rmtree(directory, ignore_errors=True)


def _wide_document(n: int, pbx: FakePbx, servers: list[asyncio.Server], fingerprint: str | None) -> dict[str, Any]:
    document: dict[str, Any] = _document(f"{n:04d}", pbx, servers[n % CRMS].sockets[0].getsockname()[1])
    document["pbxs"][0] |= {"tls": fingerprint is not None, "tls_fingerprint": fingerprint}
    return document


async def _idle(pid: int, seconds: float) -> float:
    """Percent of a core, from the second after the last login on: by then all have been looked at."""
    if seconds == 0:
        return 0.0
    await asyncio.sleep(5)
    before, at = Usage.of(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    return (Usage.of(pid).cpu_s - before.cpu_s) / (time.perf_counter() - at) * 100


class _Calls:
    """Plays one recorded call after the other, each on the next PBX."""

    def __init__(self, pbxs: list[_Pbx], popups: dict[str, float]) -> None:
        self._pbxs = pbxs
        self._popups = popups
        self._call = _Call.read(TRACE)
        self.sent = 0

    async def play(self, seconds: float) -> list[float]:
        """The latencies of the popups of these seconds, in ms, sorted."""
        sent: dict[str, float] = {}
        loop, started = asyncio.get_running_loop(), time.perf_counter()
        for n in range(int(seconds * CALLS_PER_S)):
            await asyncio.sleep(max(0.0, started + n / CALLS_PER_S - time.perf_counter()))
            phone, before, after = self._call.numbered(self.sent)
            pbx = self._pbxs[self.sent % len(self._pbxs)]
            self.sent += 1
            sent[phone] = time.perf_counter()
            pbx.send(before)
            loop.call_later(0.5, pbx.send, after)
        await asyncio.sleep(3 if seconds else 0)
        return sorted((self._popups[phone] - at) * 1000 for phone, at in sent.items() if phone in self._popups)


async def _flooded(flooding: _Pbx, calls: _Calls, seconds: float) -> list[float]:
    async def flood() -> None:
        while True:
            flooding.send(NOISE * FLOOD_EVENTS)
            await asyncio.sleep(FLOOD_EVERY_S)

    storm = asyncio.ensure_future(flood())
    try:
        return await calls.play(seconds)
    finally:
        storm.cancel()
        await asyncio.gather(storm, return_exceptions=True)
