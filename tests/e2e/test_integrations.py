"""Registration, managers and the predecessor's RetailCRM paths, from outside, on a running daemon."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from admin_http.api.retailcrm import ROUTES
from admin_http.api.routing import KEPT_PREFIXES
from tests.e2e.conftest import NUMBER, House
from tests.e2e.test_api import ONE, is_problem

CRM = f"{ONE}/integrations/retailcrm"
CODE = "vochi-telephony"


async def test_registration_managers_and_extensions_over_the_api(house: House, api: httpx.AsyncClient) -> None:
    await api.put(ONE, json=house.document)
    house.crm.switches.check_logo = True
    done = await api.post(f"{CRM}/register")
    assert (done.status_code, done.json()) == (200, {"ok": True, "detail": ""})
    module = house.crm.account.modules[CODE]
    assert module["integrations"]["telephony"]["makeCallUrl"] == f"http://{house.daemon.http}/retailcrm/make-call"
    assert parse_qs(urlsplit(module["accountUrl"]).query)["enterprise_number"] == [NUMBER]

    saved = await api.put(f"{CRM}/extensions", json={"extensions": {"19": "150", "22": None}})
    assert saved.json() == {"success": True, "saved_extensions": 1, "assignments": [{"userId": "19", "code": "150"}], "detail": ""}
    assert house.crm.account.codes == {19: "150"}
    moved = await api.put(f"{CRM}/extensions", json={"extensions": {"22": "150"}})
    assert moved.json()["assignments"] == [{"userId": "22", "code": "150"}]
    listed = (await api.get(f"{CRM}/managers")).json()
    assert listed["items"][0] == {"id": "19", "name": "Анна Сидорова", "active": True, "extension": None, "remote_extension": None}
    assert listed["items"][1] == {"id": "22", "name": "Борис Ковальчук", "active": True, "extension": "150", "remote_extension": "150"}
    assert {"no_extension"} == {alarm["kind"] for alarm in listed["alarms"]}
    assert listed["last_sync"]
    assert (await api.get(CRM)).json()["user_extensions"] == {"19": None, "22": "150"}

    for body in ({}, {"extensions": []}, {"extensions": {"19": "150", "22": "150"}}, {"extensions": {"19": "x"}}, {"extension": {}}):
        is_problem(await api.put(f"{CRM}/extensions", json=body), 400)
    assert (await api.post(f"{CRM}/unregister")).json()["ok"]
    assert house.crm.account.modules[CODE]["active"] is False
    for method, path in (("POST", "register"), ("POST", "unregister"), ("GET", "managers"), ("PUT", "extensions")):
        is_problem(await api.request(method, f"{ONE}/integrations/bitrix24/{path}", json={"extensions": {"19": "150"}}), 404, "not_found")
    logs = (await api.get(f"{ONE}/logs?event_type=register_module")).json()["items"]
    assert [log["status"] for log in logs] == ["success"]
    assert module["clientId"] not in str(logs)
    assert (await api.delete(CRM)).status_code == 204


async def test_what_the_crm_says_no_to_is_told(house: House, api: httpx.AsyncClient) -> None:
    await api.put(ONE, json=house.document)
    house.crm.switches.fail_next.extend(["pass", "pass", "pass", "errors-array"])
    refused = (await api.post(f"{CRM}/register")).json()
    assert refused["ok"] is False
    assert "Not enough funds" in refused["detail"]
    house.crm.api_key = "another-key"
    assert "apiKey" in is_problem(await api.get(f"{CRM}/managers"), 502, "crm_failed")["detail"]
    shown = (await api.get(f"{ONE}/diagnostics")).json()["items"]
    assert [item["integration"] for item in shown] == ["retailcrm"]
    assert shown[0]["last_failure"]["event_type"] == "managers"
    assert "apiKey" in shown[0]["last_failure"]["error"]
    assert shown[0]["last_success"] is None
    assert shown[0]["registered_at"] is None


async def test_the_logo_is_there_for_everybody(house: House) -> None:
    async with httpx.AsyncClient(base_url=f"http://{house.daemon.http}", trust_env=False, timeout=60) as stranger:
        logo = await stranger.get("/retailcrm/logo.svg")
    assert (logo.status_code, logo.headers["content-type"]) == (200, "image/svg+xml")
    assert logo.text.startswith("<svg")


async def test_the_predecessors_paths_stand_under_each_prefix_and_the_enterprises_secret_opens_them(house: House, api: httpx.AsyncClient) -> None:
    secret = "the-secret-of-0367"
    await api.put(ONE, json={**house.document, "secret": secret})
    await api.put("/api/enterprises/0400", json={**house.document, "number": "0400", "pbxs": [], "secret": "the-secret-of-0400"})
    async with httpx.AsyncClient(base_url=f"http://{house.daemon.http}", headers={"X-Enterprise-Secret": secret}, trust_env=False, timeout=60) as own:
        for prefix in KEPT_PREFIXES:
            config = (await own.get(f"{prefix}/config/{NUMBER}")).json()
            assert (config["enterprise_number"], config["config"]["domain"]) == (NUMBER, house.crm.url)
            assert config["config"]["api_key"] == {"set": True, "last4": house.crm.api_key[-4:]}
            is_problem(await own.get(f"{prefix}/config/0400"), 404, "not_found")
            is_problem(await own.get(f"{prefix}/config/{NUMBER}", headers={"X-Enterprise-Secret": "wrong-secret"}), 401, "unauthorized")
        is_problem(await own.get(ONE), 401, "unauthorized")
        base = KEPT_PREFIXES[2]

        registered = await own.post(f"{base}/register/{NUMBER}", data={"domain": house.crm.url, "api_key": house.crm.api_key, "enabled": "true"})
        assert (registered.status_code, registered.json()["success"]) == (200, True)
        assert house.crm.account.modules[CODE]["active"]

        phones = (await own.get(f"{base}/internal-phones/{NUMBER}")).json()
        assert phones["total"] == len(house.document["internal_phones"])
        assert phones["phones"][0] == {"phone_number": "150", "owner": None, "user_id": None}
        by_json = await own.post(f"{base}/save-extensions/{NUMBER}", json={"extensions": {"19": "150"}})
        assert by_json.json()["saved_extensions"] == 1
        for form in ({"extensions[22]": "151"}, {"extensions": '{"25": "152"}'}):
            assert (await own.post(f"{base}/save-extensions/{NUMBER}", data=form)).status_code == 200
        assert house.crm.account.codes == {19: "150", 22: "151", 25: "152"}
        held = (await own.get(f"{base}/user-extensions/{NUMBER}")).json()
        assert (held["total"], held["user_extensions"]) == (3, {"19": "150", "22": "151", "25": "152"})
        assert (await own.get(f"{base}/internal-phones/{NUMBER}")).json()["phones"][0]["user_id"] == "19"

        house.crm.account.modules[CODE]["integrations"]["telephony"]["additionalCodes"] = []
        del house.crm.account.users[25]
        synced = (await own.post(f"{base}/sync-extensions/{NUMBER}")).json()
        assert (synced["success"], synced["synced_extensions"], synced["mended"]) == (True, 3, 2)
        assert "user_gone" in {alarm["kind"] for alarm in synced["alarms"]}
        confirmed = (await own.post(f"{base}/sync-extensions/{NUMBER}", json={"confirm": True})).json()
        assert confirmed["local_extensions"] == {"19": "150", "22": "151"}

        changed = await own.put(f"{base}/config/{NUMBER}", json={"config": {"mode": "observe", "last_sync": "whenever", "version": 3}})
        assert (changed.json()["config"]["mode"], changed.json()["config"]["user_extensions"]) == ("observe", {"19": "150", "22": "151"})
        assert (await own.put(f"{base}/config/{NUMBER}", data={"mode": "live"})).json()["config"]["mode"] == "live"
        gone = (await own.delete(f"{base}/config/{NUMBER}")).json()
        assert gone["success"]
        assert house.crm.account.modules[CODE]["active"] is False
        is_problem(await own.get(f"{base}/config/{NUMBER}"), 404, "not_found")
        is_problem(await own.get(f"{base}/user-extensions/{NUMBER}"), 404, "not_found")


WRONG_BODIES: list[dict[str, Any]] = [
    {},
    {"content": b"", "headers": {"Content-Type": "application/json"}},
    {"content": b"  ", "headers": {"Content-Type": "application/json"}},
    {"content": b"{", "headers": {"Content-Type": "application/json"}},
    {"content": b"[]", "headers": {"Content-Type": "application/json"}},
    {"content": b'"x"', "headers": {"Content-Type": "application/json"}},
    {"content": b"null", "headers": {"Content-Type": "application/json"}},
    {"content": b"\xff\xfe", "headers": {"Content-Type": "application/json"}},
    {"content": b"", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
    {"content": b"broken", "headers": {"Content-Type": "multipart/form-data"}},
    {"content": b"broken", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    {"content": b"x[=1", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
    {"files": {"extensions": ("x.txt", b"150")}},
    {"content": b"hello", "headers": {"Content-Type": "text/plain"}},
]


@pytest.fixture
async def set_up(house: House, api: httpx.AsyncClient) -> httpx.AsyncClient:
    await api.put(ONE, json=house.document)
    return api


async def test_an_empty_or_broken_body_is_a_clear_400_wherever_a_body_is_needed(set_up: httpx.AsyncClient) -> None:
    for route in ROUTES:
        if route.body is None:
            continue
        for body in WRONG_BODIES:
            answer = await set_up.request(route.method, f"/api{route.path.replace('{n}', NUMBER)}", **body)
            is_problem(answer, 400)
    broken = {"content": b"{", "headers": {"Content-Type": "application/json"}}
    is_problem(await set_up.post(f"/api/sync-extensions/{NUMBER}", **broken), 400)
    assert is_problem(await set_up.put(f"/api/config/{NUMBER}", json={"domain": "https://10.0.0.1"}), 400)["field"] == "integrations.retailcrm.domain"
    assert is_problem(await set_up.post(f"/api/save-extensions/{NUMBER}", json={"x": 1}), 400)["field"] == "extensions"
    assert is_problem(await set_up.put(f"/api/config/{NUMBER}", json={"config": 5}), 400)["field"] == "config"
