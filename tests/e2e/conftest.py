"""A whole daemon as its own process, with a PBX that can only remember and a RetailCRM sandbox."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
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
        """Waits for the daemon's login."""
        await asyncio.wait_for(self.pbx.connected.wait(), 15)
        await asyncio.sleep(0.3)

    async def journaled(self, count: int, timeout_s: float = 15.0) -> None:
        """Waits until the CRM has `count` entries."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.crm.journal) < count:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{len(self.crm.journal)} of {count} entries; the log ends: {self.daemon.log.read_text()[-3000:]}") from None

    def cli(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """`vochid …` beside the running daemon."""
        return subprocess.run(
            [sys.executable, "-m", "daemon", *arguments], env={**os.environ, **self.daemon.environment}, input=text, capture_output=True, text=True, timeout=60
        )


@pytest.fixture
async def house(cluster: str) -> AsyncIterator[House]:
    """On a fresh database of the test run's server: a server of its own costs seconds each time."""
    async with fresh_database(cluster) as url, _house(DaemonProcess(short_directory("vochid-e2e-"), extra={"VOCHID_DATABASE_URL": url})) as built:
        yield built


@pytest.fixture
async def embedded_house() -> AsyncIterator[House]:
    """As an installation has it: the daemon runs its own PostgreSQL."""
    async with _house(DaemonProcess(short_directory("vochid-e2e-"))) as built:
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
