"""A real PBX killed, restarted, cut off, and the daemon killed, each in mid-call: no call stays open, none is doubled, the journal is told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab.cable import Cable
from lab.crm.retailcrm import RetailCrmSandbox
from lab.office import PHONES, Office
from lab.phones import Phones, Placed
from lab.run import DaemonProcess, short_directory
from lab.scenarios import CUSTOMER

pytestmark = [pytest.mark.asterisk, pytest.mark.xdist_group("asterisk"), pytest.mark.timeout(600)]

ONE_PHONE, GROUP = "+375171112230", "+375171112233"
CALLS = "/api/enterprises/0367/calls"


@dataclass
class Site:
    """An office behind a cable, the daemon, a CRM."""

    office: Office
    cable: Cable
    daemon: DaemonProcess
    crm: RetailCrmSandbox
    phones: Phones
    api: httpx.AsyncClient

    async def calls(self) -> list[dict[str, Any]]:
        """Every stored call, oldest first."""
        return list(reversed((await self.api.get(CALLS)).json()["items"]))

    async def until(self, says: str, condition: Callable[[list[dict[str, Any]]], object], timeout_s: float = 60) -> list[dict[str, Any]]:
        """Waits until the stored calls are as wanted."""
        calls: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(timeout_s):
                while not calls or not condition(calls):
                    await asyncio.sleep(0.1)
                    calls = await self.calls()
        except TimeoutError:
            raise AssertionError(f"{says}: {calls}\n{self.daemon.log.read_text()[-3000:]}") from None
        return calls

    async def linked(self) -> None:
        """Waits for a link whose snapshot was read."""
        before = self.daemon.log.read_text().count('"resynced"')
        async with asyncio.timeout(90):
            while self.daemon.log.read_text().count('"resynced"') <= before:
                await asyncio.sleep(0.1)

    async def talking(self, line: str = ONE_PHONE, caller: str = CUSTOMER, *, known: bool = True) -> Placed:
        """A customer who talks with 150."""
        await self.phones.behave("150", "answer", delay_s=0.3)
        count = len(await self.calls()) if known else 0
        call = await self.phones.call(line, caller=caller)
        await asyncio.wait_for(call.answered.wait(), 30)
        if known:
            await self.until("answered", lambda calls: len(calls) == count + 1 and calls[-1]["answered_at"])
        return call


@asynccontextmanager
async def site_of(root: Path) -> AsyncIterator[Site]:
    office = await Office.start(root)
    cable, sandbox, daemon = Cable(office.ports.pbx_ami), RetailCrmSandbox(codes=PHONES), DaemonProcess(short_directory("vochid-resync-"))
    try:
        await cable.mend()
        await sandbox.start()
        await daemon.start()
        async with Phones(office) as phones, daemon.client() as api:
            yield Site(office, cable, daemon, sandbox, phones, api)
    finally:
        await daemon.stop()
        await sandbox.stop()
        await cable.cut()
        await office.stop()


@pytest.fixture
async def site(asterisk_root: Path) -> AsyncIterator[Site]:
    async with site_of(asterisk_root) as running:
        yield running


async def test_whatever_breaks_in_mid_call_leaves_no_call_open_and_none_doubled(site: Site) -> None:
    """One day of an unlucky PBX, step by step; the calls pile up and are counted at the end."""
    document: dict[str, Any] = {**site.office.document(), "integrations": {"retailcrm": {"domain": site.crm.url, "api_key": site.crm.api_key}}}
    document["pbxs"][0]["port"] = site.cable.port

    # A call that runs already when we first connect is taken in, with who talks.
    running = await site.talking(known=False)
    await asyncio.gather(site.linked(), site.daemon.put(document))
    [call] = await site.until("taken in", lambda calls: len(calls) == 1 and calls[0]["answered_at"])
    assert (call["direction"], call["customer_number"], call["answered_by"], call["line"], call["gap"]) == ("in", CUSTOMER, "150", ONE_PHONE, True)
    await running.hangup()
    [call] = await site.until("ended", lambda calls: calls[-1]["ended_at"])
    assert (call["result"], call["rang"]) == ("answered", ["150"])

    # A lost line: the call goes on under its id, and its talk is counted through.
    going = await site.talking()
    await site.cable.cut()
    await asyncio.sleep(1.5)
    await asyncio.gather(site.linked(), site.cable.mend())
    await asyncio.sleep(1)
    await going.hangup()
    calls = await site.until("went on", lambda calls: calls[-1]["ended_at"])
    assert len(calls) == 2
    assert (calls[1]["result"], calls[1]["gap"], calls[1]["answered_by"]) == ("answered", True, "150")
    assert calls[1]["talk_seconds"] > 2.4

    # A lost line, and the call ends meanwhile.
    ending = await site.talking()
    await site.cable.cut()
    await ending.hangup()
    await asyncio.wait_for(ending.ended.wait(), 30)
    await asyncio.gather(site.linked(), site.cable.mend())
    calls = await site.until("closed", lambda calls: len(calls) == 3 and calls[-1]["ended_at"])
    assert (calls[2]["result"], calls[2]["gap"]) == ("answered", True)

    # The daemon is killed; a call goes on, another rings and is answered while nobody looks.
    going = await site.talking()
    await site.phones.behave("151", "answer", delay_s=2)
    ringing = await site.phones.call(GROUP, caller="+375296254079")
    calls = await site.until("rings", lambda calls: len(calls) == 5 and calls[-1]["rang"])
    await site.daemon.kill()
    await asyncio.wait_for(ringing.answered.wait(), 30)
    await asyncio.gather(site.linked(), site.daemon.start())
    await asyncio.sleep(1.2)
    await going.hangup()
    await ringing.hangup()
    calls = await site.until("went on", lambda calls: all(call["ended_at"] for call in calls))
    assert len(calls) == 5
    assert [(c["result"], c["answered_by"], c["customer_number"]) for c in calls[3:]] == [("answered", "150", CUSTOMER), ("answered", "150", "+375296254079")]
    assert calls[3]["talk_seconds"] > 2

    # `core restart now` and kill -9: the one who talked stays answered, the one who rang is interrupted.
    for how in ("core restart now", "kill -9"):
        count = len(calls)
        await site.talking()
        await site.phones.behave("152", "ring")
        await site.phones.behave("153", "ring")
        await site.phones.call("+375171112237", caller="+375296254078")
        await site.until("both", lambda calls, count=count: len(calls) == count + 2 and calls[-1]["rang"])  # type: ignore[misc]
        if how == "kill -9":
            assert site.office.pbx.process is not None
            site.office.pbx.process.kill()
            await site.office.pbx.process.wait()
            await asyncio.gather(site.linked(), site.office.pbx.start(site.office.ports.pbx_ami))
        else:
            await asyncio.gather(site.linked(), site.office.pbx.cli(how))
        calls = await site.until("closed", lambda calls: all(call["ended_at"] for call in calls))
        assert len(calls) == count + 2
        assert [(c["result"], c["gap"], c["missed"]) for c in calls[count:]] == [("answered", True, False), ("interrupted", True, True)]

    # Afterwards everything works as before, and the journal has each call once.
    fresh = await site.talking()
    await fresh.hangup()
    calls = await site.until("as before", lambda calls: all(call["ended_at"] for call in calls) and len(calls) == 10)
    assert (calls[-1]["result"], calls[-1]["gap"]) == ("answered", False)
    async with asyncio.timeout(60):
        while len(site.crm.journal) < 10:
            await asyncio.sleep(0.1)
    assert set(site.crm.journal) == {call["id"] for call in calls}
    assert len({call["id"] for call in calls}) == 10
    assert site.crm.duplicates == 0
