"""A whole daemon as its own process, with a PBX that can only remember and a RetailCRM sandbox."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab.crm.retailcrm import RetailCrmSandbox
from lab.fakepbx import FakePbx
from lab.office import LINES, PHONES
from lab.patient import EVERYTHING
from lab.run import DaemonProcess, short_directory
from tests.conftest import fresh_database

GOLDEN = Path(__file__).parent.parent / "golden"
NUMBER = "0367"


@dataclass
class House:
    """The daemon and its neighbours."""

    daemon: DaemonProcess
    pbx: FakePbx
    crm: RetailCrmSandbox

    @property
    def document(self) -> dict[str, Any]:
        pbx = {
            "name": "main", "host": "127.0.0.1", "port": self.pbx.port, "username": self.pbx.username, "secret": self.pbx.secret,
            "trunks": ["PJSIP/provider"], "internal_number": "^1\\d\\d$",
        }  # fmt: skip
        return {
            "number": NUMBER, "name": "Июнь", "pbxs": [pbx], "lines": [{"number": line} for line in LINES],
            "internal_phones": [{"number": phone, "owner": ""} for phone in PHONES],
            "integrations": {"retailcrm": {"domain": self.crm.url, "api_key": self.crm.api_key}},
        }  # fmt: skip

    async def play(self, *names: str, speed: float = 10.0) -> None:
        """Plays recordings one after the other."""
        for name in names:
            await self.pbx.play(GOLDEN / name / "asterisk-22.ami", speed=speed)

    async def linked(self) -> None:
        """Waits until the daemon has logged in and knows what lives: what the PBX says from then on is news."""
        async with asyncio.timeout(60):
            await self.pbx.connected.wait()
            await self.pbx.looked_at.wait()

    async def journaled(self, count: int, timeout_s: float = 30.0) -> None:
        """Waits until the CRM has `count` entries."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.crm.journal) < count:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{len(self.crm.journal)} of {count} entries; the log ends: {self.daemon.log.read_text()[-3000:]}") from None

    async def settled(self, calls: int, number: str = NUMBER) -> list[dict[str, Any]]:
        """Waits until so many calls have ended and nothing waits to be told of them or is being told; gives the calls, newest first."""
        one = f"/api/enterprises/{number}"
        async with self.daemon.client() as api, asyncio.timeout(60):
            while True:
                found: list[dict[str, Any]] = (await api.get(f"{one}/calls", params={"limit": 500})).json()["items"]
                if len(found) == calls and all(call["ended_at"] for call in found):
                    states = [(await api.get(f"{one}/deliveries", params={"state": state})).json()["items"] for state in ("waiting", "sending")]
                    if states == [[], []]:
                        return found
                await asyncio.sleep(0.05)

    def cli(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """`vochid …` beside the running daemon."""
        environment = {**os.environ, **self.daemon.environment}
        return subprocess.run([*self.daemon.program, *arguments], env=environment, input=text, capture_output=True, text=True, timeout=120)


def patience(request: pytest.FixtureRequest) -> frozenset[str]:
    """What the daemon of this test has patience with: everything but what the test's mark `hasty` names, or nothing where it names nothing."""
    hasty = request.node.get_closest_marker("hasty")
    return EVERYTHING if hasty is None else EVERYTHING.difference(hasty.args) if hasty.args else frozenset()


@pytest.fixture
async def house(cluster: str, request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """On a fresh database of the test run's server: a server of its own costs seconds each time."""
    async with fresh_database(cluster) as url:
        daemon = DaemonProcess(short_directory("vochid-e2e-"), extra={"VOCHID_DATABASE_URL": url}, patience=patience(request))
        async with _house(daemon) as built:
            yield built


@pytest.fixture
async def embedded_house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """As an installation has it: the daemon runs its own PostgreSQL."""
    async with _house(DaemonProcess(short_directory("vochid-e2e-"), patience=patience(request))) as built:
        yield built


@asynccontextmanager
async def _house(daemon: DaemonProcess) -> AsyncIterator[House]:
    crm, pbx = RetailCrmSandbox(codes=PHONES), FakePbx()
    await crm.start()
    await pbx.start()
    try:
        await daemon.start()
        yield House(daemon, pbx, crm)
    finally:
        await daemon.stop()
        await pbx.stop()
        await crm.stop()


@pytest.fixture
async def api(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with house.daemon.client() as client:
        yield client
