"""The faults, one row each. A row sets up its own world, does its worst, lets things settle, and gives the account."""

from __future__ import annotations

import asyncio
import math
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lab.cable import Cable, Trouble
from lab.chaos import neighbours
from lab.chaos.account import Account
from lab.chaos.crms import AmoCrm, Bitrix24, Crm, RetailCrm, Tickets
from lab.chaos.nursery import NursedDaemon
from lab.chaos.world import SETTLE_DEADLINE_S, World, world

CATCH_UP_S = 1_200.0  # after hundreds of deaths amoCRM, with its seven requests a second, is far behind
RATE = 0.7  # calls a second of every PBX: what amoCRM's seven requests a second can be told


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done. kills: of F1, within so many minutes; scale: of everything else, 1 is the whole."""

    seed: int = 7
    kills: int = 200
    minutes: float = math.inf
    scale: float = 1.0


@dataclass
class Row:
    """What came of one fault. tried, survived: how often it was done, and how often everything went on by itself afterwards."""

    name: str
    fault: str
    tried: int = 0
    survived: int = 0
    account: Account = field(default_factory=Account)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return self.tried > 0 and self.survived == self.tried and self.account.is_clean

    def tries(self, count: int = 1) -> None:
        """Counted before and after: what raises in between was tried and not survived."""
        self.tried += count


Run = Callable[[Row, Size], Awaitable[None]]


def both() -> list[list[Crm]]:
    """Two enterprises that have all four CRMs between them."""
    return [[RetailCrm()], [Bitrix24(), AmoCrm(), Tickets()]]


async def accounted(row: Row, place: World, timeout_s: float = SETTLE_DEADLINE_S) -> None:
    """Ends the traffic, waits until all is told, and adds up."""
    await place.stop_traffic()
    await place.settled(timeout_s)
    row.account.add(await place.account())


# -- F1, F2: the daemon and its database die ----------------------------------------------------------------------------------------


async def kills(row: Row, size: Size) -> None:
    """kill -9 at random points under traffic. Of ten deaths one waits for the lease to run out by itself."""
    chance, until = random.Random(size.seed), time.monotonic() + size.minutes * 60
    async with world(both(), kind=NursedDaemon) as place:
        place.start_traffic(RATE, size.seed)
        for n in range(size.kills):
            if time.monotonic() > until:
                break
            await asyncio.sleep(chance.uniform(0.05, 2.5))
            row.tries()
            since = time.time()
            try:
                async with place.blind():
                    for shop in place.shops:
                        shop.pbx.connected.clear()
                    await place.kill_daemon(wait_for_lease=n % 10 == 9)
                row.survived += 1
            except RuntimeError as error:  # the others are tried all the same
                row.notes.append(f"death {n + 1}: {str(error)[:120]}")
                place.keep_log()
                for shop in place.shops:
                    shop.blind.append((since, time.time()))
        await accounted(row, place, CATCH_UP_S)
        row.notes.append(f"{len(place.made())} calls through {row.tried} deaths")


async def kills_with_cdr(row: Row, size: Size) -> None:
    """The same where the PBX writes CDR: what no socket told is completed from it."""
    chance = random.Random(size.seed + 1)
    async with world([[RetailCrm()]], cdr=True, kind=NursedDaemon) as place:
        place.start_traffic(RATE, size.seed)
        for _ in range(max(2, int(10 * size.scale))):
            await asyncio.sleep(chance.uniform(0.5, 2.5))
            row.tries()
            async with place.blind():
                await place.daemon.kill()
                await asyncio.sleep(chance.uniform(1.0, 4.0))
                await place.bury()
                await place.daemon.start()
            row.survived += 1
        await place.stop_traffic()
        [shop] = place.shops
        ended = sum(call.ended is not None for call in shop.pbx.made.values())
        until = time.monotonic() + 120
        while time.monotonic() < until:  # the first look at the CDR comes 35 s after the last resync
            [kept] = await place.sql(
                "select count(*) as n, count(*) filter (where gap) as gaps from calls where direction <> 'internal' and ended_at is not null"
            )
            if kept["n"] >= ended:
                break
            await asyncio.sleep(2)
        row.notes.append(f"{kept['gaps']} calls seen in part or from CDR alone")
        await accounted(row, place)


async def postgres_killed(row: Row, size: Size) -> None:
    """kill -9 of the whole server, then a restart in good order, with calls in progress; its first start after a crash recovers."""
    async with world(both()) as place:
        place.start_traffic(RATE, size.seed)
        for n in range(max(2, int(10 * size.scale))):
            await asyncio.sleep(1.5)
            row.tries()
            await place.kill_postgres(signal.SIGKILL if n % 2 else signal.SIGINT)
            await _stored_again(place)
            row.survived += 1
        await accounted(row, place)


async def database_away(row: Row, size: Size) -> None:
    """Refused, then frozen, then dead connections as after a failover without a word: 30 s each."""
    away_s = max(3.0, 30.0 * size.scale)
    async with world(both()) as place:
        place.start_traffic(RATE, size.seed)
        await asyncio.sleep(1)
        for how in ("refused", "frozen", "stranded"):
            row.tries()
            started = time.monotonic()
            if how == "refused":
                await place.to_db.cut()
            elif how == "frozen":
                place.to_db.stall()
            else:
                place.to_db.strand()
            await asyncio.sleep(away_s)
            if how != "stranded":
                await place.to_db.mend()
            mended = time.monotonic()
            await _stored_again(place)
            row.notes.append(f"{how} {mended - started:.0f} s: calls stored {time.monotonic() - mended:.1f} s after")
            await asyncio.sleep(2)
            row.survived += 1
        await accounted(row, place)


async def _stored_again(place: World) -> None:
    """Until a call that began now is stored."""
    since = time.time()
    until = time.monotonic() + 150
    while True:
        [row] = await place.sql(f"select count(distinct enterprise_number) as n from calls where started_at > to_timestamp({since})")
        if row["n"] == len(place.shops):
            return
        if time.monotonic() > until:
            raise RuntimeError(f"nothing is stored: {place.daemon.log.read_text(errors='replace')[-2000:]}")
        await asyncio.sleep(0.25)


# -- F3: the line to the PBX ---------------------------------------------------------------------------------------------------------


async def bad_lines(row: Row, size: Size) -> None:
    """Half open, frozen 30 s, reset in mid-frame, one byte at a time, slow and thin."""
    frozen_s = max(4.0, 30.0 * size.scale)
    async with world(both()) as place:
        place.start_traffic(RATE, size.seed)
        await asyncio.sleep(1)
        first, second = place.shops
        for says, shop in (("half open", first), ("frozen", second)):
            row.tries()
            began = time.monotonic()
            async with place.blind(shop):
                logins = shop.pbx.logins
                shop.line.strand() if says == "half open" else shop.line.stall()
                if says == "frozen":
                    await asyncio.sleep(frozen_s)
                    await shop.line.mend()
                else:
                    await place.until(lambda shop=shop, logins=logins: shop.pbx.logins > logins, 60, "the dead line is noticed")
                    row.notes.append(f"half-open line noticed and replaced in {time.monotonic() - began:.0f} s")
                await asyncio.sleep(1)
            row.survived += 1
        for trouble in (
            Trouble(slice_bytes=1), Trouble(slice_bytes=700, latency_s=0.02, jitter_s=0.2), Trouble(bandwidth=40_000), Trouble(slow_close_s=1.0),
        ):  # fmt: skip
            row.tries()
            first.line.trouble = trouble
            await asyncio.sleep(3)
            first.line.trouble = Trouble()
            row.survived += 1
        for _ in range(max(2, int(10 * size.scale))):
            row.tries()
            async with place.blind(first):
                logins = first.pbx.logins
                first.line.trouble = Trouble(limit_bytes=3_000)
                await place.until(lambda logins=logins: first.pbx.logins > logins, 60, "it is logged in again")
                first.line.trouble = Trouble()
                await first.line.reset()  # what began under the trouble still has its limit
                await asyncio.sleep(0.5)
            row.survived += 1
        await accounted(row, place)


async def reboots(row: Row, size: Size) -> None:
    """Asterisk is switched off with live calls and comes back as another boot."""
    async with world(both()) as place:
        place.start_traffic(RATE, size.seed)
        for _ in range(max(2, int(6 * size.scale))):
            await asyncio.sleep(2)
            row.tries()
            async with place.blind():
                await asyncio.gather(*(shop.pbx.reboot(1.0) for shop in place.shops))
            row.survived += 1
        await accounted(row, place)


async def flood(row: Row, size: Size) -> None:
    """50,000 events a second of one PBX, and a frame of 10 MB without an end; another enterprise's popups meanwhile."""
    async with world([[RetailCrm()], [RetailCrm()]]) as place:
        noisy, quiet = place.shops
        row.tries()
        sent: list[tuple[int, float]] = []
        found = await neighbours.compare(place, quiet, lambda: neighbours.flood(noisy, 50_000, sent), max(2.0, 6.0 * size.scale), max(2, round(6 * size.scale)))
        row.survived += 1
        taken = sum(count for count, _ in sent) / sum(seconds for _, seconds in sent)
        row.notes.append(f"of 50,000 events/s {taken:,.0f} were read; another enterprise's popups: {found}")
        row.tries()
        noisy.pbx.send(b"Event: Huge\r\nX: " + b"x" * 10_000_000)
        noisy.pbx.send(b"\r\n\r\n")
        await neighbours.popups(place, noisy, 2.0)
        row.survived += 1
        noisy.blind.append((0, time.time()))
        await accounted(row, place)


# -- F13 ------------------------------------------------------------------------------------------------------------------------------


async def mixed(row: Row, size: Size) -> None:
    """Random trouble on every line at once: PBX, PostgreSQL, CRM; changed every second or so. Then calm."""
    chance = random.Random(size.seed)
    seconds = max(6.0, 240.0 * size.scale)
    async with world(both()) as place:
        place.start_traffic(RATE, size.seed)
        cables = [place.to_db, *(shop.line for shop in place.shops), *(crm.cable for shop in place.shops for crm in shop.crms)]
        since, until = time.time(), time.monotonic() + seconds
        while time.monotonic() < until:
            cable = chance.choice(cables)
            row.tries()
            await _worsen(cable, chance)
            await asyncio.sleep(chance.uniform(0.1, 1.5))
            if chance.random() < 0.7:
                await cable.mend()
            row.survived += 1
        for cable in cables:
            await cable.mend()
            await cable.reset()
        await place.until(lambda: all(shop.pbx.is_heard for shop in place.shops), 90, "every line is up again")
        await asyncio.sleep(3)
        for shop in place.shops:
            shop.blind.append((since, time.time()))
        await _stored_again(place)
        await accounted(row, place)


async def _worsen(cable: Cable, chance: random.Random) -> None:
    match chance.choice(("latency", "slices", "thin", "limit", "reset", "cut", "stall", "strand")):
        case "latency":
            cable.trouble = Trouble(latency_s=chance.uniform(0, 0.2), jitter_s=chance.uniform(0, 0.5))
        case "slices":
            cable.trouble = Trouble(slice_bytes=chance.randint(1, 300))
        case "thin":
            cable.trouble = Trouble(bandwidth=chance.randint(5_000, 100_000), slow_close_s=chance.uniform(0, 1))
        case "limit":
            cable.trouble = Trouble(limit_bytes=chance.randint(200, 20_000))
        case "reset":
            await cable.reset()
        case "cut":
            await cable.cut()
        case "stall":
            cable.stall()
        case _:
            cable.strand()
