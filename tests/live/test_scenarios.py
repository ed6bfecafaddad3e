"""The plain day on a real Asterisk with real SIP user agents: what the phones lived through is what the records say.

Runs on Asterisk 22; with LAB_ASTERISK=16 (`make lab-16`) on 16.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from daemon.calls.replay import read_trace, replay
from lab.crm.retailcrm import RetailCrmSandbox
from lab.office import AT_ONCE, PHONES, Office
from lab.patient import EVERYTHING
from lab.record import play, stage
from lab.run import DaemonProcess, short_directory
from lab.scenarios import CUSTOMER, SCENARIOS, Scenario, gathered, moves
from tests.golden.test_traces import differences
from tests.golden.view import VIEW

pytestmark = [pytest.mark.asterisk, pytest.mark.xdist_group("asterisk"), pytest.mark.timeout(600)]


@asynccontextmanager
async def an_office(root: Path, nth: int = 0) -> AsyncIterator[Office]:
    running = await Office.start(root, nth)
    try:
        yield running
    finally:
        await running.stop()


@pytest.fixture
async def office(asterisk_root: Path) -> AsyncIterator[Office]:
    async with an_office(asterisk_root) as running:
        yield running


# Of the moved calls a core set is played each time, the others with LAB_ALL=1; their recordings are replayed always.
CORE_MOVES = {
    "attended-by-phone", "blonde-by-phone", "blind-by-phone", "chain-of-transfers", "redirected", "hold", "pickup-by-group", "pickup-by-replaces",
    "parked-and-fetched", "conference", "paged", "two-devices", "follow-me-confirmed", "reserve-trunk",
}  # fmt: skip


def is_played(scenario: Scenario) -> bool:
    return "LAB_ALL" in os.environ or scenario.play.__module__ not in (moves.__name__, gathered.__name__) or scenario.name in CORE_MOVES


async def test_every_scenario_gives_the_records_that_the_phones_lived_through(asterisk_root: Path) -> None:
    """A scenario is mostly waiting: several offices share them."""
    waiting = deque(filter(is_played, SCENARIOS.values()))
    wrong: dict[str, list[str]] = {}

    async def one_office(nth: int) -> None:
        async with an_office(asterisk_root, nth) as office, stage(office) as (on, tape):
            while waiting:
                scenario = waiting.popleft()
                data, sidecar = await play(scenario, on, tape)
                calls = replay(read_trace("live.ami", data, sidecar), VIEW)
                if problems := differences([call.to_json() for call in calls], scenario.expect):
                    wrong[scenario.name] = problems

    async with asyncio.TaskGroup() as offices:
        for nth in range(AT_ONCE):
            offices.create_task(one_office(nth))
    assert wrong == {}


async def test_real_calls_reach_the_crm_and_the_popup_comes_while_the_phone_rings(office: Office) -> None:
    sandbox, daemon = RetailCrmSandbox(codes=PHONES), DaemonProcess(short_directory("vochid-live-"), patience=EVERYTHING)
    await sandbox.start()
    try:
        await daemon.start()
        await daemon.put({**office.document(), "integrations": {"retailcrm": {"domain": sandbox.url, "api_key": sandbox.api_key}}})
        async with stage(office) as (on, _):
            async with daemon.client() as api:
                async with asyncio.timeout(60):
                    while (await api.get("/health")).json().get("status") != "ok" or not (await api.get("/health")).json()["pbxs"]:
                        await asyncio.sleep(0.1)
            await on.phones.behave("150", "ring")
            call = await on.phones.call("+375171112230", caller=CUSTOMER)
            async with asyncio.timeout(30):
                while not sandbox.popups("in"):
                    await asyncio.sleep(0.01)
            assert not call.answered.is_set()
            await on.phones.pick_up("150")
            await asyncio.wait_for(call.answered.wait(), 30)
            await asyncio.sleep(1)
            await call.hangup()
            for name in ("inbound-cancelled", "outbound-answered", "queue-ringall", "click-local-dial", "internal-answered"):
                await SCENARIOS[name].play(on)
                await asyncio.sleep(0.5)
            async with asyncio.timeout(60):
                while len(sandbox.journal) < 5:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1)
        told = sorted(sandbox.journal.values(), key=lambda entry: str(entry["date"]))  # a journal with a recording waits for it
        assert [(entry["type"], entry["result"]) for entry in told] == [
            ("in", "answered"), ("in", "no answer"), ("out", "answered"), ("in", "answered"), ("out", "answered"),
        ]  # fmt: skip
        assert sandbox.duplicates == 0
        assert sandbox.refusals == []
    finally:
        await daemon.stop()
        await sandbox.stop()


async def test_doctor_is_content_with_a_pbx_that_runs_the_shipped_configuration(office: Office) -> None:
    from daemon.doctor import check_pbx
    from daemon.tenants.document import Enterprise

    pbx = Enterprise.model_validate(office.document()).pbxs[0]
    checks = [check async for check in check_pbx(pbx)]
    assert [check for check in checks if not check.ok] == []
    assert {check.name for check in checks} == {"login", "rights", "events", "clock", "second opinion"}
