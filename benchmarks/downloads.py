"""Recordings from the directory source: many players at once on one daemon, over real sockets.

Every player downloads the same-sized files one after the other on a connection of its own; the first byte is timed from the request's last
byte. The players run in a process of their own, on the same cores. For comparison the same players load the same bytes from the smallest
server there is: a thread per connection that calls sendfile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import uvloop

from daemon.store.embedded import EmbeddedPostgres
from lab.run import DaemonProcess, short_directory

NUMBER = "0001"
FILES = 20


@dataclass(frozen=True)
class Result:
    """Throughput in MB/s, times to the first byte in ms (sorted), and the daemon's memory in MB before and at its highest."""

    mb_per_s: float
    first_ms: list[float]
    rss_before_mb: float = 0.0
    rss_highest_mb: float = 0.0

    def first(self, share: float) -> float:
        return self.first_ms[min(len(self.first_ms) - 1, int(len(self.first_ms) * share))]


async def measure(players: int, seconds: float, megabytes: int, pause_s: float = 0.0) -> tuple[Result, Result]:
    """The daemon, and the bare server. Every player waits `pause_s` between two files: without it, they take all that the cores give."""
    daemon = DaemonProcess(short_directory("vochid-bench-"))
    spool = daemon.data_dir / "spool"
    spool.mkdir()
    for n in range(FILES):
        (spool / f"{n}.wav").write_bytes(os.urandom(1_048_576) * megabytes)
    try:
        await daemon.start()
        source = {"source": "directory", "path": str(spool)}
        await daemon.put({"number": NUMBER, "name": "Bench", "pbxs": [{"name": "main", "host": "127.0.0.1", "recordings": source}]})
        paths = await _links(daemon)
        assert daemon.process is not None
        memory = _Memory(daemon.process.pid)
        own = await _play(daemon.http, paths, players, seconds, pause_s)
        memory.done()
        bare = _Bare(spool / "0.wav")
        other = await _play(bare.address, ["/"], players, seconds, pause_s)
        return Result(own.mb_per_s, own.first_ms, memory.before_mb, memory.highest_mb), other
    finally:
        await daemon.stop()


async def _links(daemon: DaemonProcess) -> list[str]:
    """A call of an hour ago per file, and the links that the API gives for them."""
    connection = await asyncpg.connect(EmbeddedPostgres(daemon.data_dir).url)
    ids = [str(uuid.uuid4()) for _ in range(FILES)]
    await connection.executemany(
        "insert into calls (enterprise_number, id, pbx, linkedid, direction, started_at, ended_at, wait_seconds, talk_seconds, result, missed, rang, "
        "transfers, click_to_call, consult, recordings, gap) values ($1, $2, 'main', '1.1', 'in', now() - interval '1 hour', now() - interval '1 hour', "
        "1, 1, 'answered', false, '{}', '[]', false, false, array[$3], false)",
        [(NUMBER, uuid.UUID(call), f"{n}.wav") for n, call in enumerate(ids)],
    )
    await connection.close()
    paths = []
    async with daemon.client() as api:
        for call in ids:
            paths.append((await api.get(f"/api/enterprises/{NUMBER}/calls/{call}/recordings")).json()["items"][0]["url"])
    return paths


class _Memory:
    """Watches a process's resident memory from a thread."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.before_mb = self.highest_mb = self._now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def done(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.highest_mb = max(self.highest_mb, self._now())

    def _now(self) -> float:
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class _Bare:
    """The smallest server: reads a request, answers with the file by sendfile, a thread per connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._server.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            try:
                while connection.recv(65_536):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                    connection.sendfile(file, 0)
            except OSError:
                return


async def _play(address: str, paths: list[str], players: int, seconds: float, pause_s: float) -> Result:
    command = [sys.executable, "-m", "benchmarks.downloads", address, str(players), str(seconds), str(pause_s), json.dumps(paths)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), seconds + 60)
    found = json.loads(output)
    return Result(found["mb_per_s"], sorted(found["first_ms"]))


class _Player(asyncio.BufferedProtocol):
    """Asks, counts the bytes, asks again."""

    def __init__(self, requests: list[bytes], buffer: bytearray, first_ms: list[float], pause_s: float) -> None:
        self._requests, self._buffer, self._first_ms, self._pause_s = requests, buffer, first_ms, pause_s
        self._transport: asyncio.Transport | None = None
        self._asked = 0
        self._left = 0
        self._head = b""
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def ask(self) -> None:
        assert self._transport is not None
        self._head, self._left, self._at = b"", -1, time.perf_counter()
        self._transport.write(self._requests[self._asked % len(self._requests)])
        self._asked += 1

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += nbytes
        if self._left < 0:
            self._head += bytes(self._buffer[:nbytes])
            head, found, body = self._head.partition(b"\r\n\r\n")
            if not found or not body:
                return
            self._first_ms.append((time.perf_counter() - self._at) * 1_000)
            assert b" 200 " in head[:20], head
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            self._left, nbytes = int(length.split(b":")[1]), len(body)
        self._left -= nbytes
        if self._left == 0 and self._pause_s:
            asyncio.get_running_loop().call_later(self._pause_s, self.ask)
        elif self._left == 0:
            self.ask()


async def _players(address: str, count: int, seconds: float, pause_s: float, paths: list[str]) -> None:
    host, _, port = address.partition(":")
    first_ms: list[float] = []
    requests = [f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode() for path in paths]
    loop, buffer, all_players = asyncio.get_running_loop(), bytearray(131_072), []
    for n in range(count):
        turned = requests[n % len(requests) :] + requests[: n % len(requests)]
        _, player = await loop.create_connection(lambda turned=turned: _Player(turned, buffer, first_ms, pause_s), host, int(port))  # type: ignore[misc]
        all_players.append(player)
    for n, player in enumerate(all_players):
        loop.call_later(n / count, player.ask)  # they do not all begin in the same instant
    await asyncio.sleep(1)
    before, at = sum(p.received for p in all_players), time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (sum(p.received for p in all_players) - before) / (time.perf_counter() - at) / 1e6
    print(json.dumps({"mb_per_s": rate, "first_ms": first_ms}))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("address")
    arguments.add_argument("players", type=int)
    arguments.add_argument("seconds", type=float)
    arguments.add_argument("pause_s", type=float)
    arguments.add_argument("paths")
    parsed = arguments.parse_args()
    uvloop.run(_players(parsed.address, parsed.players, parsed.seconds, parsed.pause_s, json.loads(parsed.paths)))
