"""The routes of Bitrix24's sync on a running daemon, from outside: the predecessor's shapes, clear refusals, walls between tenants."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from lab.crm.bitrix24 import Bitrix24Sandbox
from lab.crm.bitrix24_data import Params
from tests.e2e.conftest import NUMBER, House
from tests.e2e.test_api import is_problem

ROOT = "/api/integration/bitrix24"
ERRORS = "/api/integration/errors"


@pytest.fixture
async def box() -> Any:
    portal = Bitrix24Sandbox()
    await portal.start()
    yield portal
    await portal.stop()


async def test_a_portal_is_set_up_synced_and_told_of(house: House, api: httpx.AsyncClient, box: Bitrix24Sandbox) -> None:
    one = {"enterprise": NUMBER}

    async def ask(method: str, path: str, status: int = 200, **more: Any) -> Any:
        answer = await api.request(method, path, params={**one, **more.pop("params", {})}, **more)
        assert answer.status_code == status, answer.text
        assert box.secret not in answer.text
        return answer.json()

    async def ended(job: str) -> Any:
        async with asyncio.timeout(30):
            while (shown := await ask("GET", f"{ROOT}/sync/{job}"))["state"] in ("queued", "running"):
                await asyncio.sleep(0.1)
        return shown

    async def name_of(phone: str) -> Any:
        return (await api.post("/api/smart-redirect", json={"enterprise_number": NUMBER, "phone": phone})).json()["name"]

    redirect = {"mode": "name", "crm": []}  # what the portal knows is not asked for here
    await api.put(f"/api/enterprises/{NUMBER}", json={**house.document, "pbxs": [], "integrations": {}, "smart_redirect": redirect})
    assert await name_of("+375291112233") is None
    is_problem(await api.post(f"{ROOT}/sync/to", params=one, json={}), 409, "wrong_state")
    assert (await ask("GET", f"{ROOT}/health"))["data"]["configured"] is False
    for wrong in ({"webhook_url": "http://10.0.0.1/rest/1/abc/"}, {"webhook_url": "nonsense"}, {"password": "x"}):
        is_problem(await api.post(f"{ROOT}/setup", params=one, json=wrong), 400)
    settings = box.settings()
    done = await ask("POST", f"{ROOT}/setup", json={name: settings[name] for name in ("webhook_url", "application_token")})
    assert (done["status"], done["data"]["ok"]) == ("success", True)
    contact = await box.methods["crm.contact.add"](Params({"fields": {"NAME": "Пётр", "PHONE": [{"VALUE": "+375291112233"}]}}))
    body = {"sync_users": True, "direction": "from"}
    job = (await ask("POST", f"{ROOT}/sync/from", 202, json=body))["job"]
    shown = await ended(job)
    assert {name: shown[name] for name in ("state", "total", "done", "failed")} == {"state": "done", "total": 1, "done": 1, "failed": 0}
    assert await name_of("+375291112233") == "Пётр"  # at once, although nobody was known under this number a moment ago
    mappings = await ask("GET", f"{ROOT}/mappings", params={"page": 1, "limit": 10})
    assert {name: mappings["data"][name] for name in ("total", "page", "limit")} == {"total": 1, "page": 1, "limit": 10}
    (row,) = mappings["data"]["items"]
    assert {"tenant_id", "local_type", "local_id", "bitrix24_type", "bitrix24_id", "last_sync_at", "sync_direction"} <= row.keys()
    assert (row["tenant_id"], row["local_type"], row["bitrix24_id"], row["sync_direction"]) == (NUMBER, "user", contact, "from")
    stats = await ask("GET", f"{ROOT}/stats")
    assert set(stats["data"]) == {"mappings", "errors_count", "service_name", "generated_at"}
    assert set(stats["data"]["mappings"]) == {"total_mappings", "object_mappings", "user_mappings", "contract_mappings", "last_sync_time"}
    # An event of the portal: the token says whose it is.
    deal = await box.methods["crm.deal.add"](Params({"fields": {"TITLE": "Прицеп"}}))
    assert await box.send("ONCRMDEALADD", {"FIELDS][ID": str(deal)}, f"http://{house.daemon.http}/bitrix24/events") == [200]
    async with asyncio.timeout(30):
        while (await ask("GET", f"{ROOT}/stats"))["data"]["mappings"]["object_mappings"] == 0:
            await asyncio.sleep(0.1)
    # A task of it: the event leads to its deal.
    fields = {"TITLE": "Заменить датчик", "RESPONSIBLE_ID": "12", "UF_CRM_TASK": [f"D_{deal}"]}
    task = (await box.methods["tasks.task.add"](Params({"fields": fields})))["task"]["id"]
    told = {"FIELDS_BEFORE": "undefined", "FIELDS_AFTER][ID": task, "IS_ACCESSIBLE_BEFORE": "N", "IS_ACCESSIBLE_AFTER": "undefined"}
    assert await box.send("ONTASKADD", told, f"http://{house.daemon.http}/bitrix24/events") == [200]
    async with asyncio.timeout(30):
        while not (tasks := [one["tasks"] for one in (await ask("GET", f"{ROOT}/mappings"))["data"]["items"] if one["tasks"]]):
            await asyncio.sleep(0.1)
    assert tasks == [[{"id": task, "title": "Заменить датчик", "status": "2", "url": f"{box.url}/company/personal/user/0/tasks/task/view/{task}/"}]]
    # What cannot be done is shown and can be tried again.
    box.scopes.discard("crm")
    await box.send("ONCRMDEALUPDATE", {"FIELDS][ID": str(deal)}, f"http://{house.daemon.http}/bitrix24/events")
    async with asyncio.timeout(30):
        while (await ask("GET", f"{ERRORS}/stats"))["data"]["total"] == 0:
            await asyncio.sleep(0.1)
    errors = (await ask("GET", ERRORS, params={"page": 1, "limit": 5}))["data"]
    assert (errors["total"], errors["items"][0]["error_type"], (await ask("GET", f"{ROOT}/stats"))["data"]["errors_count"]) == (1, "auth", 1)
    assert set((await ask("GET", f"{ERRORS}/stats"))["data"]) == {"total", "by_type", "last_error_at"}
    box.scopes.add("crm")
    await ask("POST", f"{ERRORS}/{errors['items'][0]['id']}/retry")
    async with asyncio.timeout(30):
        while (await ask("GET", f"{ERRORS}/stats"))["data"]["total"]:
            await asyncio.sleep(0.1)
    health = (await ask("GET", f"{ROOT}/health"))["data"]
    assert (health["state"], health["errors_count"], health["last_job"]["job"]) == ("ok", 0, job)
    assert (await ask("DELETE", f"{ROOT}/cache"))["data"] == {"cleared": True}
    for query in ({"page": "0"}, {"limit": "501"}, {"page": "x"}):
        is_problem(await api.get(f"{ROOT}/mappings", params={**one, **query}), 400)
    for unknown in ("nonsense", "00000000-0000-0000-0000-000000000000"):
        is_problem(await api.get(f"{ROOT}/sync/{unknown}", params=one), 404)
    for wrong in (
        {"types": ["thing"]}, {"types": "user"}, {"ids": []}, {"ids": ["1"]}, {"ids": [0]}, {"updated_since": "yesterday"}, {"direction": "from"},
        {"sync_users": "perhaps"}, {"sync_objects": False, "sync_users": False}, {"nope": 1},
    ):  # fmt: skip
        is_problem(await api.post(f"{ROOT}/sync/to", params=one, json=wrong), 400)
    is_problem(await api.post(f"{ERRORS}/999999/retry", params=one), 404)
    # Another enterprise sees nothing of it.
    await api.put("/api/enterprises/0400", json={**house.document, "number": "0400", "pbxs": [], "integrations": {}})
    other = {"enterprise": "0400"}
    assert (await api.get(f"{ROOT}/mappings", params=other)).json()["data"]["total"] == 0
    is_problem(await api.get(f"{ROOT}/sync/{job}", params=other), 404)
    is_problem(await api.get(f"{ROOT}/stats", params={"enterprise": "9999"}), 404)
