"""Rows about the machine itself: the clock, the disk, descriptors, a loop that stands still; and FastAGI abused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from lab.chaos.asker import asker
from lab.chaos.crms import RetailCrm
from lab.chaos.rows import RATE, Row, Size, accounted, both
from lab.chaos.world import World, world
from lab.run import short_directory

INSIDE = Path(__file__).parent / "inside"
WATCHDOG_S = 15.0  # WatchdogSec of systemd/vochid.service
DISK_BYTES = 160 * 1024 * 1024
AGI_LIMIT_S = 0.8
ABUSERS = 1_000


# -- F6 -----------------------------------------------------------------------------------------------------------------------------------


async def fastagi(row: Row, size: Size) -> None:
    """Connects and closes, never a blank line, a byte a second, 10,000 headers, hung up in the middle, a thousand at once; and one who asks properly."""
    async with world([[RetailCrm()]]) as place, asker(place.daemon.fastagi, place.shops[0].number) as ask:
        place.start_traffic(1.0, size.seed)
        asked: list[float] = [await ask()]
        for abuse in (b"", b"agi_network: yes\n", b"agi_x: y\n" * 10_000 + b"\n", b"\x00\xff" * 2_000, _question(place.shops[0].number)):
            row.tries()
            crowd = [asyncio.create_task(_abuse(place, abuse)) for _ in range(int(ABUSERS * max(size.scale, 0.1)))]
            asked += [await ask() for _ in range(5)]
            await asyncio.gather(*crowd)
            row.survived += 1
        row.tries()
        slow = [asyncio.create_task(_drip(place)) for _ in range(100)]
        asked += [await ask() for _ in range(5)]
        lasted = await asyncio.gather(*slow)
        row.survived += 1
        row.notes.append(f"a proper question was answered in {max(asked) * 1000:.0f} ms at most; a byte a second was ended after {max(lasted):.1f} s")
        if max(asked) > AGI_LIMIT_S:
            row.survived -= 1
        await accounted(row, place)


def _question(enterprise: str) -> bytes:
    fields = {"network": "yes", "network_script": "smart-redirect", "request": "agi://x/smart-redirect", "callerid": "+375296254070", "arg_1": enterprise}
    return "".join(f"agi_{name}: {value}\n" for name, value in fields.items()).encode() + b"\n"


async def _abuse(place: World, data: bytes) -> None:
    """Says `data` and hangs up."""
    host, port = place.daemon.fastagi.split(":")
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        await asyncio.sleep(0)
        writer.transport.abort() if len(data) % 2 else writer.close()


async def _drip(place: World) -> float:
    """A byte a second; gives how long that was listened to."""
    host, port = place.daemon.fastagi.split(":")
    started = time.monotonic()
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(host, int(port))
        for byte in b"agi_network: yes":
            writer.write(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                if await asyncio.wait_for(reader.read(100), 1.0) == b"":
                    break
        writer.close()
    return time.monotonic() - started


# -- F7 -----------------------------------------------------------------------------------------------------------------------------------


async def clock(row: Row, size: Size) -> None:
    """The process's clock is set an hour on and an hour back, again and again, with calls in progress."""
    folder = short_directory("vochid-clock-")
    off = folder / "clock"
    off.write_bytes(struct.pack("d", 0.0))
    try:
        async with world(both(), extra={"PYTHONPATH": str(INSIDE), "VOCHID_CHAOS_CLOCK": str(off)}) as place:
            place.start_traffic(RATE, size.seed)
            for step in (3_600.0, 0.0, -3_600.0, 0.0)[: max(2, int(4 * size.scale))]:
                row.tries()
                with off.open("r+b") as file:  # in its place: the daemon has it mapped
                    file.write(struct.pack("d", step))
                await asyncio.sleep(2.5)
                row.survived += 1
            await accounted(row, place)
            [longest] = await place.sql("select max(talk_seconds) as talk, max(wait_seconds) as wait, min(talk_seconds) as least from calls")
            row.notes.append(f"longest talk {longest['talk']:.1f} s, longest wait {longest['wait']:.1f} s")
            if longest["talk"] > 120 or longest["wait"] > 120 or longest["least"] < 0:
                row.survived -= 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- F8 -----------------------------------------------------------------------------------------------------------------------------------


@contextmanager
def _small_disk() -> Iterator[Path]:
    """A file system of DISK_BYTES of its own. Raises RuntimeError where this process may not mount one."""
    folder = short_directory("vochid-disk-")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "chaos", str(folder)], capture_output=True, text=True)
    if mounted.returncode != 0:
        folder.rmdir()
        raise RuntimeError(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True)
        folder.rmdir()


async def disk_full(row: Row, size: Size) -> None:
    """The database's disk is full until it cannot write its log and dies of it, with calls in progress; then there is room again."""
    with _small_disk() as disk:
        async with world(both(), home=disk) as place:
            place.start_traffic(RATE, size.seed)
            for _ in range(max(1, int(3 * size.scale))):
                await asyncio.sleep(2)
                row.tries()
                ballast = disk / "ballast"
                await asyncio.to_thread(_fill, ballast)
                await _use_up_the_log(place)
                began = time.monotonic()
                said_so = False
                while time.monotonic() - began < max(8.0, 20.0 * size.scale):
                    await asyncio.to_thread(_fill, ballast)
                    said_so = said_so or not await place.is_ready()
                    await asyncio.sleep(0.5)
                ballast.unlink()
                freed = time.monotonic()
                while not await place.is_ready():
                    if time.monotonic() - freed > 90:
                        raise RuntimeError("not ready again after there was room")
                    await asyncio.sleep(0.2)
                row.notes.append(f"not ready while full: {'yes' if said_so else 'no'}; ready {time.monotonic() - freed:.1f} s after there was room")
                row.survived += said_so
            await accounted(row, place)


async def _use_up_the_log(place: World) -> None:
    """Writes until PostgreSQL cannot any more: its log has room of its own, ahead of what it writes."""
    with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        connection = await asyncpg.connect(place.database, timeout=10)
        try:
            for _ in range(200):  # into the log and nowhere else
                await connection.execute("select pg_logical_emit_message(false, 'chaos', repeat('x', 1000000), true)", timeout=20)
        finally:
            connection.terminate()


def _fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for piece in (1 << 20, 1 << 14, 1 << 10):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * piece):
                    pass


async def no_descriptors(row: Row, size: Size) -> None:
    """No descriptor is left, and every line is reset; then there are some again."""
    async with world(both()) as place:
        place.start_traffic(RATE, size.seed)
        for _ in range(max(1, int(3 * size.scale))):
            await asyncio.sleep(1)
            row.tries()
            process = place.daemon.process
            assert process is not None
            soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            async with place.blind():
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (8, hard))
                for shop in place.shops:
                    await shop.line.reset()
                    for crm in shop.crms:
                        await crm.cable.reset()
                await asyncio.sleep(max(4.0, 10.0 * size.scale))
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))
                await place.until(lambda: all(shop.pbx.is_heard for shop in place.shops), 60, "it is logged in again")
            row.survived += 1
        await accounted(row, place)


# -- F12 ----------------------------------------------------------------------------------------------------------------------------------


async def blocked_loop(row: Row, size: Size) -> None:
    """A bug holds the event loop; the service manager (played here by the unit's rules) misses the watchdog's word, ends it and starts it again."""
    folder = short_directory("vochid-dog-")
    off, notify = folder / "clock", folder / "notify"
    off.write_bytes(struct.pack("d", 0.0))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(notify))
        heard.setblocking(False)
        extra = {"PYTHONPATH": str(INSIDE), "VOCHID_CHAOS_CLOCK": str(off), "NOTIFY_SOCKET": str(notify)}
        async with world(both(), extra=extra) as place:
            place.start_traffic(RATE, size.seed)
            await asyncio.sleep(2)
            row.tries()
            process = place.daemon.process
            assert process is not None
            async with place.blind():
                os.kill(process.pid, signal.SIGUSR2)
                began = last = time.monotonic()
                while time.monotonic() - last < WATCHDOG_S:
                    with contextlib.suppress(BlockingIOError):
                        while b"WATCHDOG=1" in heard.recv(1_000):
                            last = time.monotonic()
                    if last - began > 60:
                        raise RuntimeError("the watchdog was fed by a loop that stood still")
                    await asyncio.sleep(0.1)
                process.send_signal(signal.SIGABRT)
                await process.wait()
                missed = time.monotonic() - began
                await place.bury()
                await place.daemon.start()
            stack = place.daemon.log.read_text(errors="replace")
            shown = "Fatal Python error: Aborted" in stack and "sitecustomize" in stack
            row.notes.append(f"ended {missed:.0f} s after the loop stood still; where it stood is in the log: {'yes' if shown else 'no'}")
            row.survived += shown
            await accounted(row, place)
    shutil.rmtree(folder, ignore_errors=True)
