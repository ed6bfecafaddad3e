"""Nothing lost, nothing doubled: the daemon killed, the CRM failing, the PBX dropping the line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import NUMBER, House

TRACE = f"/api/enterprises/{NUMBER}/calls/{{}}/trace?format=ami"
CALLS = ("inbound-answered", "outbound-busy", "ring-group", "inbound-cancelled", "forwarded-inside", "voicemail")


async def told_once(house: House, expected: int) -> None:
    """Every external call in the database has ended and is in the CRM's journal once."""
    await house.journaled(expected, 180)
    told = {call["id"] for call in await all_ended(house) if call["direction"] != "internal"}
    assert set(house.crm.journal) == told


async def all_ended(house: House) -> list[dict[str, Any]]:
    """Waits until no call goes on; gives all."""
    calls: list[dict[str, Any]] = []
    async with house.daemon.client() as api, asyncio.timeout(60):
        while not calls or not all(call["ended_at"] for call in calls):
            await asyncio.sleep(0.05)
            calls = (await api.get(f"/api/enterprises/{NUMBER}/calls?limit=500")).json()["items"]
    return calls


@pytest.mark.hasty("lease", "crm")  # what the dead one held is free soon
async def test_kill_9_in_mid_delivery_loses_and_doubles_nothing(embedded_house: House) -> None:
    rng = random.Random(7)
    embedded_house.crm.switches.latency_s = 0.15
    await embedded_house.daemon.put(embedded_house.document)
    await embedded_house.linked()
    for round_ in range(3):
        await embedded_house.play(*CALLS, speed=60)
        await asyncio.sleep(rng.uniform(0.05, 0.6))
        await embedded_house.daemon.kill()
        embedded_house.pbx.connected.clear()
        embedded_house.pbx.boot = ("2026-11-21", f"08:00:0{round_ + 1}")
        await embedded_house.daemon.start()
        await embedded_house.linked()
    ended = await all_ended(embedded_house)  # the PBX has rebooted: nothing goes on
    assert len(ended) >= 6
    await told_once(embedded_house, sum(call["direction"] != "internal" for call in ended))
    # Every entry the CRM took is there once: what was sent again it recognised by its externalId.
    sent = [external_id for upload in embedded_house.crm.uploads for external_id in upload.data]
    assert len(sent) - len(set(sent)) == embedded_house.crm.duplicates


async def test_a_crm_that_is_down_for_a_while_hears_everything_later(house: House) -> None:
    await house.daemon.put(house.document)
    await house.linked()
    house.crm.switches.fail_next.extend(["500"] * 1_000)
    await house.play("inbound-answered", "outbound-busy", speed=60)
    async with house.daemon.client() as api:
        async with asyncio.timeout(30):
            while len(await tried_in_vain(api)) < 2:
                await asyncio.sleep(0.05)
        assert house.crm.journal == {}
        house.crm.switches.fail_next.clear()
        async with asyncio.timeout(150):  # after too many failures it is left alone for half a minute
            while len(house.crm.journal) < 2:
                waiting = (await api.get(f"/api/enterprises/{NUMBER}/deliveries?state=waiting")).json()["items"]
                for delivery in waiting:
                    await api.post(f"/api/enterprises/{NUMBER}/deliveries/{delivery['id']}/retry")
                await asyncio.sleep(0.2)
        logs = (await api.get(f"/api/enterprises/{NUMBER}/logs?status=error")).json()["items"]
    assert logs
    assert all(log["response_data"]["status"] == 500 for log in logs)


async def tried_in_vain(api: httpx.AsyncClient) -> set[str]:
    """Calls of which something waits for another try."""
    waiting = (await api.get(f"/api/enterprises/{NUMBER}/deliveries?state=waiting")).json()["items"]
    return {delivery["call"] for delivery in waiting if delivery["attempts"]}


async def test_one_dead_crm_delays_nobody_else(house: House) -> None:
    from lab.crm.retailcrm import RetailCrmSandbox
    from lab.fakepbx import FakePbx

    other_crm, other_pbx = RetailCrmSandbox(), FakePbx()
    await other_crm.start()
    await other_pbx.start()
    try:
        house.crm.switches.fail_next.extend(["silence"] * 50)
        await house.daemon.put(house.document)
        pbx = {**house.document["pbxs"][0], "port": other_pbx.port, "secret": other_pbx.secret}
        integrations = {"retailcrm": {"domain": other_crm.url, "api_key": other_crm.api_key}}
        await house.daemon.put({**house.document, "number": "0400", "pbxs": [pbx], "integrations": integrations})
        await house.linked()
        await asyncio.wait_for(other_pbx.looked_at.wait(), 60)
        for _ in range(5):
            await house.play("ring-group", speed=200)
        from tests.e2e.conftest import GOLDEN

        await other_pbx.play(GOLDEN / "inbound-answered/asterisk-22.ami", speed=5)
        async with asyncio.timeout(30):
            while not other_crm.journal:
                await asyncio.sleep(0.02)
        assert other_crm.popups("in")
        async with house.daemon.client() as api:  # the dead one holds what it was told as before: nobody waited for it
            mine = (await api.get(f"/api/enterprises/{NUMBER}/deliveries")).json()["items"]
        assert {delivery["state"] for delivery in mine} <= {"sending", "waiting"}
        assert "sending" in {delivery["state"] for delivery in mine}
    finally:
        await house.crm.stop()  # what it holds fails at once
        await other_pbx.stop()
        await other_crm.stop()


async def test_a_lost_line_in_mid_call_leaves_no_call_open_and_none_doubled(house: House) -> None:
    await house.daemon.put(house.document)
    await house.linked()
    from tests.e2e.conftest import GOLDEN

    trace = (GOLDEN / "inbound-answered/asterisk-22.ami").read_bytes()
    house.pbx.send(trace[: trace.index(b"Event: HangupRequest")])
    await talking(house)
    house.pbx.drop()
    await house.linked()
    await house.journaled(1)
    async with house.daemon.client() as api:
        [call] = (await api.get(f"/api/enterprises/{NUMBER}/calls")).json()["items"]
    assert (call["gap"], call["result"]) == (True, "answered")
    assert call["ended_at"] is not None


async def test_a_call_that_goes_on_over_a_lost_line_stays_one_call(house: House) -> None:
    await house.daemon.put(house.document)
    await house.linked()
    from tests.e2e.conftest import GOLDEN

    trace = (GOLDEN / "inbound-answered/asterisk-22.ami").read_bytes()
    cut = trace.index(b"Event: HangupRequest")
    start = trace.index(b"Uniqueid: ") + 10
    first = trace[start : trace.index(b"\r\n", start)].decode()
    house.pbx.channels = [first, first[:-1] + str(int(first[-1]) + 1)]
    house.pbx.send(trace[:cut])
    await talking(house)
    house.pbx.drop()
    await house.linked()
    house.pbx.send(trace[cut:])
    await house.journaled(1)
    async with house.daemon.client() as api:
        [call] = (await api.get(f"/api/enterprises/{NUMBER}/calls")).json()["items"]
    assert (call["gap"], call["result"], call["answered_by"]) == (True, "answered", "150")
    assert len(house.crm.journal) == 1


async def talking(house: House) -> None:
    """Until a call is stored as answered."""
    async with house.daemon.client() as api, asyncio.timeout(30):
        while not any(call["answered_at"] for call in (await api.get(f"/api/enterprises/{NUMBER}/calls")).json()["items"]):
            await asyncio.sleep(0.05)


async def killed_in_mid_call(house: House, *, goes_on: bool) -> bytes:
    """Kills the daemon while 150 talks, starts it again; gives what the PBX has still to say."""
    from tests.e2e.conftest import GOLDEN

    await house.daemon.put(house.document)
    await house.linked()
    trace = (GOLDEN / "inbound-answered/asterisk-22.ami").read_bytes()
    cut = trace.index(b"Event: HangupRequest")
    house.pbx.send(trace[:cut])
    async with asyncio.timeout(30), house.daemon.client() as api:
        await talking_and_traced(api)
    await house.daemon.kill()
    house.pbx.connected.clear()
    start = trace.index(b"Uniqueid: ") + 10
    first = trace[start : trace.index(b"\r\n", start)].decode()
    house.pbx.channels = [first] if goes_on else []
    await house.daemon.start()
    await house.linked()
    return trace[cut:]


async def talking_and_traced(api: httpx.AsyncClient) -> None:
    """Until a call is stored as answered, the CRM has confirmed all that it was told, and the trace tells of the bridge."""
    while True:
        calls = (await api.get(f"/api/enterprises/{NUMBER}/calls")).json()["items"]
        told = {delivery["state"] for delivery in (await api.get(f"/api/enterprises/{NUMBER}/deliveries")).json()["items"]}
        if (
            calls
            and calls[0]["answered_at"]
            and told == {"delivered"}
            and (await api.get(TRACE.format(calls[0]["id"]))).content.count(b"Event: BridgeEnter") == 2
        ):
            return
        await asyncio.sleep(0.1)


@pytest.mark.hasty("lease")
async def test_a_call_that_ends_while_the_daemon_is_dead_is_told_all_the_same(house: House) -> None:
    await killed_in_mid_call(house, goes_on=False)
    await house.journaled(1)
    async with house.daemon.client() as api:
        [call] = (await api.get(f"/api/enterprises/{NUMBER}/calls")).json()["items"]
        assert (await api.get(TRACE.format(call["id"]))).content.count(b"Event: ") >= 13
    assert (call["result"], call["gap"], call["answered_by"]) == ("answered", True, "150")
    assert next(iter(house.crm.journal.values()))["result"] == "answered"


@pytest.mark.hasty("lease")
async def test_a_call_that_outlives_the_daemon_goes_on_under_its_id_and_is_told_once(embedded_house: House) -> None:
    embedded_house.pbx.send(await killed_in_mid_call(embedded_house, goes_on=True))
    await embedded_house.journaled(1)
    await asyncio.sleep(1.5)
    async with embedded_house.daemon.client() as api:
        [call] = (await api.get(f"/api/enterprises/{NUMBER}/calls")).json()["items"]
    assert (call["result"], call["gap"], call["answered_by"], call["customer_number"]) == ("answered", True, "150", "+375296254070")
    assert call["talk_seconds"] > 1
    assert len(call["legs"]) == 2
    assert list(embedded_house.crm.journal) == [call["id"]]
    assert len(embedded_house.crm.popups("in")) == 1
    async with embedded_house.daemon.client() as api, asyncio.timeout(30):
        while (trace := (await api.get(TRACE.format(call["id"]))).content).count(b"Event: Hangup\r\n") < 2:  # the second process's part
            await asyncio.sleep(0.1)
    assert trace.count(b"Event: DialBegin") == 1


async def test_a_paused_enterprise_is_left_alone_and_resumes(house: House) -> None:
    await house.daemon.put(house.document)
    await house.linked()
    done = await asyncio.to_thread(house.cli, "enterprise", "pause", NUMBER)
    assert done.returncode == 0, done.stderr
    async with house.daemon.client() as api, asyncio.timeout(30):
        while (await api.get("/health")).json()["pbxs"] or house.pbx.connections:
            await asyncio.sleep(0.05)
    house.pbx.connected.clear()
    await asyncio.to_thread(house.cli, "enterprise", "resume", NUMBER)
    await house.linked()
    await house.play("inbound-busy")
    await house.journaled(1)


async def test_an_orderly_stop_tells_what_it_knows_and_a_start_goes_on(embedded_house: House) -> None:
    await embedded_house.daemon.put(embedded_house.document)
    await embedded_house.linked()
    embedded_house.crm.switches.latency_s = 0.5  # the journal is on its way when it is told to stop
    await embedded_house.play("inbound-answered", speed=60)
    await all_ended(embedded_house)
    await embedded_house.daemon.stop(keep=True)
    embedded_house.pbx.connected.clear()
    await embedded_house.daemon.start()
    await told_once(embedded_house, 1)


async def test_a_server_of_ones_own_is_used_like_the_embedded_one(house: House, database_url: str) -> None:
    from lab.run import DaemonProcess, short_directory

    second = DaemonProcess(short_directory("vochid-own-"), extra={"VOCHID_DATABASE_URL": database_url}, patience=house.daemon.patience)
    await second.start()
    try:
        assert not (second.data_dir / "postgresql").exists()
        await second.put(house.document)
        await house.linked()
        await house.play("inbound-answered")
        await house.journaled(1)
        doctor = House(second, house.pbx, house.crm).cli
        done = await asyncio.to_thread(doctor, "doctor")
        assert "ok    direct connection" in done.stdout
    finally:
        await second.stop()


async def test_no_secret_and_no_whole_number_is_in_the_daemons_log(house: House) -> None:
    await house.daemon.put(house.document)
    await house.linked()
    house.crm.switches.fail_next.extend(["500", "html-200"])
    await house.play("inbound-answered", "cyrillic-name", speed=30)
    await asyncio.sleep(2)
    text = house.daemon.log.read_text()
    assert house.pbx.secret not in text
    assert house.crm.api_key not in text
    assert house.daemon.admin_token not in text
    assert "296254070" not in text
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            json.loads(line)
