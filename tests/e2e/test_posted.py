"""Calls of a PBX without a link, as it posts them: stored and told like all others, once."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx

from tests.e2e.conftest import NUMBER, House
from tests.e2e.test_api import ONE, is_problem

SECRET = "the-enterprises-own-secret-0123456789"
EVENTS = "/retailcrm/api/events"
DIAL = {
    "Token": SECRET, "UniqueId": "1763701800.7", "Phone": "375296254070", "Extensions": ["150", "151"], "Trunk": "375171112233", "CallType": 0,
    "StartTime": "2026-11-21 08:00:00",
}  # fmt: skip
BRIDGE = {"Token": SECRET, "UniqueId": "1763701800.7", "CallerIDNum": "375296254070", "ConnectedLineNum": "151", "BridgeUniqueid": "b-1"}
HANGUP = {**DIAL, "CallStatus": "2", "EndTime": "2026-11-21 08:01:00"}


def body(kind: str, payload: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"enterprise_number": NUMBER, "event_type": kind, "payload": payload, **more}


async def test_posted_events_become_one_call_that_the_crm_is_told_of_once(house: House, api: httpx.AsyncClient) -> None:
    await api.put(ONE, json={**house.document, "secret": SECRET, "pbxs": []})
    async with httpx.AsyncClient(base_url=f"http://{house.daemon.http}", trust_env=False, timeout=60) as pbx:
        for kind, payload in (("dial", DIAL), ("bridge", BRIDGE), ("hangup", HANGUP), ("download", {**HANGUP, "RecordingFile": "a.wav"})):
            answers = await asyncio.gather(*(pbx.post(EVENTS, json=body(kind, payload)) for _ in range(3)))
            assert [(answer.status_code, answer.json()) for answer in answers] == [(202, {"accepted": True})] * 3
        await house.journaled(1)
        (call,) = (await api.get(f"{ONE}/calls")).json()["items"]
        assert (call["pbx"], call["direction"], call["customer_number"], call["line"], call["rang"], call["answered_by"]) == (
            "posted", "in", "+375296254070", "+375171112233", ["150", "151"], "151"
        )  # fmt: skip
        assert (call["result"], call["started_at"], call["recordings"], call["linkedid"]) == ("answered", "2026-11-21T05:00:00.000Z", ["a.wav"], "1763701800.7")
        assert [popup["codes"] for popup in house.crm.popups("in")] == [["150", "151"]]
        assert house.crm.duplicates == 0
        assert house.crm.refusals == []

        by_header = {key: value for key, value in {**DIAL, "UniqueId": "2"}.items() if key != "Token"}
        assert (await pbx.post("/api/events", json=body("dial", by_header), headers={"X-Enterprise-Secret": SECRET})).status_code == 202
        assert (await api.post("/retailcrm-admin/api/events", json=body("hangup", {**by_header, "UniqueId": "3"}))).status_code == 202
        is_problem(await pbx.post(EVENTS, json=body("dial", by_header)), 401, "unauthorized")
        is_problem(await pbx.post(EVENTS, json=body("dial", {**DIAL, "Token": "somebody-elses-token"})), 401, "unauthorized")
        is_problem(await pbx.post(EVENTS, json={**body("dial", DIAL), "enterprise_number": "0400"}), 404)
        is_problem(await pbx.post(EVENTS, content=b"{"), 401)
        for wrong in (body("nothing", DIAL), body("dial", {**DIAL, "UniqueId": ""}), body("dial", {**DIAL, "StartTime": "now"})):
            is_problem(await pbx.post(EVENTS, json=wrong), 400, "bad_event")
        is_problem(await api.post(EVENTS, json={"event_type": "dial", "payload": {"UniqueId": "1"}}), 400, "missing_parameter")
        is_problem(await api.post(EVENTS, content=b"{"), 400, "bad_json")
        async with asyncio.timeout(30):
            while len((await api.get(f"{ONE}/calls")).json()["items"]) != 3:
                await asyncio.sleep(0.05)


async def test_a_recording_that_is_posted_after_the_call_reaches_the_crm_without_a_popup(house: House, api: httpx.AsyncClient, tmp_path: Path) -> None:
    pbx = {"name": "far", "host": "127.0.0.1", "recordings": {"source": "directory", "path": str(tmp_path)}}
    await api.put(ONE, json={**house.document, "secret": SECRET, "pbxs": [pbx]})
    now = datetime.now(ZoneInfo("Europe/Minsk"))  # links live as long as recordings are kept
    times = {"StartTime": f"{now - timedelta(seconds=60):%Y-%m-%d %H:%M:%S}", "EndTime": f"{now - timedelta(seconds=5):%Y-%m-%d %H:%M:%S}"}
    for kind, payload in (("dial", {**DIAL, **times}), ("bridge", BRIDGE), ("hangup", {**HANGUP, **times})):
        assert (await api.post(EVENTS, json=body(kind, payload))).status_code == 202
    await house.journaled(1)
    assert house.crm.links == {}
    popups = len(house.crm.popups())
    (tmp_path / "late.wav").write_bytes(b"RIFF" + bytes(5_000))
    posted = body("download", {**HANGUP, **times, "RecordingFile": "/var/spool/asterisk/monitor/late.wav"})
    assert [(await one).status_code for one in asyncio.as_completed([api.post(EVENTS, json=posted) for _ in range(3)])] == [202] * 3
    async with asyncio.timeout(30):
        while not house.crm.links:
            await asyncio.sleep(0.05)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as player:
        played = await player.get(*house.crm.links.values())
    assert (played.status_code, played.content[:4]) == (200, b"RIFF")
    assert (len(house.crm.journal), house.crm.duplicates, len(house.crm.popups())) == (1, 1, popups)
    assert house.crm.refusals == []
    kinds = [delivery["kind"] for delivery in (await api.get(f"{ONE}/deliveries")).json()["items"]]
    assert kinds.count("recording") == 1
    (call,) = (await api.get(f"{ONE}/calls")).json()["items"]
    assert call["recordings"] == ["/var/spool/asterisk/monitor/late.wav"]


async def test_what_a_pbx_with_a_link_posts_is_accepted_and_ignored(house: House, api: httpx.AsyncClient) -> None:
    await api.put(ONE, json={**house.document, "secret": SECRET})
    assert (await api.post(EVENTS, json=body("dial", DIAL))).json() == {"accepted": True}
    assert (await api.post(EVENTS, json=body("hangup", HANGUP))).status_code == 202
    assert (await api.get(f"{ONE}/calls")).json()["items"] == []
