"""A day of real calls told to a Bitrix24 portal: a real Asterisk, real phones, the daemon, and the portal in a box."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab.crm.bitrix24 import Bitrix24Sandbox, PortalCall, PortalUser
from lab.office import PHONES, UNREGISTERED_PHONE, Office
from lab.patient import EVERYTHING
from lab.record import stage
from lab.run import DaemonProcess, short_directory
from lab.scenarios import CUSTOMER, SCENARIOS, Stage

pytestmark = [pytest.mark.asterisk, pytest.mark.xdist_group("asterisk"), pytest.mark.timeout(600)]

ONE_PHONE = "+375171112230"


@dataclass
class Day:
    """An office on its stage, a daemon that is linked to it, a portal whose users hold its phones: user 150 has extension 150."""

    on: Stage
    daemon: DaemonProcess
    box: Bitrix24Sandbox
    api: httpx.AsyncClient

    async def finished(self, count: int, timeout_s: float = 30) -> list[PortalCall]:
        """Waits until the portal has so many finished calls; gives those."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.box.finished()) < count:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{len(self.box.finished())} of {count}; the log ends: {self.daemon.log.read_text()[-3000:]}") from None
        return self.box.finished()

    async def next(self) -> PortalCall:
        """The call that the portal finishes next."""
        return (await self.finished(len(self.box.finished()) + 1))[-1]

    async def play(self, name: str) -> PortalCall:
        """Plays a scenario of the lab."""
        before = len(self.box.finished())
        await SCENARIOS[name].play(self.on)
        return (await self.finished(before + 1))[-1]


@pytest.fixture
async def day(asterisk_root: Path) -> AsyncIterator[Day]:
    async with AsyncExitStack() as stack:
        office = await Office.start(asterisk_root)
        stack.push_async_callback(office.stop)
        box = Bitrix24Sandbox((PortalUser("1", "Olga Admin"), *(PortalUser(n, f"Phone {n}", n) for n in (*PHONES, UNREGISTERED_PHONE, "161", "162"))))
        box.switches.fetch_records = True
        await box.start()
        stack.push_async_callback(box.stop)
        daemon = DaemonProcess(short_directory("vochid-live-"), patience=EVERYTHING)
        stack.push_async_callback(daemon.stop)
        await daemon.start()
        document: dict[str, Any] = dict(office.document())
        phones = [*document["internal_phones"], {"number": UNREGISTERED_PHONE, "owner": ""}]
        rules = [{"direction": "in", "answered": False, "do": "task", "task_deadline_s": 3600}]
        await daemon.put(
            {**document, "internal_phones": phones, "dial_rules": {"per_extension_per_minute": 100}, "integrations": {"bitrix24": box.settings(rules=rules)}}
        )
        (on, _) = await stack.enter_async_context(stage(office))
        api = await stack.enter_async_context(daemon.client())
        async with asyncio.timeout(60):
            while not any(pbx["state"] == "ready" for pbx in (await api.get("/health")).json().get("pbxs", [])):
                await asyncio.sleep(0.1)
        yield Day(on, daemon, box, api)


def said(call: PortalCall) -> dict[str, Any]:
    row = call.row or {}
    return {"user": row.get("PORTAL_USER_ID"), "code": row.get("CALL_FAILED_CODE"), "shown": sorted(call.ever_shown), "kind": call.kind}


async def test_a_day_of_calls(day: Day) -> None:
    box, on = day.box, day.on

    # Answered, and its recording fetched by the portal.
    await on.phones.behave("150", "ring")
    call = await on.phones.call(ONE_PHONE, caller=CUSTOMER)
    async with asyncio.timeout(30):
        while not box.data.calls or next(iter(box.data.calls.values())).cards != {"150"}:  # the card is there while it rings
            await asyncio.sleep(0.01)
    await on.phones.pick_up("150")
    await asyncio.wait_for(call.answered.wait(), 30)
    await asyncio.sleep(2)
    await call.hangup()
    answered = await day.next()
    assert said(answered) == {"user": "150", "code": "200", "shown": ["150"], "kind": 2}
    async with asyncio.timeout(60):
        while answered.record is None:
            await asyncio.sleep(0.05)
    assert answered.record.endswith(".wav")
    assert len(box.requests) == 3  # register, finish, attachRecord

    # A ring group, a transfer, calls that nobody took.
    assert said(await day.play("ring-group")) == {"user": "151", "code": "200", "shown": ["150", "151"], "kind": 2}
    moved = said(await day.play("blind-by-phone"))
    assert (moved["code"], moved["user"] in moved["shown"], len(moved["shown"])) == ("200", True, 2)
    missed = await day.play("inbound-cancelled")
    assert said(missed) == {"user": "150", "code": "304", "shown": ["150"], "kind": 2}
    async with asyncio.timeout(30):
        while not box.data.tasks:
            await asyncio.sleep(0.05)
    assert said(await day.play("inbound-busy"))["code"] == "486"
    assert said(await day.play("outbound-answered"))["kind"] == 1
    internal = len(box.data.calls)
    await SCENARIOS["internal-answered"].play(on)
    assert len(box.data.calls) == internal

    # Two at once from one number.
    for phone in ("150", "151"):
        await on.phones.behave(phone, "answer", delay_s=0.3)
    before = len(box.finished())
    pair = [await on.phones.call(line, caller="+375296254099") for line in (ONE_PHONE, "+375171112233")]
    await asyncio.sleep(2)
    for each in pair:
        await each.hangup()
    both = (await day.finished(before + 2))[-2:]
    assert len({call.external_id for call in both}) == len({call.id for call in both}) == 2

    await clicks(day)
    assert {text for text in box.refusals if "not finished yet" not in text} == set()
    waiting = (await day.api.get("/api/enterprises/0367/deliveries?state=dead")).json()["items"]
    assert waiting == []


async def clicks(day: Day) -> None:
    """Every outcome of a click at the portal: the portal's own call is finished, none is registered."""
    handler, on = f"http://{day.daemon.http}/bitrix24/events", day.on
    outcomes: dict[str, str] = {}

    async def click(user: str, phone: str, says: str, *, copies: int = 1) -> None:
        call_id, statuses = await day.box.click(handler, user, phone, copies=copies)
        assert set(statuses) == {200}
        try:
            async with asyncio.timeout(60):
                while (row := day.box.data.calls[call_id].row) is None:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{says}: not told; {outcomes}; the log ends: {day.daemon.log.read_text()[-3000:]}") from None
        outcomes[says] = row["CALL_FAILED_CODE"]
        assert row["PORTAL_USER_ID"] == user, says

    registered = [call.id for call in day.box.data.calls.values() if not call.by_portal]
    await on.phones.behave("150", "answer", delay_s=0.2)
    await on.phones.behave(CUSTOMER, "answer", delay_s=0.3, talk_s=1)
    await click("150", "+375296254070", "answered", copies=2)
    await on.phones.behave("152", "decline", arg="21", delay_s=0.2)
    await click("152", "+375296254071", "the manager declines")
    await click(UNREGISTERED_PHONE, "+375296254073", "the manager's phone is not there")
    await on.phones.behave("151", "answer")
    await on.phones.behave("+375296254072", "hangup", arg="17")
    await click("151", "+375296254072", "the customer is busy")
    await on.phones.behave("+375296254074", "hangup", arg="1")
    await click("151", "+375296254074", "there is no such customer")
    await click("150", "+12025550123", "a rule forbids it")
    assert outcomes == {
        "answered": "200", "the manager declines": "603-S", "the manager's phone is not there": "480", "the customer is busy": "486",
        "there is no such customer": "404", "a rule forbids it": "403",
    }  # fmt: skip
    assert [call.id for call in day.box.data.calls.values() if not call.by_portal] == registered
