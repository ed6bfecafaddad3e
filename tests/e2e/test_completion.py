"""What the line to the PBX did not bring is completed from its CDR by itself: the whole daemon, in this process so that minutes may be moments."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.app import App
from daemon.cdr import service
from daemon.settings import Settings
from daemon.store import leases
from lab.crm.retailcrm import RetailCrmSandbox
from lab.fakepbx import FakePbx
from lab.office import PHONES
from lab.run import DaemonProcess, short_directory
from tests.cdr.test_conversations import recorded
from tests.conftest import fresh_database
from tests.e2e.conftest import GOLDEN, NUMBER, House

CALLS = f"/api/enterprises/{NUMBER}/calls?limit=10"
START, ANSWER, END = 9, 10, 11  # a Master.csv's times


def written(name: str, at: int) -> str:
    """A recorded call's CDR as if it had begun at Unix time `at`: times and Uniqueids are moved."""
    out = io.StringIO()
    rows = list(csv.reader(recorded()[name]))
    first = rows[0][-2].partition(".")[0]
    later = timedelta(seconds=at - int(first))
    for row in rows:
        moved = [field.replace(f"{first}.", f"{at}.") for field in row]
        for column in (START, ANSWER, END):
            moved[column] = str(datetime.fromisoformat(row[column]) + later) if row[column] else ""
        csv.writer(out, quoting=csv.QUOTE_ALL).writerow(moved)
    return out.getvalue()


async def until(house: House, says: str, condition: Any) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    async with house.daemon.client() as api:
        try:
            async with asyncio.timeout(60):
                while not condition(calls := (await api.get(CALLS)).json()["items"]):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{says}: {calls}") from None
    return calls


async def test_a_call_cut_off_and_a_call_never_seen_are_completed_after_the_line_is_back(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "TTL_S", 60.0)
    monkeypatch.setattr(service, "PASSES_S", tuple(map(float, range(1, 60))))
    monkeypatch.setattr(service, "POLL_S", 0.1)
    monkeypatch.setattr(service, "SETTLED", timedelta(0))
    crm, pbx = RetailCrmSandbox(codes=PHONES), FakePbx()
    await crm.start()
    await pbx.start()
    async with fresh_database(cluster) as url:
        daemon = DaemonProcess(short_directory("vochid-e2e-"), extra={"VOCHID_DATABASE_URL": url})
        for name, value in daemon.environment.items():
            if name.startswith("VOCHID_"):
                monkeypatch.setenv(name, value)
        app = App(Settings())
        await app.start()
        try:
            await cut_off_and_completed(House(daemon, pbx, crm), tmp_path)
        finally:
            await app.stop()
            await pbx.stop()
            await crm.stop()


async def cut_off_and_completed(house: House, cdr: Path) -> None:
    document = house.document
    document["pbxs"][0]["cdr"] = {"source": "csv", "path": str(cdr)}
    await house.daemon.put(document)
    await house.linked()

    now = int(time.time())
    trace = (GOLDEN / "inbound-answered/asterisk-22.ami").read_bytes()
    first = trace[trace.index(b"Uniqueid: ") + 10 :].split(b".", 1)[0]
    house.pbx.send(trace[: trace.index(b"Event: BridgeCreate")].replace(first + b".", f"{now}.".encode()))
    [ringing] = await until(house, "the call rings", lambda calls: calls and calls[0]["rang"] == ["150"])
    house.pbx.connected.clear()
    house.pbx.drop()
    [lost] = await until(house, "the line is back and the call is not", lambda calls: calls[0]["ended_at"])
    assert (lost["id"], lost["result"], lost["gap"], lost["answered_by"]) == (ringing["id"], "interrupted", True, None)

    (cdr / "Master.csv").write_text(written("inbound-answered", now) + written("ring-group", now - 5))  # only now: before, nothing completes it
    calls = await until(house, "the CDR was read", lambda calls: len(calls) == 2 and all(call["result"] == "answered" for call in calls))
    completed, unseen = sorted(calls, key=lambda call: call["id"] != ringing["id"])
    assert (completed["id"], completed["answered_by"], completed["talk_seconds"], completed["gap"]) == (ringing["id"], "150", 1.0, True)
    assert (unseen["linkedid"], unseen["answered_by"], unseen["rang"], unseen["gap"]) == (f"{now - 5}.16", "151", ["150", "151"], True)
    await house.journaled(2)
    assert set(house.crm.journal) == {completed["id"], unseen["id"]}
    assert len(house.crm.popups("in")) == 1  # the one that rang; nobody's screen hears of the other
    await asyncio.wait_for(house.pbx.connected.wait(), 30)
