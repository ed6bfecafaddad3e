"""Rows about several daemons on one database: started by mistake, one of them killed, and all of them busy with one CRM account."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

from lab.chaos.crms import AmoCrm, Crm, RetailCrm
from lab.chaos.neighbours import storm
from lab.chaos.rows import RATE, Row, Size, accounted
from lab.chaos.world import Shop, World, world
from lab.dialplan import ask
from lab.run import DaemonProcess, short_directory

TAKEN_DEADLINE_S = 60.0
PROMISED_S = 10.0
QUESTIONS = 25  # a second to each daemon, each about somebody new: one alone wants more than twice what the account may be asked
RINGING = 5.0  # calls a second: amoCRM wants two requests for each and takes seven in all
CATCH_UP_S = 600.0
PHASES = ("both", "one killed", "joining", "both again")


@asynccontextmanager
async def _pair(shops: Sequence[Sequence[Crm]]) -> AsyncIterator[tuple[World, DaemonProcess, DaemonProcess]]:
    """A world with a second daemon on its database."""
    async with world(shops, extra={"VOCHID_SECRET_KEYS": secrets.token_hex(32), "VOCHID_NODE": "one"}) as place:
        second = DaemonProcess(short_directory("vochid-two-"), admin_token=place.daemon.admin_token, extra={**place.daemon.extra, "VOCHID_NODE": "two"})
        try:
            await second.start()
            await place.until_true(lambda: _live(place, 2), 60, "both daemons live")
            yield place, place.daemon, second
        finally:
            await second.stop()


async def _live(place: World, count: int) -> bool:
    [row] = await place.sql("select count(*) as n from nodes where expires_at > now()")
    return int(row["n"]) == count


async def takeover(row: Row, size: Size) -> None:
    """A third with the same ports is refused; then whoever reads is killed, again and again: how long until the other one hears, and tells."""
    async with _pair([[RetailCrm()], [RetailCrm()]]) as (place, one, two):
        row.tries()
        mistaken = DaemonProcess(short_directory("vochid-mistake-"), http=one.http, extra=one.extra)
        try:
            await mistaken.start()
            row.notes.append("a second daemon on the same port was not refused")
        except RuntimeError as error:
            row.survived += "Is another vochid running?" in str(error)
        finally:
            await mistaken.stop()
        place.start_traffic(RATE, size.seed)
        await asyncio.sleep(2)
        heard, told = [], []
        for _ in range(max(2, round(10 * size.scale))):
            row.tries()
            victim = one if await _reader(place) == "one" else two
            async with place.blind():
                logins = {shop.number: shop.pbx.logins for shop in place.shops if await _reader(place, shop) == victim.extra["VOCHID_NODE"]}
                began = time.monotonic()
                await victim.kill()
                taken = [shop for shop in place.shops if shop.number in logins]
                await asyncio.gather(*(_taken(place, shop, logins[shop.number]) for shop in taken))
                heard.append(time.monotonic() - began)
            await asyncio.gather(*(_announced(place, shop) for shop in taken))
            told.append(time.monotonic() - began)
            row.survived += heard[-1] < PROMISED_S
            await victim.start()
            await place.until_true(lambda: _live(place, 2), 60, "both daemons live")
        row.notes.append(
            f"from the kill to the heir's login {min(heard):.1f} to {max(heard):.1f} s, to the first popup it told {min(told):.1f} to {max(told):.1f} s"
        )
        await accounted(row, place)
        row.notes.append(f"{_redrawn(place)} popups told twice")


async def _reader(place: World, shop: Shop | None = None) -> str:
    """The name of the node that reads the shop's PBX; of the first one's without any."""
    number = (shop or place.shops[0]).number
    await place.until_true(lambda: _is_read(place, number), 60, f"somebody reads the PBX of {number}")
    [row] = await place.sql(f"select owner from leases where enterprise_number = '{number}' and expires_at > now()")
    return str(row["owner"]).rpartition("-")[0]


async def _is_read(place: World, number: str) -> bool:
    return bool(await place.sql(f"select 1 from leases where enterprise_number = '{number}' and expires_at > now()"))


async def _taken(place: World, shop: Shop, logins: int) -> None:
    await place.until(lambda: shop.pbx.logins > logins and shop.pbx.is_heard, TAKEN_DEADLINE_S, "another daemon has logged in")


async def _announced(place: World, shop: Shop) -> None:
    """A call that comes now is shown to who rings."""
    crm = shop.crms[0]
    assert isinstance(crm, RetailCrm)
    made = await shop.pbx.call("inbound-answered", speed=4.0)
    await place.until(lambda: crm.popup_at(made.phone), 60, "its popup came")


def _redrawn(place: World) -> int:
    """Calls of one phone that was shown the same popup twice (RetailCRM draws the same card anew)."""
    twice = 0
    for shop in place.shops:
        popups = Counter(event.data["phone"] for event in shop.crms[0].box.events if event.data["type"] == "in")
        twice += sum(popups[made.phone] > 1 for made in shop.pbx.made.values() if made.kind == "inbound-answered")
    return twice


async def limits(row: Row, size: Size) -> None:
    """Both daemons have more to ask and to tell than the accounts allow, while one of them dies and comes again. The CRMs count strictly."""
    seconds = max(4.0, 15.0 * size.scale)
    async with _pair([[RetailCrm()], [AmoCrm()]]) as (place, one, two):
        retail, amo = place.shops
        stop = asyncio.Event()
        asking = [asyncio.create_task(_question(daemon, retail, stop, start)) for daemon, start in ((one, 0), (two, 5_000_000))]
        beyond = {shop.crms[0].name: [_beyond(shop)] for shop in place.shops}
        async with storm(amo, RINGING):
            for phase in PHASES:
                row.tries()
                if phase == "one killed":
                    await two.kill()
                if phase == "joining":
                    await two.start()
                    await place.until_true(lambda: _live(place, 2), 60, "both daemons live")
                else:
                    await asyncio.sleep(seconds)
                for shop in place.shops:
                    beyond[shop.crms[0].name].append(_beyond(shop))
                row.survived += all(counts[-1] == counts[-2] for counts in beyond.values())
            stop.set()
            answered = sum(await asyncio.gather(*asking))
        amo.blind.append((0, time.time()))  # the reader may have been the one that died
        for shop in place.shops:
            crm = shop.crms[0]
            counts = ", ".join(f"{after - before} {phase}" for phase, (before, after) in zip(PHASES, pairwise(beyond[crm.name]), strict=True))
            soon = f", {max(crm.box.too_soon_s) * 1000:.0f} ms too soon at most" if crm.box.too_soon_s else ""
            row.notes.append(f"{crm.name}: {crm.box.passed.total()} requests passed, beyond its limit {counts}{soon}")
        row.notes.append(f"{answered} questions of dialplans answered")
        await accounted(row, place, CATCH_UP_S)


def _beyond(shop: Shop) -> int:
    """How many requests the CRM refused for its rate."""
    return len(shop.crms[0].box.too_soon_s)


async def _question(daemon: DaemonProcess, shop: Shop, stop: asyncio.Event, start: int) -> int:
    """Dialplans ask this daemon about people nobody knows; gives how many were answered."""
    underway: set[asyncio.Task[bool]] = set()
    answered, number = 0, start

    async def one(phone: str) -> bool:
        try:
            return "VOCHI_STATUS" in (await ask(daemon.fastagi, shop.number, phone, uniqueid=phone)).variables
        except TimeoutError:
            return False

    while not stop.is_set():
        number += 1
        underway.add(asyncio.create_task(one(f"+37533{number:07d}")))
        await asyncio.sleep(1 / QUESTIONS)
        done = {task for task in underway if task.done()}
        answered += sum(task.result() for task in done)
        underway -= done
    return answered + sum(await asyncio.gather(*underway))
