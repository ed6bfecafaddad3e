"""Rows about CRMs that fail, each in every way that its sandbox knows, and one that answers nothing at all."""

from __future__ import annotations

import asyncio
import time

from lab.chaos.crms import AmoCrm, Bitrix24, RetailCrm, Tickets
from lab.chaos.rows import Row, Size, accounted, popups, spread
from lab.chaos.world import Shop, World, world

CHEAP = 0.15  # of the whole: what is shorter does two faults of each


async def crms_fail(row: Row, size: Size) -> None:
    """Every way in which each of the four can fail to answer, each with a call of its own, and the line to it cut and frozen."""
    async with world([[RetailCrm()], [Bitrix24()], [AmoCrm()], [Tickets()]]) as place:
        await asyncio.gather(*(_meet_all(row, place, shop, size) for shop in place.shops))
        await accounted(row, place)


async def _meet_all(row: Row, place: World, shop: Shop, size: Size) -> None:
    [crm] = shop.crms
    faults = list(crm.faults) if size.scale >= CHEAP else list(crm.faults)[:2]
    for fault in faults:
        row.tries()
        crm.fail(fault, 1)
        await shop.pbx.call("inbound-answered", speed=6.0)
        await place.until(crm.is_calm, 90, f"{crm.name} was asked until it had failed by {fault}")
        await _told(place, shop, 90)
        await shop.pbx.call("inbound-answered", speed=6.0)  # what works in between: else the breaker would rightly leave it in peace
        await _told(place, shop, 90)
        row.survived += 1
    for trouble in ("cut", "frozen"):
        row.tries()
        if trouble == "cut":
            await crm.cable.cut()
        else:
            crm.cable.stall()
        await shop.pbx.call("inbound-answered", speed=6.0)
        await asyncio.sleep(2)
        await crm.cable.mend()
        await _told(place, shop, 90)
        row.survived += 1


async def _told(place: World, shop: Shop, timeout_s: float) -> None:
    """Until nothing of this enterprise waits; what waits is due."""
    until = time.monotonic() + timeout_s
    mine, renamed = f"enterprise_number = '{shop.number}'", 0
    while True:
        await place.sql(f"update deliveries set due_at = now() where {mine} and state = 'waiting' and due_at > now(); select 1")
        [found] = await place.sql(
            f"select (select count(*) from deliveries where {mine} and state in ('waiting', 'sending')) as n, "
            f"(select count(*) from connections where {mine} and state = 'needs_reauth') as refused"
        )
        if found["n"] == 0:
            return
        if found["refused"]:  # it said that the credentials are no good: only a person helps, who saves the settings again
            renamed += 1
            await place.daemon.put({**shop.document(), "name": f"Shop {shop.number}, saved {renamed} {time.time()}"})
        if time.monotonic() > until:
            raise RuntimeError(f"{shop.crms[0].name} was not told: {place.daemon.log.read_text(errors='replace')[-2000:]}")
        await asyncio.sleep(0.3)


async def dead_crm(row: Row, size: Size) -> None:
    """One enterprise's CRM answers nothing at all while its PBX rings on; another's popups meanwhile."""
    seconds = max(3.0, 20.0 * size.scale)
    async with world([[RetailCrm()], [RetailCrm()]]) as place:
        dead, quiet = place.shops
        calm = await popups(place, quiet, seconds, size.seed)
        row.tries()
        dead.crms[0].cable.stall()
        stop = asyncio.Event()
        busy = asyncio.create_task(_ring(dead, stop))
        during = await popups(place, quiet, seconds, size.seed + 1)
        stop.set()
        await busy
        await dead.crms[0].cable.mend()
        row.survived += 1
        row.notes.append(f"the other's popups: {spread(calm)} before, {spread(during)} during")
        await accounted(row, place)


async def _ring(shop: Shop, stop: asyncio.Event) -> None:
    calls = set()
    while not stop.is_set():
        calls.add(asyncio.create_task(shop.pbx.call("inbound-answered", speed=4.0)))
        await asyncio.sleep(0.25)
    await asyncio.gather(*calls)
