"""What one enterprise's trouble costs another one: the other's popups while all is calm and while it is not, in turns, so that both see the same machine."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from lab.chaos.crms import RetailCrm
from lab.chaos.world import Shop, World

SPEED = 12.0  # of the recorded call: one lasts an eighth of a second
AFTER_S = 0.3  # what a disturbance leaves behind belongs to it, not to the calm that follows
# What a PBX repeats when something is wrong with it: a phone that comes and goes, a dialplan that loops, statistics that nobody asked for.
NOISE = (
    b"Event: DeviceStateChange\r\nPrivilege: call,all\r\nDevice: PJSIP/150\r\nState: INUSE\r\n\r\n"
    b"Event: RTCPSent\r\nPrivilege: reporting,all\r\nChannel: PJSIP/150-00000001\r\nSSRC: 0x31f4bc2d\r\nReport0FractionLost: 0\r\n\r\n"
    b"Event: VarSet\r\nPrivilege: dialplan,all\r\nChannel: Local/s@loop-00000001;1\r\nUniqueid: 1.1\r\nLinkedid: 1.1\r\nVariable: N\r\nValue: 7\r\n\r\n"
    b"Event: Newexten\r\nPrivilege: dialplan,all\r\nChannel: Local/s@loop-00000001;1\r\nUniqueid: 1.1\r\nLinkedid: 1.1\r\nApplication: Goto\r\n\r\n"
    b"Event: PeerStatus\r\nPrivilege: system,all\r\nChannelType: PJSIP\r\nPeer: PJSIP/150\r\nPeerStatus: Unreachable\r\n\r\n"
)
NOISE_EVENTS = NOISE.count(b"\r\n\r\n")
Trouble = Callable[[], AbstractAsyncContextManager[None]]


@dataclass
class Latencies:
    """In ms from the PBX's socket to the CRM's: calm, and in trouble."""

    calm: list[float] = field(default_factory=list)
    trouble: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return statistics.median(self.trouble) / statistics.median(self.calm)

    def __str__(self) -> str:
        return f"{spread(self.calm)} calm, {spread(self.trouble)} in trouble, ×{self.ratio:.2f}"


async def compare(place: World, shop: Shop, trouble: Trouble, seconds: float, rounds: int, *, calm: Trouble = nullcontext) -> Latencies:
    """`shop`'s popups, `rounds` times calm and in the other's trouble, each for so long. `calm`: what the other does meanwhile that is none."""
    found = Latencies()
    await popups(place, shop, 1.0)  # the first connections are made
    for _ in range(rounds):
        async with calm():
            found.calm += await popups(place, shop, seconds)
        async with trouble():
            found.trouble += await popups(place, shop, seconds)
        await asyncio.sleep(AFTER_S)
    return found


async def popups(place: World, shop: Shop, seconds: float) -> list[float]:
    """Latencies in ms of calls made one after the other for so long; three at least."""
    crm = shop.crms[0]
    assert isinstance(crm, RetailCrm)
    until = time.monotonic() + seconds
    latencies: list[float] = []
    while time.monotonic() < until or len(latencies) < 3:
        made = await shop.pbx.call("inbound-answered", speed=SPEED)
        await place.until(lambda made=made: crm.popup_at(made.phone), 60, "its popup came")
        latencies.append((crm.popup_at(made.phone) - made.began) * 1000)
    return latencies


@asynccontextmanager
async def flood(shop: Shop, rate: int, sent: list[tuple[int, float]]) -> AsyncIterator[None]:
    """`rate` events a second of this PBX, or as many as it is read of; notes how many that were, in how long."""
    stop = asyncio.Event()
    task = asyncio.create_task(_flood(shop, rate, stop, sent))
    try:
        yield
    finally:
        stop.set()
        await task


async def _flood(shop: Shop, rate: int, stop: asyncio.Event, sent: list[tuple[int, float]]) -> None:
    started, count = time.monotonic(), 0
    while not stop.is_set():
        due = int((time.monotonic() - started) * rate) - count
        if due > NOISE_EVENTS:
            portion = min(due, rate // 50) // NOISE_EVENTS
            shop.pbx.send(NOISE * portion)
            count += portion * NOISE_EVENTS
            for writer in list(shop.pbx.connections):
                await writer.drain()
        await asyncio.sleep(0.004)
    sent.append((count, time.monotonic() - started))


@asynccontextmanager
async def storm(shop: Shop, rate: float) -> AsyncIterator[None]:
    """`rate` whole calls a second of this PBX; they end before it is over."""
    stop = asyncio.Event()
    task = asyncio.create_task(_storm(shop, rate, stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def _storm(shop: Shop, rate: float, stop: asyncio.Event) -> None:
    calls: set[asyncio.Task[object]] = set()
    while not stop.is_set():
        calls.add(asyncio.create_task(shop.pbx.call("inbound-answered", speed=4.0)))
        await asyncio.sleep(1 / rate)
    await asyncio.gather(*calls)


def spread(latencies: list[float]) -> str:
    """The middle and the slowest twentieth."""
    ordered = sorted(latencies)
    if not ordered:
        return "none"
    return f"p50 {ordered[len(ordered) // 2]:.1f} ms, p95 {ordered[int(len(ordered) * 0.95)]:.1f} ms ({len(ordered)})"
