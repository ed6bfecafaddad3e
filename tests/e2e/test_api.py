"""The contract from outside: every route of the API, by an HTTP client that is not ours, on a running daemon."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from admin_http.app import ROUTES
from lab.patient import EVERYTHING
from tests.e2e.conftest import NUMBER, House

ONE = f"/api/enterprises/{NUMBER}"
KEYS = {
    "id", "enterprise", "pbx", "linkedid", "direction", "customer_number", "customer_name", "line", "started_at", "answered_at", "ended_at",
    "wait_seconds", "talk_seconds", "result", "missed", "rang", "answered_by", "last_talked", "initiator", "transfers", "queue", "click_to_call",
    "consult", "recordings", "gap", "legs",
}  # fmt: skip


def is_problem(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    body: dict[str, Any] = answer.json()
    assert body["detail"]
    if code:
        assert body["code"] == code
    return body


async def test_documents_and_integrations_over_the_api(house: House, api: httpx.AsyncClient) -> None:
    assert (await api.get("/api/enterprises")).json() == {"items": [], "next": None}
    is_problem(await api.get(ONE), 404, "not_found")
    made = await api.put(ONE, json=house.document)
    assert made.status_code == 201
    assert made.json()["pbxs"][0]["secret"]["set"] is True
    assert house.pbx.secret not in made.text
    assert house.crm.api_key not in made.text
    again = await api.put(ONE, json=made.json(), headers={"If-Match": made.headers["etag"]})
    assert again.status_code == 200
    assert again.headers["etag"] == made.headers["etag"]
    is_problem(await api.put(ONE, json=house.document, headers={"If-Match": '"stale"'}), 412, "precondition_failed")
    assert (await api.get("/api/enterprises")).json()["items"][0]["number"] == NUMBER

    crm = f"{ONE}/integrations/retailcrm"
    assert (await api.get(crm)).json()["domain"] == house.crm.url
    changed = await api.put(crm, json={**(await api.get(crm)).json(), "mode": "observe"})
    assert (changed.status_code, changed.json()["mode"]) == (200, "observe")
    assert is_problem(await api.put(crm, json={"domain": "https://10.0.0.1", "api_key": "k"}), 400)["field"] == "integrations.retailcrm.domain"
    assert is_problem(await api.put(crm, json={"domain": house.crm.url, "api_key": "k", "nope": 1}), 400)["field"] == "integrations.retailcrm.nope"
    tested = (await api.post(f"{crm}/test")).json()
    assert tested["ok"]
    assert {"name", "ok", "detail", "field"} == set(tested["checks"][0])
    wrong = (await api.post(f"{crm}/test", json={"domain": house.crm.url, "api_key": "wrong-key"})).json()
    assert not wrong["ok"]
    assert wrong["checks"][0]["field"] == "api_key"
    assert (await api.delete(crm)).status_code == 204
    is_problem(await api.get(crm), 404)
    is_problem(await api.delete(crm), 404)
    assert (await api.delete(ONE)).status_code == 204
    is_problem(await api.delete(ONE), 404)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b'{"a": NaN}', b'{"name": "a", "name": "b"}', b"[" * 5_000, b"\xff\xfe", b'{"number": "0367", "name": "x", "pbxs": 1e999}'],
)
async def test_a_bad_body_gets_a_clear_error(body: bytes, one_house: House) -> None:
    async with one_house.daemon.client() as api:
        answer = await api.put(ONE, content=body, headers={"Content-Type": "application/json"})
        is_problem(answer, 400)


@pytest.fixture(scope="module")
def one_house() -> Any:
    """One daemon for the tests that change nothing."""
    from lab.crm.retailcrm import RetailCrmSandbox
    from lab.fakepbx import FakePbx
    from lab.run import DaemonProcess, short_directory

    daemon = DaemonProcess(short_directory("vochid-e2e-"), patience=EVERYTHING)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(daemon.start())
    yield House(daemon, FakePbx(), RetailCrmSandbox())
    loop.run_until_complete(daemon.stop())
    loop.close()


def test_no_two_routes_stand_in_one_place() -> None:
    places = [(route.method, path) for route in ROUTES for path in route.paths]
    assert len(places) == len(set(places))


async def test_every_route_wants_a_token_and_tells_a_stranger_nothing(one_house: House) -> None:
    async with httpx.AsyncClient(base_url=f"http://{one_house.daemon.http}", trust_env=False, timeout=60) as stranger:
        for method, written in [(route.method, path) for route in ROUTES for path in route.paths]:
            path = written.replace("{n}", NUMBER).replace("{crm}", "retailcrm").replace("{id}", "1").replace("{job}", "1")
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}, {"Authorization": "Bearer " + "x" * 5_000}):
                is_problem(await stranger.request(method, path, headers=headers), 401, "unauthorized")
        assert (await stranger.get("/health")).json() == {"status": "ok"}
        is_problem(await stranger.get("/nowhere"), 404, "no_such_route")
        is_problem(await stranger.put("/health"), 405, "method_not_allowed")
        assert (await stranger.get("/api/openapi.json")).json()["openapi"] == "3.1.0"


async def test_the_description_lists_every_route(one_house: House) -> None:
    async with one_house.daemon.client() as api:
        described = (await api.get("/api/openapi.json")).json()["paths"]
    assert {(path, method.upper()) for path, methods in described.items() for method in methods} == {(path, r.method) for r in ROUTES for path in r.paths}


async def test_the_operators_listener(one_house: House) -> None:
    async with httpx.AsyncClient(base_url=f"http://{one_house.daemon.metrics}", trust_env=False, timeout=60) as operator:
        assert (await operator.get("/livez")).text == "ok\n"
        assert (await operator.get("/readyz")).status_code == 200
        assert "vochid_delivery_attempts_total" in (await operator.get("/metrics")).text


async def test_answers_carry_the_headers_that_keep_browsers_out_of_trouble(one_house: House) -> None:
    async with one_house.daemon.client() as api:
        headers = (await api.get("/api/enterprises")).headers
    assert (headers["x-content-type-options"], headers["cache-control"], headers["referrer-policy"]) == ("nosniff", "no-store", "no-referrer")


async def test_calls_deliveries_logs_stats_and_the_live_stream(house: House, api: httpx.AsyncClient) -> None:
    await api.put(ONE, json=house.document)
    await house.linked()
    news: list[tuple[str, dict[str, Any]]] = []
    opened = asyncio.Event()
    listening = asyncio.ensure_future(listen(house, news, opened))
    await asyncio.wait_for(opened.wait(), 30)
    await house.play("inbound-answered", "outbound-busy", "cyrillic-name", "internal-answered")
    await house.settled(4)

    calls = (await api.get(f"{ONE}/calls")).json()
    assert len(calls["items"]) == 4
    assert calls["next"] is None
    assert all(set(call) == KEYS for call in calls["items"])
    assert [c["started_at"] for c in calls["items"]] == sorted((c["started_at"] for c in calls["items"]), reverse=True)
    first = (await api.get(f"{ONE}/calls?limit=3")).json()
    rest = (await api.get(f"{ONE}/calls", params={"limit": 3, "cursor": first["next"]})).json()
    assert [c["id"] for c in first["items"] + rest["items"]] == [c["id"] for c in calls["items"]]
    for query, count in {"direction=out": 1, "result=busy": 1, "missed=true": 0, "number=%2B375296254070": 3, "extension=151": 2, "direction=internal": 1,
                         "from=2020-01-01T00:00:00%2B03:00&to=2020-01-02T00:00:00%2B03:00": 0}.items():  # fmt: skip
        assert len((await api.get(f"{ONE}/calls?{query}")).json()["items"]) == count, query
    for query in ("limit=0", "limit=501", "limit=x", "from=yesterday", "from=2026-01-01T00:00:00", "direction=up", "missed=maybe", "cursor=zzz"):
        is_problem(await api.get(f"{ONE}/calls?{query}"), 400)
    one = (await api.get(f"{ONE}/calls/{calls['items'][0]['id']}")).json()
    assert one == calls["items"][0]
    for unknown in ("nonsense", "00000000-0000-0000-0000-000000000000"):
        is_problem(await api.get(f"{ONE}/calls/{unknown}"), 404, "not_found")

    deliveries = (await api.get(f"{ONE}/deliveries?state=delivered&integration=retailcrm")).json()["items"]
    assert {d["kind"] for d in deliveries} == {"popup", "hangup", "journal"}
    is_problem(await api.post(f"{ONE}/deliveries/{deliveries[0]['id']}/retry"), 409, "wrong_state")
    is_problem(await api.post(f"{ONE}/deliveries/999999/discard"), 404)
    is_problem(await api.post(f"{ONE}/deliveries/x/retry"), 404)
    logs = (await api.get(f"{ONE}/logs?integration=retailcrm&status=success&event_type=journal")).json()["items"]
    assert len(logs) == 3
    assert house.crm.api_key not in json.dumps(logs)
    assert {"enterprise_number", "integration_type", "event_type", "request_data", "response_data", "status", "error_message", "created_at"} <= set(logs[0])

    stats = (await api.get("/stats", params={"enterprise": NUMBER})).json()
    assert sum(row["count"] for row in stats["calls"]) == 4
    is_problem(await api.get("/stats"), 400, "enterprise_needed")
    health = (await api.get("/health")).json()
    assert health["status"] == "ok"
    assert health["pbxs"][0]["state"] == "ready"
    async with asyncio.timeout(30):
        while not {topic for topic, _ in news} >= {"call", "delivery"}:
            await asyncio.sleep(0.05)
    listening.cancel()
    assert all("id" in data for _, data in news)


async def listen(house: House, news: list[tuple[str, dict[str, Any]]], opened: asyncio.Event) -> None:
    async with house.daemon.client() as client, client.stream("GET", f"{ONE}/live", timeout=None) as stream:
        opened.set()
        topic = ""
        async for line in stream.aiter_lines():
            if line.startswith("event: "):
                topic = line[7:].strip()
            elif line.startswith("data: "):
                news.append((topic, json.loads(line[6:])))


async def test_a_dead_letter_is_retried_and_another_discarded(house: House, api: httpx.AsyncClient) -> None:
    house.crm.switches.telephony_enabled = False
    await api.put(ONE, json=house.document)
    await house.linked()
    await house.play("inbound-not-answered", "inbound-busy", speed=20)
    async with asyncio.timeout(30):
        while len(dead := (await api.get(f"{ONE}/deliveries?state=dead")).json()["items"]) < 2 or "journal" not in {d["kind"] for d in dead}:
            await asyncio.sleep(0.1)
    journals = [d for d in dead if d["kind"] == "journal"]
    assert "Telephony not enabled" in journals[0]["last_error"]
    house.crm.switches.telephony_enabled = True
    assert (await api.post(f"{ONE}/deliveries/{journals[0]['id']}/retry")).json()["state"] == "waiting"
    await house.journaled(1)
    others = [d for d in dead if d["id"] != journals[0]["id"]]
    assert (await api.post(f"{ONE}/deliveries/{others[0]['id']}/discard")).json()["state"] == "discarded"


async def test_an_enterprises_token_opens_its_own_enterprise_and_nothing_else(house: House, api: httpx.AsyncClient) -> None:
    await api.put(ONE, json=house.document)
    await api.put("/api/enterprises/0400", json={**house.document, "number": "0400", "pbxs": []})
    made = await api.post(f"{ONE}/tokens", json={"name": "their own"})
    assert made.status_code == 201
    is_problem(await api.post(f"{ONE}/tokens", json={"name": ""}), 400)
    listed = await api.get(f"{ONE}/tokens")
    assert [t["name"] for t in listed.json()["items"]] == ["their own"]
    assert made.json()["token"] not in listed.text
    async with httpx.AsyncClient(
        base_url=f"http://{house.daemon.http}", headers={"Authorization": f"Bearer {made.json()['token']}"}, trust_env=False, timeout=60
    ) as own:
        assert [e["number"] for e in (await own.get("/api/enterprises")).json()["items"]] == [NUMBER]
        assert (await own.get(ONE)).status_code == 200
        assert (await own.get("/stats")).json()["enterprise"] == NUMBER
        assert all(p["enterprise"] == NUMBER for p in (await own.get("/health")).json()["pbxs"])
        for method, pattern in [(route.method, path) for route in ROUTES for path in route.paths]:
            if "{n}" in pattern:
                path = pattern.replace("{n}", "0400").replace("{crm}", "retailcrm").replace("{id}", "1").replace("{job}", "1")
                is_problem(await own.request(method, path, json={}), 404, "not_found")
        is_problem(await own.delete(ONE), 403, "forbidden")
        shown = (await own.get(ONE)).json()
        assert (await own.put(ONE, json={**shown, "name": "Июль"})).status_code == 200
        for change in ({"pbxs": []}, {"dial_rules": {"per_day": 9}}, {"pbxs": [{**shown["pbxs"][0], "host": "10.0.0.1"}]}):
            is_problem(await own.put(ONE, json={**shown, **change}), 403, "forbidden")
        assert (await api.delete(f"{ONE}/tokens/{made.json()['id']}")).status_code == 204
        is_problem(await own.get(ONE), 401, "unauthorized")
    is_problem(await api.delete(f"{ONE}/tokens/{made.json()['id']}"), 404)
