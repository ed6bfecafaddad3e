"""The routes behind the pages, from outside: search, table, story of a call, deliveries in bulk, reports, status, diagnostics."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import zipfile

import httpx

from tests.e2e.conftest import House
from tests.e2e.test_api import ONE, is_problem


async def test_calls_are_searched_told_of_and_taken_away_as_a_table(house: House, api: httpx.AsyncClient) -> None:
    await api.put(ONE, json=house.document)
    await house.linked()
    await house.play("inbound-answered", "outbound-busy", "cyrillic-name", "internal-answered")
    await house.settled(4)

    for query, count in {"q=4070": 3, "q=%D0%B2%D0%BE%D1%81%D1%82%D0%BE%D0%BA": 1, "q=nobody": 0, "line=%2B375171112233": 1, "queue=none": 0}.items():
        assert len((await api.get(f"{ONE}/calls?{query}")).json()["items"]) == count, query
    is_problem(await api.get(f"{ONE}/calls?q=a%00b"), 400, "bad_parameter")

    table = await api.get(f"{ONE}/calls.csv?direction=out")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in table.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(table.text.removeprefix("\ufeff"), newline=""), delimiter=";"))
    assert [(row["direction"], row["result"], row["customer_number"][:5]) for row in rows] == [("out", "busy", "'+375")]
    is_problem(await api.get(f"{ONE}/calls.csv?direction=up"), 400)

    for call in (await api.get(f"{ONE}/calls")).json()["items"]:
        story = (await api.get(f"{ONE}/calls/{call['id']}/deliveries")).json()
        if call["direction"] == "internal":
            assert story["items"] == []
            assert {reason["code"] for reason in story["reasons"]} == {"internal"}
        else:
            journal = next(d for d in story["items"] if d["kind"] == "journal")
            assert journal["exchanges"][0]["status"] == "success"
            assert house.crm.api_key not in json.dumps(story)
            assert ("journal", "delivered") in {(r["kind"], r["code"]) for r in story["reasons"]}
    is_problem(await api.get(f"{ONE}/calls/nonsense/deliveries"), 404, "not_found")

    report = (await api.get(f"{ONE}/reports")).json()
    assert {"totals", "timeline", "by_hour", "by_line", "waiting", "people", "callback", "deliveries", "delivery_failures"} <= set(report)
    is_problem(await api.get(f"{ONE}/reports?from=2026-02-30"), 400, "bad_parameter")

    state = (await api.get(f"{ONE}/status")).json()
    assert state["alarms"] == []
    assert (state["pbxs"][0]["state"], state["pbxs"][0]["owner"]) == ("ready", state["node"])
    assert state["caches"][0]["entries"] == 1
    [connection] = (await api.get(f"{ONE}/connections")).json()["items"]
    assert (connection["breaker"], connection["state"], connection["failed"]) == ("closed", "ok", 0)
    assert connection["rates"][0]["count"] > 0
    bundle = await api.get(f"{ONE}/diagnostics.zip")
    with zipfile.ZipFile(io.BytesIO(bundle.content)) as parts:
        text = "".join(parts.read(name).decode() for name in parts.namelist())
        assert {"status.json", "settings.json", "dead.json", "errors.json", "metrics.txt"} <= set(parts.namelist())
    for secret in (house.crm.api_key, house.pbx.secret, house.daemon.admin_token, "375296254070"):
        assert secret not in text


async def test_what_does_not_exist_has_no_reports_status_or_table(house: House, api: httpx.AsyncClient) -> None:
    for path in ("reports", "status", "calls.csv", "diagnostics"):
        is_problem(await api.get(f"/api/enterprises/nowhere/{path}"), 404, "not_found")


async def test_dead_letters_are_grouped_by_cause_and_retried_together(house: House, api: httpx.AsyncClient) -> None:
    house.crm.switches.telephony_enabled = False
    await api.put(ONE, json=house.document)
    await house.linked()
    await house.play("inbound-not-answered", "inbound-busy", speed=20)
    async with asyncio.timeout(30):
        while len([d for d in (await api.get(f"{ONE}/deliveries?state=dead")).json()["items"] if d["kind"] == "journal"]) < 2:
            await asyncio.sleep(0.1)
    causes = (await api.get(f"{ONE}/deliveries/causes")).json()["items"]
    cause = next(c for c in causes if c["kind"] == "journal")
    assert cause["count"] == 2
    assert "Telephony not enabled" in cause["cause"]
    [summary] = (await api.get(f"{ONE}/deliveries/summary")).json()["items"]
    assert summary["dead"] >= 2
    assert summary["last_failure_at"]
    assert "dead_letters" in {alarm["code"] for alarm in (await api.get(f"{ONE}/status")).json()["alarms"]}
    for body in ({}, {"ids": []}, {"ids": ["1"]}, {"ids": [1], "nope": 1}, {"state": "delivered"}, {"state": "dead", "cause": 1}, [], {"ids": [2**63]}):
        is_problem(await api.post(f"{ONE}/deliveries/retry", json=body), 400, "bad_parameter")
    house.crm.switches.telephony_enabled = True
    wanted = {"state": "dead", "kind": "journal", "cause": cause["cause"], "integration": "retailcrm"}
    assert (await api.post(f"{ONE}/deliveries/retry", json=wanted)).json() == {"changed": 2, "left": 0}
    await house.settled(2)
    assert len(house.crm.journal) == 2
    rest = [d["id"] for d in (await api.get(f"{ONE}/deliveries?state=dead")).json()["items"]]
    if rest:
        assert (await api.post(f"{ONE}/deliveries/discard", json={"ids": rest})).json()["changed"] == len(rest)
    assert (await api.get(f"{ONE}/deliveries?state=dead")).json()["items"] == []
