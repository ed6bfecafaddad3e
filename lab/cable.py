"""A cable between two parts of the house that can be cut, and that can be bad: a relay below every protocol.

What it can do to a connection goes by toxiproxy's names: latency and jitter, bandwidth, slicer, limit_data, reset_peer, timeout (`stall`),
slow_close. Between daemon and PBX, daemon and PostgreSQL (also over its Unix socket), daemon and CRM, dialplan and FastAGI. What an HTTP
peer may do beside that (answers that are lost after the work was done, requests that come twice) is lab/faults.py.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

from lab.office import free_port

Address = int | Path  # a port of loopback, or a Unix socket
CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a cable does to what passes. Times in seconds; None or 0: not at all.

    jitter_s: up to so much more latency; bandwidth: bytes a second; slice_bytes: goes on in pieces of up to so many; limit_bytes: every
    connection is reset after about so many, in the middle of whatever it says; slow_close_s: the end of one side reaches the other so much later.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bandwidth: int | None = None
    slice_bytes: int | None = None
    limit_bytes: int | None = None
    slow_close_s: float = 0.0


NO_TROUBLE = Trouble()


class Cable:
    """Relays to `target`. `trouble` may be changed at any time and counts for what passes from then on."""

    def __init__(self, target: Address, listen: Path | None = None, seed: int = 0) -> None:
        self.trouble = NO_TROUBLE
        self.passed_bytes = 0
        self.connections = 0
        self.port = 0
        self._target = target
        self._path = listen
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    async def mend(self) -> None:
        """Listens (on the port of the first time) and lets everything pass again."""
        self._flows.set()
        self.trouble = NO_TROUBLE
        if self._server is not None:
            return
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._relay, self._path)
        else:
            self.port = self.port or free_port()
            self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Every connection is reset and new ones are refused, until `mend`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.reset()

    async def reset(self) -> None:
        """Every connection is reset; new ones are let through."""
        relays = list(self._relays)
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)

    def stall(self) -> None:
        """Nothing passes any more and nothing is closed, as with a peer that froze or a firewall that forgot; `mend` lets it all go on."""
        self._flows.clear()

    def strand(self) -> None:
        """Connections that are open stay open and dead for ever, new ones work: as after a failover without a word."""
        self.stall()
        self._flows = asyncio.Event()
        self._flows.set()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # it was on its way when the cable was cut
            writer.transport.abort()
            return
        relay = asyncio.create_task(self._carry(reader, writer, self._flows))
        self._relays.add(relay)

        def over(relay: asyncio.Task[None]) -> None:
            self._relays.discard(relay)
            if not writer.is_closing():  # it was reset before it was through to the other side
                writer.transport.abort()

        relay.add_done_callback(over)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        ends = [asyncio.create_task(self._pump(*one, flows)) for one in ((reader, far_writer), (far_reader, writer))]
        is_clean = False
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            is_clean = all(task.result() for task in done)
            if self.trouble.slow_close_s:
                await asyncio.sleep(self.trouble.slow_close_s)
        finally:
            for task in ends:
                task.cancel()
            for end in (writer, far_writer):  # before anything is waited for: a second reset may come meanwhile
                if is_clean:
                    end.close()  # what it was sent still arrives
                else:
                    end.transport.abort()
            await asyncio.gather(*ends, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection("127.0.0.1", self._target)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event) -> bool:
        """One way, until its end (True) or a reset."""
        passed, limit = 0, None
        try:
            while data := await reader.read(CHUNK_BYTES):
                trouble = self.trouble
                if trouble.limit_bytes and limit is None:
                    limit = passed + self._random.randint(1, trouble.limit_bytes)
                if trouble.latency_s or trouble.jitter_s:
                    await asyncio.sleep(trouble.latency_s + self._random.uniform(0, trouble.jitter_s))
                for piece in self._pieces(data, trouble.slice_bytes):
                    if trouble.bandwidth:
                        await asyncio.sleep(len(piece) / trouble.bandwidth)
                    await flows.wait()
                    is_over = trouble.limit_bytes is not None and limit is not None and passed + len(piece) >= limit
                    writer.write(piece[: limit - passed] if is_over and limit is not None else piece)
                    await writer.drain()
                    if is_over:
                        return False
                    passed += len(piece)
                    self.passed_bytes += len(piece)
        except OSError:
            return False
        return True

    def _pieces(self, data: bytes, most: int | None) -> list[bytes]:
        if not most:
            return [data]
        pieces, at = [], 0
        while at < len(data):
            size = self._random.randint(1, most)
            pieces.append(data[at : at + size])
            at += size
        return pieces
