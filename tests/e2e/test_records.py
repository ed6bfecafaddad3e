"""Own records from outside: routes, refusals, filters and pages, the wall between enterprises, names of callers."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from admin_http.app import ROUTES
from daemon.store.audit import AuditLog
from daemon.store.pool import Database
from lab.fakepbx import FakePbx
from lab.patient import EVERYTHING
from lab.run import DaemonProcess, short_directory
from tests.conftest import fresh_database
from tests.e2e.conftest import GOLDEN
from tests.e2e.test_api import KEYS, is_problem

OURS, THEIRS = "0367", "0400"
CRM = f"/api/enterprises/{OURS}/crm"
KINDS = {"objects": "name", "contracts": "number", "users": "name", "companies": "name"}
CALLER = "+375296254070"


@pytest.fixture(scope="module")
def daemon(cluster: str) -> Iterator[DaemonProcess]:
    """One for all tests of this file: they leave no enterprise behind."""
    loop, database = asyncio.new_event_loop(), fresh_database(cluster)
    url = loop.run_until_complete(database.__aenter__())
    process = DaemonProcess(short_directory("vochid-e2e-"), extra={"VOCHID_DATABASE_URL": url}, patience=EVERYTHING)
    loop.run_until_complete(process.start())
    yield process
    loop.run_until_complete(process.stop())
    loop.run_until_complete(database.__aexit__(None, None, None))
    loop.close()


@pytest.fixture
async def pbx() -> AsyncIterator[FakePbx]:
    pbx = FakePbx()
    await pbx.start()
    yield pbx
    await pbx.stop()


@pytest.fixture
async def api(daemon: DaemonProcess, pbx: FakePbx) -> AsyncIterator[httpx.AsyncClient]:
    link = {
        "name": "main", "host": "127.0.0.1", "port": pbx.port, "username": pbx.username, "secret": pbx.secret, "trunks": ["PJSIP/provider"],
        "internal_number": "^1\\d\\d$",
    }  # fmt: skip
    await daemon.put({"number": OURS, "name": "Июнь", "country": "BY", "pbxs": [link]})
    await daemon.put({"number": THEIRS, "name": "Июль", "country": "BY", "pbxs": []})
    async with daemon.client() as client:
        yield client
        for number in (OURS, THEIRS):
            await client.delete(f"/api/enterprises/{number}?purge=true")


async def listen(daemon: DaemonProcess, news: list[tuple[str, dict[str, Any]]], listening: asyncio.Event) -> None:
    async with daemon.client() as client, client.stream("GET", f"/api/enterprises/{OURS}/live", timeout=None) as stream:
        listening.set()
        topic = ""
        async for line in stream.aiter_lines():
            if line.startswith("event: "):
                topic = line[7:].strip()
            elif line.startswith("data: "):
                news.append((topic, json.loads(line[6:])))


async def made(api: httpx.AsyncClient, kind: str, **fields: Any) -> dict[str, Any]:
    answer = await api.post(f"{CRM}/{kind}", json=fields)
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_records_of_every_kind_are_made_read_changed_and_taken_away(api: httpx.AsyncClient) -> None:
    company = await made(api, "companies", name="ООО «Восток»", phone="8 017 111-22-33")
    contract = await made(api, "contracts", number="7/26", starts_on="2026-03-01", ends_on="2027-03-01", company_id=company["id"])
    thing = await made(api, "objects", name="Кран", description="КС-45717\nжёлтый", imei="356938035643809", type="автокран", contract_id=contract["id"])
    user = await made(api, "users", name="Ирина Лис", email="irina@example.com", phone="80291112233", role="бухгалтер")
    assert (company["phone"], user["phone"]) == ("+375171112233", "+375291112233")
    assert set(thing) == {"id", "name", "description", "imei", "type", "contract_id", "created_at", "updated_at"}
    for kind, record in {"companies": company, "contracts": contract, "objects": thing, "users": user}.items():
        one = f"{CRM}/{kind}/{record['id']}"
        assert (await api.get(one)).json() == record
        assert (await api.get(f"{CRM}/{kind}")).json() == {"items": [record], "next": None}
        changed = await api.patch(one, json={KINDS[kind]: "8/26"})
        assert (changed.status_code, changed.json()[KINDS[kind]]) == (200, "8/26")
        assert {name for name in record if record[name] != changed.json()[name]} == {KINDS[kind], "updated_at"}
        assert (await api.patch(one, json={})).json() == changed.json()
        is_problem(await api.patch(one, json={KINDS[kind]: None}), 400, "bad_parameter")
        is_problem(await api.patch(one, json={"colour": "red"}), 400, "bad_parameter")
        is_problem(await api.patch(one, content=b"{", headers={"Content-Type": "application/json"}), 400, "bad_json")
        is_problem(await api.patch(one, json=[]), 400, "bad_body")
        for nobody in ("999999", "x", "0", "9" * 30):
            for method in ("GET", "PATCH", "DELETE"):
                is_problem(await api.request(method, f"{CRM}/{kind}/{nobody}", json={}), 404, "not_found")
    assert (await api.patch(f"{CRM}/users/{user['id']}", json={"email": None, "role": ""})).json()["email"] is None
    assert (await api.delete(f"{CRM}/companies/{company['id']}")).status_code == 204
    is_problem(await api.get(f"{CRM}/companies/{company['id']}"), 404)
    assert (await api.get(f"{CRM}/contracts/{contract['id']}")).json()["company_id"] is None
    for kind, record in {"contracts": contract, "objects": thing, "users": user}.items():
        assert (await api.delete(f"{CRM}/{kind}/{record['id']}")).status_code == 204
        is_problem(await api.delete(f"{CRM}/{kind}/{record['id']}"), 404, "not_found")
        assert (await api.get(f"{CRM}/{kind}")).json()["items"] == []
    is_problem(await api.get(f"{CRM}/deals"), 404, "no_such_route")


async def test_a_refusal_names_the_field_and_nothing_is_stored(api: httpx.AsyncClient) -> None:
    await made(api, "contracts", number="7/26")
    for kind, sent, status, code, field in (
        ("users", {}, 400, "bad_parameter", "name"),
        ("users", {"name": "x", "phone": "12"}, 400, "bad_parameter", "phone"),
        ("users", {"name": "x", "email": "x"}, 400, "bad_parameter", "email"),
        ("users", {"name": "x" * 256}, 400, "too_long", "name"),
        ("objects", {"name": "x", "imei": "12"}, 400, "bad_parameter", "imei"),
        ("objects", {"name": "x", "contract_id": 999_999}, 400, "bad_parameter", "contract_id"),
        ("contracts", {"number": "8", "company_id": 999_999}, 400, "bad_parameter", "company_id"),
        ("contracts", {"number": "8", "starts_on": "2026-03-02", "ends_on": "2026-03-01"}, 400, "bad_parameter", "ends_on"),
        ("contracts", {"number": "7/26"}, 409, "taken", "number"),
        ("companies", {"name": "x", "idempotency_key": 7}, 400, "bad_parameter", "idempotency_key"),
    ):
        assert is_problem(await api.post(f"{CRM}/{kind}", json=sent), status, code)["field"] == field
    for half, field in (
        (b'{"name": "\\ud83d"}', "name"),
        (b'{"name": "x", "\\ud83d": 1}', "?"),
        (b'{"name": "x", "idempotency_key": "\\ud83d"}', "idempotency_key"),
    ):
        answer = await api.post(f"{CRM}/users", content=half, headers={"Content-Type": "application/json"})
        assert is_problem(answer, 400, "bad_parameter")["field"] == field
    assert [len((await api.get(f"{CRM}/{kind}")).json()["items"]) for kind in KINDS] == [0, 1, 0, 0]
    contract = await made(api, "contracts", number="8/26")
    assert is_problem(await api.patch(f"{CRM}/contracts/{contract['id']}", json={"number": "7/26"}), 409, "taken")["field"] == "number"
    assert is_problem(await api.patch(f"{CRM}/contracts/{contract['id']}", json={"company_id": 999_999}), 400)["field"] == "company_id"


async def test_the_same_key_makes_one_record_even_at_the_same_time(api: httpx.AsyncClient) -> None:
    body = {"name": "Ирина", "idempotency_key": str(uuid.uuid4())}
    answers = await asyncio.gather(*(api.post(f"{CRM}/users", json=body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await api.post(f"{CRM}/users", json={**body, "idempotency_key": "another"})).status_code == 201


async def test_lists_are_filtered_and_come_in_pages(api: httpx.AsyncClient) -> None:
    companies = [await made(api, "companies", name=f"Завод {n}", phone=f"+37529111220{n}") for n in range(5)]
    contract = await made(api, "contracts", number="A-1", company_id=companies[0]["id"])
    thing = await made(api, "objects", name="Кран", contract_id=contract["id"])
    found: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await api.get(f"{CRM}/companies", params={"limit": 2, "cursor": cursor})).json()
        found += [one["id"] for one in page["items"]]
        cursor = page["next"]
    assert found == [one["id"] for one in reversed(companies)]
    for kind, query, ids in (
        ("companies", {"search": "завод 3"}, [companies[3]["id"]]),
        ("companies", {"search": "%"}, []),
        ("companies", {"phone": "8 029 111-22-04"}, [companies[4]["id"]]),
        ("contracts", {"company_id": companies[0]["id"]}, [contract["id"]]),
        ("contracts", {"company_id": companies[1]["id"]}, []),
        ("objects", {"contract_id": contract["id"]}, [thing["id"]]),
        ("objects", {"company_id": companies[0]["id"], "search": "кран"}, [thing["id"]]),
    ):
        answer = await api.get(f"{CRM}/{kind}", params=query)  # type: ignore[arg-type]
        assert [one["id"] for one in answer.json()["items"]] == ids, (kind, query)
    late = (await api.get(f"{CRM}/companies", params={"updated_since": companies[4]["updated_at"]})).json()["items"]
    assert late[0] == companies[4]
    assert companies[0] not in late
    for kind, query in (
        ("companies", "limit=0"), ("companies", "cursor=x"), ("companies", "updated_since=yesterday"), ("companies", "phone=anonymous"),
        ("companies", "company_id=1"), ("users", "contract_id=1"), ("objects", "phone=%2B375291112200"), ("objects", "contract_id=x"),
        ("users", "search=" + "x" * 201), ("users", "search=%00"),
    ):  # fmt: skip
        is_problem(await api.get(f"{CRM}/{kind}?{query}"), 400)


async def test_records_of_another_enterprise_do_not_exist(api: httpx.AsyncClient) -> None:
    theirs = (await api.post(f"/api/enterprises/{THEIRS}/crm/companies", json={"name": "Чужая", "phone": CALLER})).json()
    token = (await api.post(f"/api/enterprises/{OURS}/tokens", json={"name": "own"})).json()["token"]
    async with httpx.AsyncClient(base_url=str(api.base_url), headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=60) as own:
        for method in ("GET", "PATCH", "DELETE"):
            is_problem(await own.request(method, f"/api/enterprises/{THEIRS}/crm/companies/{theirs['id']}", json={}), 404)
            is_problem(await own.request(method, f"{CRM}/companies/{theirs['id']}", json={}), 404)
        assert is_problem(await own.post(f"{CRM}/contracts", json={"number": "1", "company_id": theirs["id"]}), 400)["field"] == "company_id"
        assert (await own.get(f"{CRM}/companies")).json()["items"] == []
        assert (await own.get(f"{CRM}/companies", params={"search": "Чужая"})).json()["items"] == []
        assert (await own.post(f"{CRM}/users", json={"name": "Наша"})).status_code == 201
    assert [r.method for r in ROUTES if r.path.startswith("/api/enterprises/{n}/crm/")] == ["GET", "POST", "GET", "PATCH", "DELETE"] * 4


async def test_a_callers_name_comes_from_our_records_when_nobody_gave_one(daemon: DaemonProcess, api: httpx.AsyncClient, pbx: FakePbx) -> None:
    one = f"/api/enterprises/{OURS}"
    company = await made(api, "companies", name="ООО «Восток, север»", phone=CALLER)
    await api.post(f"/api/enterprises/{THEIRS}/crm/users", json={"name": "Чужой", "phone": CALLER})
    news: list[tuple[str, dict[str, Any]]] = []
    hears = asyncio.Event()
    listener = asyncio.ensure_future(listen(daemon, news, hears))
    async with asyncio.timeout(60):
        await pbx.connected.wait()
        await hears.wait()
        while not any(pbx["state"] == "ready" for pbx in (await api.get(f"{one}/live/now")).json()["pbxs"]):
            await asyncio.sleep(0.05)
        await pbx.play(GOLDEN / "inbound-not-answered" / "asterisk-22.ami", speed=20)
        while not [call for call in (await api.get(f"{one}/calls")).json()["items"] if call["ended_at"]] or not any(data.get("records") for _, data in news):
            await asyncio.sleep(0.05)
    listener.cancel()
    [call] = (await api.get(f"{one}/calls")).json()["items"]
    assert set(call) == KEYS
    assert (call["customer_number"], call["customer_name"]) == (CALLER, "ООО «Восток, север»")
    assert (await api.get(f"{one}/calls/{call['id']}")).json() == call
    assert (await api.get(f"{one}/missed")).json()["items"][0]["customer_name"] == "ООО «Восток, север»"
    assert "ООО «Восток, север»" in (await api.get(f"{one}/calls.csv")).text
    for query, count in ({"q": "сев восток"}, 1), ({"q": "ВОСТОК, север"}, 1), ({"q": "восток запад"}, 0), ({"q": "восток", "result": "busy"}, 0):
        assert len((await api.get(f"{one}/calls", params=query)).json()["items"]) == count, query
    for live in (data for _, data in news if data.get("records")):  # an event that came while the database was slow goes without
        assert live["customer_name"] == company["name"]
        assert live["records"] == [{"type": "company", "kind": "companies", "id": company["id"], "name": company["name"]}]
    asked = (await api.post("/api/smart-redirect", json={"enterprise_number": OURS, "phone": CALLER})).json()
    assert (asked["status"], asked["name"]) == ("unknown", "ООО «Восток север»")
    user = await made(api, "users", name="Ирина Лис", phone=CALLER)  # a person comes before a company, at once
    assert (await api.get(f"{one}/calls")).json()["items"][0]["customer_name"] == "Ирина Лис"
    assert (await api.post("/api/smart-redirect", json={"enterprise_number": OURS, "phone": CALLER})).json()["name"] == "Ирина Лис"
    await api.patch(f"{CRM}/users/{user['id']}", json={"phone": None})
    await api.delete(f"{CRM}/companies/{company['id']}")
    assert (await api.get(f"{one}/calls")).json()["items"][0]["customer_name"] is None
    assert (await api.post("/api/smart-redirect", json={"enterprise_number": OURS, "phone": CALLER})).json()["name"] is None


async def test_changes_stand_in_the_audit_without_what_is_a_persons(daemon: DaemonProcess, api: httpx.AsyncClient) -> None:
    user = await made(api, "users", name="Секретова", phone="+375291112277")
    await api.patch(f"{CRM}/users/{user['id']}", json={"email": "sekretova@example.com", "role": "директор"})
    await api.patch(f"{CRM}/users/{user['id']}", json={"role": "директор"})
    await api.delete(f"{CRM}/users/{user['id']}")
    db = await Database.open(daemon.extra["VOCHID_DATABASE_URL"])
    try:
        noted = [row for row in await AuditLog(db).page(OURS) if row["subject"] == f"user {user['id']}"]
    finally:
        await db.close()
    assert [(row["action"], row["details"]) for row in reversed(noted)] == [
        ("record made", {}), ("record changed", {"fields": "email, role"}), ("record deleted", {}),
    ]  # fmt: skip
    assert "Секретова" not in daemon.log.read_text()
    assert "375291112277" not in daemon.log.read_text()


async def test_an_enterprise_that_is_purged_leaves_no_record(api: httpx.AsyncClient) -> None:
    company = await made(api, "companies", name="Восток")
    await made(api, "contracts", number="7/26", company_id=company["id"])
    document = (await api.get(f"/api/enterprises/{OURS}")).json()
    assert (await api.delete(f"/api/enterprises/{OURS}?purge=true")).status_code == 204
    assert (await api.put(f"/api/enterprises/{OURS}", json={**document, "secret": None, "pbxs": []})).status_code == 201
    assert [(await api.get(f"{CRM}/{kind}")).json()["items"] for kind in KINDS] == [[], [], [], []]
