"""A real Asterisk records a call with MixMonitor; the CRM's journal entry carries a link that plays the file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from lab.crm.retailcrm import RetailCrmSandbox
from lab.office import PHONES, Office
from lab.patient import EVERYTHING
from lab.record import stage
from lab.run import DaemonProcess, short_directory
from lab.scenarios import CUSTOMER

pytestmark = [pytest.mark.asterisk, pytest.mark.xdist_group("asterisk"), pytest.mark.timeout(600)]


@pytest.fixture
async def office(asterisk_root: Path) -> AsyncIterator[Office]:
    running = await Office.start(asterisk_root)
    yield running
    await running.stop()


async def test_the_journal_of_a_real_call_carries_a_link_that_plays_its_recording(office: Office) -> None:
    sandbox, daemon = RetailCrmSandbox(codes=PHONES), DaemonProcess(short_directory("vochid-live-"), patience=EVERYTHING)
    await sandbox.start()
    try:
        await daemon.start()
        await daemon.put({**office.document(), "integrations": {"retailcrm": {"domain": sandbox.url, "api_key": sandbox.api_key}}})
        async with stage(office) as (on, _), daemon.client() as api:
            async with asyncio.timeout(60):
                while not any(pbx["state"] == "ready" for pbx in (await api.get("/health")).json().get("pbxs", [])):
                    await asyncio.sleep(0.1)
            await on.phones.behave("150", "answer", delay_s=1)
            call = await on.phones.call("+375171112230", caller=CUSTOMER)
            await asyncio.wait_for(call.answered.wait(), 30)
            await asyncio.sleep(3)  # talk
            assert sandbox.journal == {}
            await call.hangup()
            async with asyncio.timeout(60):
                while not sandbox.journal:
                    await asyncio.sleep(0.1)
        (entry,) = sandbox.journal.values()
        async with httpx.AsyncClient(trust_env=False, timeout=60) as player:
            whole = await player.get(entry["recordUrl"])
            assert (whole.status_code, whole.headers["content-type"]) == (200, "audio/wav")
            assert whole.content[:4] == b"RIFF"
            assert whole.content[8:12] == b"WAVE"
            assert int.from_bytes(whole.content[4:8], "little") == len(whole.content) - 8  # Asterisk has closed it: the header tells its length
            assert len(whole.content) > 16_000  # more than a second of 8 kHz sound
            part = await player.get(entry["recordUrl"], headers={"Range": "bytes=44-1043"})
            assert (part.status_code, part.content) == (206, whole.content[44:1044])
    finally:
        await daemon.stop()
        await sandbox.stop()
