"""A short, seeded run of what `make chaos` does at length: every line cut and worsened, the daemon killed, the PBX rebooted, all of it under traffic."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from lab.cable import Trouble
from lab.chaos.crms import RetailCrm, Tickets
from lab.chaos.machine import INSIDE
from lab.chaos.world import World, world
from lab.run import short_directory
from tests.conftest import fresh_database

SEED = 11
WATCHDOG_S = 5.0  # how often the daemon speaks to systemd


@pytest.mark.timeout(600)
async def test_no_call_is_lost_doubled_or_out_of_order_whatever_breaks(cluster: str) -> None:
    folder = short_directory("vochid-dog-")
    (folder / "clock").write_bytes(struct.pack("d", 0.0))
    extra = {"PYTHONPATH": str(INSIDE), "VOCHID_CHAOS_CLOCK": str(folder / "clock"), "NOTIFY_SOCKET": str(folder / "notify")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(extra["NOTIFY_SOCKET"])
        systemd.setblocking(False)
        async with fresh_database(cluster) as url, world([[RetailCrm()], [Tickets()]], database=url, extra=extra) as place:
            place.start_traffic(2.0, SEED)
            await worsened(place, folder / "clock")
            for n in range(2):
                async with place.blind():
                    for shop in place.shops:
                        shop.pbx.drop()
                    await place.kill_daemon()
                await asyncio.sleep(random.Random(SEED + n).uniform(0.2, 1.0))
            await place.stop_traffic()
            await place.settled()
            account = await place.account()
            assert account.wrong == []
            assert account.kept > 10
            assert account.kept + account.unseen == account.made
            await stands_still(place, systemd)
    shutil.rmtree(folder)


async def worsened(place: World, clock: Path) -> None:
    """Everything but deaths, a moment each."""
    first, second = place.shops
    async with place.blind(first):
        logins = first.pbx.logins
        first.line.trouble = Trouble(limit_bytes=2_000)
        await place.until(lambda: first.pbx.logins > logins, 60, "it came back after a reset in mid-frame")
        first.line.trouble = Trouble(slice_bytes=1)
        await first.line.reset()
        await place.until(lambda: first.pbx.logins > logins + 1, 60, "it came back once more")
    async with place.blind(second):
        await second.pbx.reboot(0.2)
    await second.crms[0].cable.cut()
    place.to_db.trouble = Trouble(latency_s=0.01, jitter_s=0.05)
    with clock.open("r+b") as file:
        file.write(struct.pack("d", 3_600.0))
    await asyncio.sleep(0.7)
    await place.to_db.cut()
    first.crms[0].cable.stall()
    await asyncio.sleep(0.7)
    with clock.open("r+b") as file:
        file.write(struct.pack("d", 0.0))
    for cable in (place.to_db, first.line, first.crms[0].cable, second.crms[0].cable):
        await cable.mend()


async def stands_still(place: World, systemd: socket.socket) -> None:
    """A loop that a bug holds says nothing to the watchdog; ended as systemd ends it, its log shows where it stood."""
    assert b"READY=1" in heard(systemd)
    process = place.daemon.process
    assert process is not None
    process.send_signal(signal.SIGUSR2)  # lab/chaos/inside: sleeps in the loop
    await place.until(lambda: "standing still" in place.daemon.log.read_text(errors="replace"), 60, "it stands still")
    heard(systemd)
    until = time.monotonic() + WATCHDOG_S + 1
    while time.monotonic() < until:
        assert b"WATCHDOG=1" not in heard(systemd)
        await asyncio.sleep(0.1)
    process.send_signal(signal.SIGABRT)
    await process.wait()
    log = place.daemon.log.read_text(errors="replace")
    assert "Fatal Python error: Aborted" in log
    assert "sitecustomize.py" in log


def heard(systemd: socket.socket) -> set[bytes]:
    words = set()
    with contextlib.suppress(BlockingIOError):
        while True:
            words.add(systemd.recv(1_000))
    return words
