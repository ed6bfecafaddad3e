"""What is done about calls after the event, from outside: the trace, the story, missed calls."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx

from tests.cdr.test_conversations import recorded
from tests.e2e.conftest import House
from tests.e2e.test_api import ONE, is_problem


async def trace_of(api: httpx.AsyncClient, call_id: str) -> bytes:
    """Waits until a call's trace was put away as a whole: every channel in it has hung up."""
    async with asyncio.timeout(30):
        while True:
            answer = await api.get(f"{ONE}/calls/{call_id}/trace", params={"format": "ami"})
            if answer.status_code != 404 and answer.content.count(b"Event: Hangup\r\n") == answer.content.count(b"Event: Newchannel\r\n"):
                break
            await asyncio.sleep(0.1)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == f'attachment; filename="{call_id}.ami"'
    return answer.content


async def test_a_calls_story_is_told_and_its_trace_replays_to_the_same_record(house: House, api: httpx.AsyncClient, tmp_path: Path) -> None:
    await api.put(ONE, json=house.document)
    await house.linked()
    await house.play("ring-group", "twenty-at-once", "internal-answered", speed=20)
    calls = await house.settled(22)
    first = min(calls, key=lambda call: call["started_at"])
    (tmp_path / "support.ami").write_bytes(await trace_of(api, first["id"]))
    (tmp_path / "settings.json").write_text(json.dumps(house.document))
    done = await asyncio.to_thread(house.cli, "calls", "replay", str(tmp_path / "support.ami"), "--settings", str(tmp_path / "settings.json"), "--json")
    assert done.returncode == 0, done.stderr
    [again] = [json.loads(line) for line in done.stdout.splitlines()]
    assert {key: value for key, value in again.items() if key not in ("id", "legs")} == {
        key: value for key, value in first.items() if key not in ("id", "legs")
    }

    story = (await api.get(f"{ONE}/calls/{first['id']}/trace")).json()
    assert story["call"] == first
    kinds = [item["kind"] for item in story["items"]]
    assert set(kinds) == {"event", "change", "delivery", "answer"}
    assert [item["at"] for item in story["items"]] == sorted(item["at"] for item in story["items"])
    assert kinds[0] == "event"
    assert story["items"][0]["what"] == "Newchannel"
    said = [item["what"] for item in story["items"] if item["kind"] == "change"]
    assert [one for one in said if one.startswith(("Ringing", "Answered", "Ended"))][-1].startswith("Ended")
    assert {item["what"] for item in story["items"] if item["kind"] == "answer"} >= {"retailcrm popup: success", "retailcrm journal: success"}
    assert house.crm.api_key not in json.dumps(story)
    assert story["notes"] == []

    inside = next(call for call in calls if call["direction"] == "internal")
    await trace_of(api, inside["id"])
    assert "Internal calls are stored and never told to CRMs." in (await api.get(f"{ONE}/calls/{inside['id']}/trace")).json()["notes"]
    is_problem(await api.get(f"{ONE}/calls/nonsense/trace"), 404)
    is_problem(await api.get(f"{ONE}/calls/{first['id']}/trace?format=xml"), 400)

    shown = await asyncio.to_thread(house.cli, "calls", "explain", first["id"], "--ami", str(tmp_path / "again.ami"))
    assert shown.returncode == 0, shown.stderr
    assert "retailcrm popup: delivered" in shown.stdout
    assert (tmp_path / "again.ami").read_bytes() == (tmp_path / "support.ami").read_bytes()
    unknown = await asyncio.to_thread(house.cli, "calls", "explain", "00000000-0000-0000-0000-000000000000")
    assert (unknown.returncode, "there is no call" in unknown.stderr) == (1, True)


async def test_missed_calls_are_listed_counted_and_closed(house: House, api: httpx.AsyncClient) -> None:
    await api.put(ONE, json=house.document)
    await house.linked()
    await house.play("inbound-not-answered", "inbound-busy", speed=20)
    await house.journaled(2)
    listed = (await api.get(f"{ONE}/missed")).json()
    assert (listed["open"], listed["next"]) == (1, None)
    [item] = listed["items"]
    assert (item["count"], item["customer_number"], item["closed_at"]) == (2, "+375296254070", None)
    await house.play("outbound-busy", speed=20)  # tried, not reached
    await house.journaled(3)
    assert (await api.get(f"{ONE}/missed")).json()["open"] == 1
    await house.play("outbound-answered", speed=20)
    await house.journaled(4)
    assert (await api.get(f"{ONE}/missed")).json() == {"items": [], "next": None, "open": 0}
    [item] = (await api.get(f"{ONE}/missed?state=closed")).json()["items"]
    assert (item["closed_how"], item["closed_by"], item["count"]) == ("called_back", "151", 2)
    await house.play("inbound-declined", speed=20)
    await house.journaled(5)
    [item] = (await api.get(f"{ONE}/missed")).json()["items"]
    done = (await api.post(f"{ONE}/missed/{item['call']}/done", params={"by": "Анна"})).json()
    assert (done["closed_how"], done["closed_by"]) == ("done", "Анна")
    assert (await api.get(f"{ONE}/missed")).json()["open"] == 0
    is_problem(await api.post(f"{ONE}/missed/00000000-0000-0000-0000-000000000000/done"), 404, "not_found")
    is_problem(await api.get(f"{ONE}/missed?state=lost"), 400)


async def test_calls_are_completed_from_cdr_on_demand_and_differences_are_shown(house: House, api: httpx.AsyncClient, tmp_path: Path) -> None:
    lines = [line for name in ("inbound-answered", "inbound-not-answered", "outbound-busy") for line in recorded()[name]]
    (tmp_path / "Master.csv").write_text("\n".join(lines) + "\n")
    document = house.document
    document["pbxs"][0]["cdr"] = {"source": "csv", "path": str(tmp_path)}
    await api.put(ONE, json=document)
    await house.linked()
    window = ("--enterprise", "0367", "--from", "2026-11-21T00:00", "--to", "2026-11-22T00:00:00+03:00")
    for stored in (3, 0):
        done = await asyncio.to_thread(house.cli, "calls", "backfill", *window)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{len(lines)} rows, 3 calls, {stored} stored or completed\n"
    await house.journaled(3)
    assert house.crm.popups("in") == house.crm.popups("out") == []
    calls = (await api.get(f"{ONE}/calls")).json()["items"]
    assert {call["id"] for call in calls} == set(house.crm.journal)
    assert [item["count"] for item in (await api.get(f"{ONE}/missed")).json()["items"]] == [1]

    spans = {"from": "2026-11-20T00:00:00Z", "to": "2026-11-22T00:00:00Z"}
    async with asyncio.timeout(30):
        while (await api.get(f"{ONE}/differences", params=spans)).json() != {"items": [], "next": None}:
            await asyncio.sleep(0.1)
    await api.put(ONE, json={**document, "integrations": {}})
    house.crm.switches.telephony_enabled = False
    await api.put(ONE, json=document)
    house.crm.switches.fail_next.extend(["500"] * 3)
    await house.play("inbound-busy", speed=20)
    async with asyncio.timeout(30):
        while not (found := (await api.get(f"{ONE}/differences", params={"from": "2026-11-20T00:00:00Z", "to": "2099-01-01T00:00:00Z"})).json()["items"]):
            await asyncio.sleep(0.1)
    assert {(item["integration"], item["state"] in ("waiting", "sending", "dead")) for item in found} == {("retailcrm", True)}
    is_problem(await api.get(f"{ONE}/differences?from=yesterday"), 400)

    for wrong, word in ((("--enterprise", "0400", *window[2:]), "no enterprise"), ((*window[:2], "--from", "x", "--to", "y"), "--from is a time"),
                        ((*window[:2], "--from", "2026-01-01", "--to", "2026-11-01"), "31 days")):  # fmt: skip
        done = await asyncio.to_thread(house.cli, "calls", "backfill", *wrong)
        assert (done.returncode, word in done.stderr) == (1, True), done.stderr
