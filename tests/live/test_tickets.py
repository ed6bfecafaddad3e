"""A desk and a real Asterisk: a missed call opens a ticket, an answered one adds to it, the call that returns a missed one closes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab.crm.tickets import TicketSandbox
from lab.office import Office
from lab.patient import EVERYTHING
from lab.phones import Phones
from lab.run import DaemonProcess, short_directory
from lab.scenarios import CUSTOMER

pytestmark = [pytest.mark.asterisk, pytest.mark.xdist_group("asterisk"), pytest.mark.timeout(600)]

ONE_PHONE = "+375171112230"  # rings 150
STRANGER = "+375447654321"


@pytest.fixture
async def office(asterisk_root: Path) -> AsyncIterator[Office]:
    running = await Office.start(asterisk_root)
    yield running
    await running.stop()


async def missed(api: httpx.AsyncClient, phones: Phones, caller: str, seen: set[str]) -> None:
    """Somebody calls, it rings, nobody answers, they give up."""
    call = await phones.call(ONE_PHONE, caller=caller)
    async with asyncio.timeout(30):
        while True:
            items = (await api.get("/api/enterprises/0367/calls", params={"limit": 10})).json()["items"]
            fresh = [one["id"] for one in items if one["rang"] and one["id"] not in seen]
            if fresh:
                break
            await asyncio.sleep(0.05)
    seen.update(fresh)
    await call.hangup()


async def notes(api: httpx.AsyncClient, count: int, daemon: DaemonProcess, phone: str = CUSTOMER) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The customer's one ticket once it has so many messages, and those."""
    try:
        async with asyncio.timeout(60):
            while True:
                items = (await api.get("/api/enterprises/0367/tickets", params={"phone": phone})).json()["items"]
                if items and items[0]["messages"] >= count:
                    (found,) = items
                    ticket = (await api.get(f"/api/enterprises/0367/tickets/{found['id']}")).json()
                    return ticket, ticket["messages"]
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"no {count} notes; the log ends: {daemon.log.read_text()[-3000:]}") from None


async def test_a_missed_call_opens_a_ticket_an_answered_one_adds_to_it_and_a_call_back_closes_it(office: Office) -> None:
    tma, daemon = TicketSandbox("tma"), DaemonProcess(short_directory("vochid-live-"), patience=EVERYTHING)
    await tma.start()
    try:
        await daemon.start()
        calls = {"missed": True, "answered": True}
        # By rule, calls that we place become notes only where they return a missed one.
        desk = {"role": "crm", "remote_url": tma.url, "deploy_token": tma.token, "calls": calls, "rules": [{"direction": "out", "do": "nothing"}]}
        await daemon.put({**office.document(), "integrations": {"tickets": desk}})
        async with Phones(office) as phones, daemon.client() as api:
            async with asyncio.timeout(30):
                while not any(pbx["state"] == "ready" for pbx in (await api.get("/health")).json().get("pbxs", [])):
                    await asyncio.sleep(0.1)

            await phones.behave("150", "ring")
            seen: set[str] = set()
            for caller in (CUSTOMER, STRANGER, CUSTOMER):
                await missed(api, phones, caller, seen)
            ticket, said = await notes(api, 2, daemon)  # two calls, one ticket
            assert (ticket["status"], ticket["customer_phone"], ticket["shared"]) == ("open", CUSTOMER, False)
            assert [(one["about"], one["message"].splitlines()[0]) for one in said] == [("ended", "Пропущенный вызов")] * 2
            theirs, _ = await notes(api, 1, daemon, STRANGER)
            assert theirs["id"] != ticket["id"]  # somebody else's call is somebody else's ticket

            # Called back: said once for both, and the ticket is closed.
            await phones.behave("150", "answer")
            await phones.behave(CUSTOMER, "answer", delay_s=0.5, talk_s=2)
            placed = await api.post("/api/enterprises/0367/calls", json={"extension": "150", "phone": CUSTOMER})
            assert placed.status_code in (200, 201, 202), placed.text
            ticket, said = await notes(api, 3, daemon)
            assert (said[2]["about"], ticket["status"], ticket["agent"]) == ("called_back", "closed", "150")
            assert said[2]["message"].startswith("Перезвонили")

            # The other one gets through: it belongs to the ticket that it closes, with who talked and the recording.
            spoken = await phones.call(ONE_PHONE, caller=STRANGER)
            await asyncio.wait_for(spoken.answered.wait(), 30)
            await asyncio.sleep(2)  # talk
            await spoken.hangup()
            theirs, said = await notes(api, 3, daemon, STRANGER)
            assert {one["about"] for one in said} == {"ended", "called_back"}
            assert (theirs["status"], theirs["agent"]) == ("closed", "150")
            answered = next(one for one in said if "Говорили: 150" in one["message"])
            (recording,) = answered["attachments"]
            assert recording["call"] == answered["call"]
        assert tma.requests == []  # what was opened here by calls stays here
    finally:
        await daemon.stop()
        await tma.stop()
