"""Latency of the way PBX -> CRM, over real sockets: a recorded call's events leave a PBX's socket, its popup reaches a CRM's.

PBXs replay recorded bytes with identities of their own for every call; the CRMs note when each popup's bytes were
read. Sender and receiver are one process and one clock.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from lab.fakepbx import FakePbx
from lab.fleet import Usage
from lab.office import REPOSITORY
from lab.run import DaemonProcess, short_directory

ENTERPRISES = 10
TRACE = REPOSITORY / "tests/golden/inbound-answered/asterisk-22.ami"
SETTLE_S = 5.0


@dataclass(frozen=True)
class Result:
    """Latencies in ms, sorted; calls that were sent; popups that never came; the daemon's CPU per call, everything that follows it too."""

    latencies_ms: list[float]
    calls: int
    cpu_ms_per_call: float = 0.0

    @property
    def lost(self) -> int:
        return self.calls - len(self.latencies_ms)

    @property
    def percentiles(self) -> tuple[float, float, float, float]:
        values = self.latencies_ms or [float("nan")]
        return values[len(values) // 2], values[int(len(values) * 0.9)], values[int(len(values) * 0.99)], values[-1]


class _Crm(asyncio.Protocol):
    """The smallest HTTP server that answers RetailCRM's two requests: its own cost must not be measured."""

    def __init__(self, popups: dict[str, float]) -> None:
        self._popups = popups
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        at = time.perf_counter()
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = int(re.search(rb"(?i)content-length: (\d+)", self._buffer[:end])[1])  # type: ignore[index]
            if len(self._buffer) < end + 4 + length:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
            self._note(body, at)
            answer = b'{"success": true, "processedCallsCount": 50}'
            assert self._transport is not None
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))

    def _note(self, body: bytes, at: float) -> None:
        fields = parse_qs(body.decode())
        if "event" in fields:
            event = json.loads(fields["event"][0])
            if event["type"] == "in":
                self._popups.setdefault(event["phone"], at)


@dataclass
class _Call:
    """One recorded call, cut at the event that makes the phone ring."""

    before: bytes
    after: bytes

    @classmethod
    def read(cls, path: Path) -> _Call:
        data = path.read_bytes()
        ring = data.index(b"\r\n\r\n", data.index(b"ChannelStateDesc: Ringing")) + 4
        return cls(data[:ring], data[ring:])

    def numbered(self, n: int) -> tuple[str, bytes, bytes]:
        """The customer's number, and both parts with identities of this call alone."""
        phone = f"37529{n:07d}"

        def change(part: bytes) -> bytes:
            part = re.sub(rb"(\d{10})\.(\d+)", rb"\g<1>.%d\g<2>" % (n + 1), part)
            part = re.sub(rb"(Bridge[A-Za-z]*: )([0-9a-f-]{36})", rb"\g<1>%d-\g<2>" % n, part)
            return part.replace(b"375296254070", phone.encode())

        return phone, change(self.before), change(self.after)


async def measure(rate: int, seconds: int, enterprises: int = ENTERPRISES) -> Result:
    """Plays `rate` calls a second for `seconds`, spread over enterprises with a CRM account each (which takes 40 requests a second)."""
    popups: dict[str, float] = {}
    sent: dict[str, float] = {}
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: _Crm(popups), "127.0.0.1", 0) for _ in range(enterprises)]
    pbxs = [FakePbx() for _ in range(enterprises)]
    daemon = DaemonProcess(short_directory("vochid-bench-"))
    try:
        await daemon.start()
        for i, (server, pbx) in enumerate(zip(servers, pbxs, strict=True)):
            await pbx.start()
            port = server.sockets[0].getsockname()[1]
            await daemon.put(_document(f"{i:04d}", pbx, port))
        await asyncio.gather(*(asyncio.wait_for(pbx.connected.wait(), 20) for pbx in pbxs))
        await asyncio.sleep(1)
        call = _Call.read(TRACE)
        assert daemon.process is not None
        used = Usage.of(daemon.process.pid).cpu_s
        started = time.perf_counter()
        for n in range(rate * seconds):
            await asyncio.sleep(max(0.0, started + n / rate - time.perf_counter()))
            phone, before, after = call.numbered(n)
            pbx = pbxs[n % enterprises]
            sent[phone] = time.perf_counter()
            pbx.send(before)
            loop.call_later(0.5, pbx.send, after)
        await asyncio.sleep(SETTLE_S)
        used = Usage.of(daemon.process.pid).cpu_s - used
    finally:
        await daemon.stop()
        for pbx in pbxs:
            await pbx.stop()
        for server in servers:
            server.close()
    return Result(sorted((popups[phone] - at) * 1000 for phone, at in sent.items() if phone in popups), len(sent), used / len(sent) * 1000)


def _document(number: str, pbx: FakePbx, crm_port: int) -> dict[str, object]:
    return {
        "number": number, "name": f"Enterprise {number}",
        "pbxs": [{"name": "main", "host": "127.0.0.1", "port": pbx.port, "secret": pbx.secret, "trunks": ["PJSIP/provider"],
                  "internal_number": "^1\\d\\d$"}],
        "integrations": {"retailcrm": {"domain": f"http://127.0.0.1:{crm_port}", "api_key": "bench-key-0123456789"}},
    }  # fmt: skip
