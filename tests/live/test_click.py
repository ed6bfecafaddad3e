"""Click-to-call on a real Asterisk, over HTTP and through the running daemon: both dial styles, every outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab.crm.retailcrm import RetailCrmSandbox
from lab.office import PHONES, UNREGISTERED_PHONE, Office
from lab.patient import EVERYTHING
from lab.phones import Phones
from lab.run import DaemonProcess, short_directory
from lab.scenarios import CUSTOMER

pytestmark = [pytest.mark.asterisk, pytest.mark.xdist_group("asterisk"), pytest.mark.timeout(600)]

SECRET = "the-enterprises-own-secret-0123456789"


@dataclass
class House:
    """An office with its phones, a daemon that is linked to its PBX, and a CRM."""

    office: Office
    phones: Phones
    daemon: DaemonProcess
    crm: RetailCrmSandbox
    api: httpx.AsyncClient

    def document(self, **pbx: Any) -> dict[str, Any]:
        built: dict[str, Any] = dict(self.office.document())
        built["pbxs"] = [{**built["pbxs"][0], **pbx}]
        phones = [*built["internal_phones"], {"number": UNREGISTERED_PHONE, "owner": ""}]
        crm = {"domain": self.crm.url, "api_key": self.crm.api_key, "user_extensions": {str(n): n for n in (*PHONES, UNREGISTERED_PHONE)}}
        return {**built, "secret": SECRET, "internal_phones": phones, "dial_rules": {"per_extension_per_minute": 100}, "integrations": {"retailcrm": crm}}

    async def set(self, **pbx: Any) -> None:
        await self.daemon.put(self.document(**pbx))

    async def click(self, user: str, phone: str) -> tuple[int, dict[str, Any]]:
        return await self.crm.click(f"http://{self.daemon.http}", SECRET, phone, user_id=user)

    async def request(self, request_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.api.get(f"/api/enterprises/0367/calls/requests/{request_id}")).json()
        return found

    async def until(self, request_id: str, *states: str, timeout_s: float = 45) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while (found := await self.request(request_id))["state"] not in states:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not {states} but {found}; the log ends: {self.daemon.log.read_text()[-3000:]}") from None
        return found

    async def call(self, request_id: str) -> dict[str, Any]:
        """The stored, ended call of a request."""
        async with asyncio.timeout(30):
            while True:
                calls = (await self.api.get("/api/enterprises/0367/calls?limit=500")).json()["items"]
                linkedid = f"vochid-click-{request_id.replace('-', '')}"
                found: list[dict[str, Any]] = [call for call in calls if call["linkedid"] == linkedid and call["ended_at"]]
                if found:
                    assert len(found) == 1
                    return found[0]
                await asyncio.sleep(0.05)


@pytest.fixture
async def house(asterisk_root: Path) -> AsyncIterator[House]:
    office = await Office.start(asterisk_root)
    crm, daemon = RetailCrmSandbox(codes=(*PHONES, UNREGISTERED_PHONE)), DaemonProcess(short_directory("vochid-live-"), patience=EVERYTHING - {"lease"})
    try:
        await crm.start()
        await daemon.start()
        async with Phones(office) as phones, daemon.client() as api:
            built = House(office, phones, daemon, crm, api)
            await built.set()
            async with asyncio.timeout(60):
                while not any(pbx["state"] == "ready" for pbx in (await api.get("/health")).json().get("pbxs", [])):
                    await asyncio.sleep(0.1)
            yield built
    finally:
        await daemon.stop()
        await crm.stop()
        await office.stop()


STYLES = [
    {"originate_channel": channel, "originate_second": second}
    for channel in ("Local/{extension}@{context}", "PJSIP/{extension}")
    for second in ("exten", "dial")
]


async def test_every_outcome_of_a_click(house: House) -> None:
    phones = house.phones
    await phones.behave("155", "ring")
    status, absent = await house.click("155", "+375296254055")  # it rings for half a minute while everything else happens
    assert (status, absent["state"]) == (200, "sent")

    for style in STYLES:
        await house.set(**style)
        await asyncio.sleep(0.3)
        await phones.behave("150", "answer", delay_s=0.4)
        await phones.behave(CUSTOMER, "answer", delay_s=0.6)
        await _answered(house, f"{CUSTOMER[:-1]}{STYLES.index(style)}")
        await phones.behave("150", "decline", arg="21", delay_s=0.2)
        await _manager_declines(house, f"{CUSTOMER[:-2]}1{STYLES.index(style)}")

    await house.set()
    await asyncio.sleep(0.3)
    await phones.behave("151", "answer")
    for number, how, arg, code, result in (
        ("+375296254021", "hangup", "17", "customer_busy", "busy"),
        ("+375296254022", "decline", "19", "customer_no_answer", "no_answer"),
        ("+375296254023", "hangup", "21", "customer_rejected", "rejected"),
        ("+375296254024", "hangup", "1", "customer_unavailable", "unavailable"),
    ):
        await phones.behave(number, how, arg=arg)
        _, placed = await house.click("151", number)
        ended = await house.until(placed["request_id"], "ended", "failed")
        call = await house.call(placed["request_id"])
        assert (ended["state"], ended["code"], call["result"], call["click_to_call"], ended["call"]) == ("ended", code, result, True, call["id"]), (ended, call)
    await phones.behave("+375296254025", "ring")
    _, placed = await house.click("151", "+375296254025")
    await house.until(placed["request_id"], "manager_answered")
    await asyncio.sleep(0.5)
    await phones.hangup_callee("151")
    assert (await house.until(placed["request_id"], "ended"))["code"] == "manager_hung_up"

    _, placed = await house.click(UNREGISTERED_PHONE, "+375296254026")
    failed = await house.until(placed["request_id"], "failed")
    call = await house.call(placed["request_id"])
    assert (failed["code"], call["initiator"], call["click_to_call"], call["direction"]) == ("manager_unreachable", UNREGISTERED_PHONE, True, "out"), (
        failed,
        call,
    )

    await house.set(originate_channel="Nothing/{extension}")
    await asyncio.sleep(0.3)
    status, placed = await house.click("152", "+375296254027")
    assert status == 200, placed
    assert (await house.until(placed["request_id"], "failed"))["code"] == "manager_unreachable"
    call = await house.call(placed["request_id"])
    assert (call["result"], call["initiator"]) == ("unavailable", "152")

    await house.set(internal_context="nowhere", originate_channel="PJSIP/{extension}")
    await asyncio.sleep(0.3)
    status, refused = await house.click("152", "+375296254028")
    assert (status, refused["code"]) == (400, "pbx_refused")
    assert "Extension does not exist" in refused["detail"]

    failed = await house.until(absent["request_id"], "failed", timeout_s=90)
    assert (failed["code"], failed["reason"]) == ("manager_no_answer", "the manager did not pick up")
    call = await house.call(absent["request_id"])
    assert (call["result"], call["customer_number"], call["click_to_call"]) == ("no_answer", "+375296254055", True)

    async with asyncio.timeout(60):
        while len(house.crm.journal) < 17:
            await asyncio.sleep(0.1)
    assert house.crm.refusals == []
    by_phone = {entry["phone"]: (entry["result"], entry["code"]) for entry in house.crm.journal.values()}
    assert by_phone["375296254021"] == ("busy", "151")
    assert by_phone["375296254055"] == ("no answer", "155")
    assert by_phone["375296254028"] == ("failed", "152")
    logged = (await house.api.get("/api/enterprises/0367/logs?event_type=make_call&limit=500")).json()["items"]
    assert len(logged) == 17
    assert {entry["status"] for entry in logged} == {"success", "error"}


async def _answered(house: House, customer: str) -> None:
    await house.phones.behave(customer, "answer", delay_s=0.6)
    status, placed = await house.click("150", customer)
    assert (status, placed["success"], placed["state"]) == (200, True, "sent"), placed
    await house.until(placed["request_id"], "manager_answered", "customer_answered")
    assert house.phones.shown["150"][-1] == customer  # the manager saw whom the call is for, before picking up
    await house.until(placed["request_id"], "customer_answered")
    await asyncio.sleep(0.3)
    await house.phones.hangup_callee(customer)
    ended = await house.until(placed["request_id"], "ended")
    call = await house.call(placed["request_id"])
    assert (ended["code"], ended["call"]) == (None, call["id"])
    assert (call["direction"], call["click_to_call"], call["result"], call["initiator"], call["answered_by"], call["customer_number"]) == (
        "out", True, "answered", "150", "150", customer
    )  # fmt: skip


async def _manager_declines(house: House, customer: str) -> None:
    _, placed = await house.click("150", customer)
    failed = await house.until(placed["request_id"], "failed")
    call = await house.call(placed["request_id"])
    assert failed["code"] in ("manager_rejected", "manager_busy", "manager_no_answer", "manager_unreachable", "congestion", "manager_hung_up"), failed
    assert (call["answered_at"], call["initiator"], call["customer_number"]) == (None, "150", customer)


async def test_a_daemon_that_is_killed_while_the_manager_rings_follows_the_click_afterwards_and_rings_nobody_twice(house: House) -> None:
    await house.phones.behave("150", "answer", delay_s=10)
    await house.phones.behave(CUSTOMER, "answer", delay_s=0.5)
    _, placed = await house.click("150", CUSTOMER)
    await house.daemon.kill()
    await house.daemon.start()
    await house.until(placed["request_id"], "manager_answered", "customer_answered", timeout_s=60)
    await asyncio.sleep(1)
    await house.phones.hangup_callee(CUSTOMER)
    await house.until(placed["request_id"], "customer_answered", "ended", timeout_s=60)
    calls = (await house.api.get("/api/enterprises/0367/calls")).json()["items"]
    assert {(call["click_to_call"], call["direction"]) for call in calls} == {(True, "out")}
    assert house.phones.shown["150"] == [CUSTOMER]
