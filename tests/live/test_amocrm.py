"""amoCRM and a real Asterisk: a missed call becomes a task, the call back closes it; strangers become incoming leads; recordings play."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab.crm.amocrm import AmoCrmSandbox
from lab.office import Office
from lab.patient import EVERYTHING
from lab.phones import Phones
from lab.run import DaemonProcess, short_directory
from lab.scenarios import CUSTOMER

pytestmark = [pytest.mark.asterisk, pytest.mark.xdist_group("asterisk"), pytest.mark.timeout(600)]

ONE_PHONE, GROUP = "+375171112230", "+375171112233"
STRANGER = "+375447654321"
RULES = [
    {"direction": "in", "answered": False, "known": True, "do": "task", "responsible": "entity", "task_deadline_s": 900},
    {"direction": "in", "answered": True, "known": False, "do": "lead", "responsible": "first_answered"},
]


@pytest.fixture
async def office(asterisk_root: Path) -> AsyncIterator[Office]:
    running = await Office.start(asterisk_root)
    yield running
    await running.stop()


async def until(condition: Callable[[], Any], daemon: DaemonProcess, timeout_s: float = 45) -> Any:
    try:
        async with asyncio.timeout(timeout_s):
            while not (found := condition()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"it did not happen; the log ends: {daemon.log.read_text()[-3000:]}") from None
    return found


async def test_missed_called_back_and_strangers(office: Office) -> None:
    box, daemon = AmoCrmSandbox(), DaemonProcess(short_directory("vochid-live-"), patience=EVERYTHING)
    await box.start()
    account, made = box.account, box.oauth.integration
    contact = account.contact("Восток", "8 (029) 625-40-70", 7031002)  # as people write it
    try:
        await daemon.start()
        made.redirect_uri = f"http://{daemon.http}/amocrm/callback"
        amo = {
            "base_url": box.url, "client_id": made.client_id, "client_secret": made.client_secret, "long_lived_token": box.oauth.long_lived(),
            "user_extensions": {"7031001": "150", "7031002": "151"}, "rules": RULES,
        }  # fmt: skip
        await daemon.put({**office.document(), "integrations": {"amocrm": amo}})
        async with Phones(office) as phones, daemon.client() as api:
            async with asyncio.timeout(60):
                while not any(pbx["state"] == "ready" for pbx in (await api.get("/health")).json().get("pbxs", [])):
                    await asyncio.sleep(0.1)

            for phone in ("150", "151"):
                await phones.behave(phone, "ring")
            call = await phones.call(GROUP, caller=CUSTOMER)
            await until(lambda: {user for event in box.calls.events for user in event["users"]} == {7031001, 7031002}, daemon)
            await call.hangup()
            (task,) = await until(lambda: list(account.tasks.values()), daemon)
            assert (task["entity_id"], task["responsible_user_id"]) == (contact["id"], 7031002)
            (note,) = account.calls()
            assert (note["note_type"], note["params"]["call_status"], note["params"]["duration"]) == ("call_in", 6, 0)

            popups = len(box.calls.events)
            await phones.behave("151", "answer")
            await phones.behave(CUSTOMER, "answer", delay_s=0.5, talk_s=2)
            async with httpx.AsyncClient(base_url=f"http://{daemon.http}", trust_env=False, timeout=60) as widget:
                placed = await widget.post("/amocrm/make-call", data={"phone": CUSTOMER}, headers={"X-Auth-Token": box.oauth.disposable(7031002)})
            assert placed.json()["state"] == "sent", placed.text
            await until(lambda: account.tasks[task["id"]]["is_completed"], daemon)
            assert "151" in account.tasks[task["id"]]["result"]["text"]
            out = await until(lambda: next((one for one in account.calls() if one["note_type"] == "call_out"), None), daemon)
            assert (out["entity_id"], out["params"]["call_status"], out["responsible_user_id"]) == (contact["id"], 4, 7031002)
            assert len(box.calls.events) == popups  # the card is open where he clicked

            await phones.behave("150", "answer", delay_s=0.3)
            stranger = await phones.call(ONE_PHONE, caller=STRANGER)
            await asyncio.wait_for(stranger.answered.wait(), 30)
            await asyncio.sleep(2)  # talk
            await stranger.hangup()
            (lead,) = await until(lambda: list(account.leads.values()), daemon)
            assert lead["responsible_user_id"] == 7031001
            spoken = await until(lambda: next((one for one in account.calls() if one["entity_id"] == lead["id"]), None), daemon)
            assert (spoken["params"]["phone"], spoken["params"]["call_status"]) == (STRANGER, 4)
            async with httpx.AsyncClient(trust_env=False, timeout=60) as player:
                whole = await player.get(spoken["params"]["link"])
            assert whole.status_code == 200
            assert whole.headers["content-type"] in ("audio/mpeg", "audio/wav")
        assert not [line for line in box.refusals if "Entity not found" not in line]
    finally:
        await daemon.stop()
        await box.stop()
