"""Rows about CRMs that fail, each in every way that it documents or that its sandbox knows, and one that answers nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from lab.cable import Trouble
from lab.chaos.certificates import expired
from lab.chaos.crms import RESTS, AmoCrm, Bitrix24, RetailCrm, Tickets
from lab.chaos.neighbours import compare, storm
from lab.chaos.rows import Row, Size, accounted
from lab.chaos.world import Shop, World, world
from lab.run import short_directory

CHEAP = 0.15  # of the whole: what is shorter does two faults of each
TOLD_DEADLINE_S = 180.0
LEFT_IN_PEACE_S = 5.0
RINGING = 3.0  # calls a second of the enterprise whose CRM is dead
NOWHERE = "http://crm.invalid:8080"
Fault = Callable[[], Awaitable[None]]


async def crms_fail(row: Row, size: Size) -> None:
    """Every way in which each of the four can fail to answer, and in which the way to it can fail, each with a call of its own."""
    folder = short_directory("vochid-tls-")
    try:
        async with (
            expired(folder) as (address, authority),
            world([[RetailCrm()], [Bitrix24()], [AmoCrm()], [Tickets()]], extra={"SSL_CERT_FILE": str(authority)}) as place,
        ):
            await asyncio.gather(*(_meet_all(row, place, shop, size, address) for shop in place.shops))
            for fault in RESTS if size.scale >= CHEAP else RESTS[-1:]:
                await _rests(row, place, fault)
            await accounted(row, place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _meet_all(row: Row, place: World, shop: Shop, size: Size, wrong_address: str) -> None:
    [crm] = shop.crms
    faults: dict[str, Fault] = {fault: _said(place, shop, fault) for fault in crm.faults}
    if size.scale < CHEAP:
        faults = dict(list(faults.items())[:2])
    faults |= {"cut": _cut(shop), "frozen": _frozen(shop), "a byte now and then": _dripping(shop), "other credentials": _revoked(place, shop)}
    if crm.moves:
        faults |= {"no such name": _moved(place, shop, NOWHERE), "an expired certificate": _moved(place, shop, wrong_address)}
    for says, fault in faults.items():
        row.tries()
        try:
            await fault()
            await _told(place, shop)
            await shop.pbx.call("inbound-answered", speed=6.0)  # what works in between: else the breaker would rightly leave it in peace
            await _told(place, shop)
            row.survived += 1
        except RuntimeError as error:
            row.notes.append(f"{crm.name}, {says}: {str(error)[:200]}")


def _said(place: World, shop: Shop, fault: str) -> Fault:
    """The CRM itself answers so, or not at all."""

    async def run() -> None:
        [crm] = shop.crms
        crm.fail(fault, 1)
        await shop.pbx.call("inbound-answered", speed=6.0)
        await place.until(crm.is_calm, 90, f"{crm.name} was asked until it had failed by {fault}")

    return run


def _cut(shop: Shop) -> Fault:
    async def run() -> None:
        await shop.crms[0].cable.cut()
        await _try_and_mend(shop)

    return run


def _frozen(shop: Shop) -> Fault:
    async def run() -> None:
        shop.crms[0].cable.stall()
        await _try_and_mend(shop)

    return run


def _dripping(shop: Shop) -> Fault:
    async def run() -> None:
        shop.crms[0].cable.trouble = Trouble(slice_bytes=1, bandwidth=40)
        await shop.crms[0].cable.reset()  # connections that are kept would be as fast as before
        await _try_and_mend(shop)

    return run


async def _try_and_mend(shop: Shop) -> None:
    """A call while nothing arrives; then everything does."""
    await shop.pbx.call("inbound-answered", speed=6.0)
    await asyncio.sleep(2)
    await shop.crms[0].cable.mend()
    await shop.crms[0].cable.reset()


def _revoked(place: World, shop: Shop) -> Fault:
    async def run() -> None:
        if shop.crms[0].revoke():
            await shop.pbx.call("inbound-answered", speed=6.0)
            await place.until_true(lambda: _is_refused(place, shop), 90, f"{shop.crms[0].name} refused the credentials")

    return run


def _moved(place: World, shop: Shop, address: str) -> Fault:
    """Its settings lead there for a while."""

    async def run() -> None:
        [crm] = shop.crms
        crm.elsewhere = address
        await place.daemon.put(shop.document())
        await shop.pbx.call("inbound-answered", speed=6.0)
        await place.until_true(lambda: _has_failed(place, shop), 90, f"a delivery to {crm.name} failed at {address}")
        crm.elsewhere = None
        await place.daemon.put(shop.document())

    return run


async def _has_failed(place: World, shop: Shop) -> bool:
    [row] = await place.sql(f"select count(*) as n from deliveries where enterprise_number = '{shop.number}' and state = 'waiting' and attempts > 0")
    return bool(row["n"])


async def _is_refused(place: World, shop: Shop) -> bool:
    [row] = await place.sql(f"select count(*) as n from connections where enterprise_number = '{shop.number}' and state = 'needs_reauth'")
    return bool(row["n"])


async def _rests(row: Row, place: World, fault: str) -> None:
    """amoCRM takes nothing from an account or an address: it is left in peace for minutes, or until the daemon is started anew, as here."""
    shop = next(shop for shop in place.shops if isinstance(shop.crms[0], AmoCrm))
    crm = shop.crms[0]
    row.tries()
    crm.fail(fault, 1)
    await shop.pbx.call("inbound-answered", speed=6.0)
    await place.until(crm.is_calm, 90, f"amoCRM was asked until it had answered {fault}")
    await asyncio.sleep(0.5)  # what was on its way
    asked = len(crm.box.requests)
    await asyncio.sleep(LEFT_IN_PEACE_S)
    asked_on = len(crm.box.requests) - asked
    if asked_on:
        row.notes.append(f"{asked_on} requests within {LEFT_IN_PEACE_S:.0f} s after amoCRM's {fault}")
    async with place.blind():
        await place.daemon.stop(keep=True)
        for other in place.shops:
            other.pbx.connected.clear()
        await place.daemon.start()
    await _told(place, shop)
    row.survived += not asked_on


async def _told(place: World, shop: Shop) -> None:
    """Until nothing of this enterprise waits; what waits is due."""
    until = time.monotonic() + TOLD_DEADLINE_S
    mine, renamed = f"enterprise_number = '{shop.number}'", 0
    while True:
        await place.sql(f"update deliveries set due_at = now() where {mine} and state = 'waiting' and due_at > now(); select 1")
        [found] = await place.sql(f"select count(*) as n, min(last_error) as error from deliveries where {mine} and state in ('waiting', 'sending')")
        if found["n"] == 0:
            return
        if await _is_refused(place, shop):  # it said that the credentials are no good: only a person helps, who saves the settings again
            renamed += 1
            await place.daemon.put({**shop.document(), "name": f"Shop {shop.number}, saved {renamed} {time.time()}"})
        if time.monotonic() > until:
            raise RuntimeError(f"{found['n']} deliveries are not told after {TOLD_DEADLINE_S:.0f} s, the last error is {found['error']}")
        await asyncio.sleep(0.3)


async def dead_crm(row: Row, size: Size) -> None:
    """One enterprise's CRM answers nothing at all while its PBX rings on; another's popups meanwhile, and while it rings and its CRM answers."""
    async with world([[RetailCrm()], [RetailCrm()]]) as place:
        dead, quiet = place.shops

        @asynccontextmanager
        async def ringing() -> AsyncIterator[None]:
            async with storm(dead, RINGING):
                yield
            await _told(place, dead)

        @asynccontextmanager
        async def silent() -> AsyncIterator[None]:
            dead.crms[0].cable.stall()
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(_told, place, dead)
                stack.push_async_callback(dead.crms[0].cable.mend)
                await stack.enter_async_context(storm(dead, RINGING))
                yield

        row.tries()
        found = await compare(place, quiet, silent, max(2.0, 6.0 * size.scale), max(2, round(6 * size.scale)), calm=ringing)
        row.survived += 1
        row.notes.append(f"another enterprise's popups: {found}")
        await accounted(row, place)
