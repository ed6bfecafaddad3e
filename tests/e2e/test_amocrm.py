"""amoCRM from outside, over a running daemon: consent, a widget's clicks, changes by webhook, orders."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from lab.crm.amocrm import AmoCrmSandbox
from tests.e2e.conftest import NUMBER, House
from tests.e2e.test_api import ONE, is_problem

KNOWN = "+375296254070"
CLICK = "/amocrm/make-call"


@pytest.fixture
async def box() -> AsyncIterator[AmoCrmSandbox]:
    sandbox = AmoCrmSandbox()
    await sandbox.start()
    yield sandbox
    await sandbox.stop()


@pytest.fixture
async def page(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without a token: the account's page, or a stranger."""
    async with httpx.AsyncClient(base_url=f"http://{house.daemon.http}", trust_env=False, timeout=60) as client:
        yield client


def document(house: House, box: AmoCrmSandbox, **more: Any) -> dict[str, Any]:
    made = box.oauth.integration
    amo = {
        "base_url": box.url, "client_id": made.client_id, "client_secret": made.client_secret, "oauth_url": f"{box.url}/oauth",
        "user_extensions": {"7031001": "150", "7031002": "151"}, **more,
    }  # fmt: skip
    rules = {"per_extension_per_minute": 1000, "concurrent": 1000}
    return {**house.document, "dial_rules": rules, "smart_redirect": {"crm": ["amocrm"]}, "integrations": {"amocrm": amo}}


async def connect(api: httpx.AsyncClient, box: AmoCrmSandbox, **more: str) -> httpx.Response:
    """As a browser goes: to the consent page, and back with what it brings."""
    sent = await api.get(f"/amocrm/install?enterprise={NUMBER}")
    assert sent.status_code == 303, sent.text
    state = dict(parse_qsl(urlsplit(sent.headers["location"]).query))["state"]
    back = urlsplit(box.oauth.way_back(**{"state": state, **more}))
    return await api.get(f"{back.path}?{back.query}")


async def test_consent_clicks_webhooks_and_orders(house: House, api: httpx.AsyncClient, page: httpx.AsyncClient, box: AmoCrmSandbox) -> None:
    box.oauth.integration.redirect_uri = f"http://{house.daemon.http}/amocrm/callback"
    assert (await api.put(ONE, json=document(house, box))).status_code == 201
    await house.linked()
    await consent_is_bound_and_used_once(api, page, box)
    await a_widget_calls(house, api, page, box)
    await changes_are_heard(api, page, box)
    await orders_are_made_once(api, box)
    await a_renamed_account_is_told_by_its_new_name(api, box)
    await an_integration_that_was_switched_off_is_looked_at_first(house, api, page, box)


async def a_renamed_account_is_told_by_its_new_name(api: httpx.AsyncClient, box: AmoCrmSandbox) -> None:
    box.switches.renamed_to = "nova.amocrm.ru"
    (check,) = (await api.post(f"{ONE}/integrations/amocrm/test")).json()["checks"]
    assert (check["ok"], check["field"]) == (False, "base_url")
    assert "nova.amocrm.ru" in check["detail"]
    box.switches.renamed_to = ""
    assert (await api.post(f"{ONE}/integrations/amocrm/test")).json()["ok"]


async def an_integration_that_was_switched_off_is_looked_at_first(house: House, api: httpx.AsyncClient, page: httpx.AsyncClient, box: AmoCrmSandbox) -> None:
    told = box.oauth.switched_off()
    for wrong in ({"signature": "0" * 64}, {"account_id": "5"}, {"client_uuid": "another"}, {"signature": ""}, {"signature": "ы"}):
        is_problem(await page.get("/amocrm/disabled", params={**told, **wrong}), 401, "unauthorized")
    is_problem(await page.get("/amocrm/disabled"), 401, "unauthorized")
    done = await page.get("/amocrm/disabled", params=told)
    assert (done.status_code, done.json()) == (200, {"success": True, "switched_off": True})
    assert not (await api.post(f"{ONE}/integrations/amocrm/test")).json()["ok"]
    # Connected again, the same address called again changes nothing.
    assert (await connect(api, box)).status_code == 303
    assert (await page.get("/amocrm/disabled", params=told)).json() == {"success": True, "switched_off": False}
    assert (await api.post(f"{ONE}/integrations/amocrm/test")).json()["ok"]


async def consent_is_bound_and_used_once(api: httpx.AsyncClient, page: httpx.AsyncClient, box: AmoCrmSandbox) -> None:
    assert (await page.get(f"/amocrm/install?enterprise={NUMBER}")).status_code in (302, 303)  # to the login
    for wrong in ({"referer": "evil.example"}, {"client_id": "another"}, {"code": "def50200-wrong"}, {"state": "x" * 43}):
        assert (await connect(api, box, **wrong)).status_code == 400, wrong
    assert (await api.get("/amocrm/callback?code=x&state=y")).status_code == 400
    done = await connect(api, box)
    assert (done.status_code, done.headers["location"]) == (303, f"/e/{NUMBER}/integrations/amocrm?connected=1"), done.text
    checked = (await api.post(f"{ONE}/integrations/amocrm/test")).json()
    assert checked["ok"], checked
    managers = (await api.get(f"{ONE}/integrations/amocrm/managers")).json()
    assert {(m["id"], m["extension"]) for m in managers["items"]} == {("7031001", "150"), ("7031002", "151"), ("7031003", None)}
    assert managers["differences"] == []


async def a_widget_calls(house: House, api: httpx.AsyncClient, page: httpx.AsyncClient, box: AmoCrmSandbox) -> None:
    origin = {"Origin": box.url}
    asked = await page.request("OPTIONS", CLICK, headers={**origin, "Access-Control-Request-Headers": "x-auth-token"})
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, box.url)
    assert "X-Auth-Token" in asked.headers["access-control-allow-headers"]
    stranger = await page.request("OPTIONS", CLICK, headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in is_problem(stranger, 401, "unauthorized") | dict(stranger.headers)

    def click(phone: str = KNOWN, token: str | None = None, **headers: str) -> Any:
        return page.post(CLICK, data={"phone": phone}, headers={**origin, "X-Auth-Token": token or box.oauth.disposable(7031001), **headers})

    placed = await click()
    assert (placed.status_code, placed.json()["state"]) == (200, "sent"), placed.text
    assert placed.headers["access-control-allow-origin"] == box.url
    (frame,) = house.pbx.originates
    assert (frame.get("Channel"), frame.get("Exten")) == ("Local/150@inoffice", KNOWN)
    request = placed.json()["request_id"]
    told = await page.get(CLICK, params={"request_id": request}, headers={**origin, "X-Auth-Token": box.oauth.disposable(7031001)})
    assert (told.status_code, told.json()["state"]) == (200, "sent")
    another = await page.get(CLICK, params={"request_id": request}, headers={"X-Auth-Token": box.oauth.disposable(7031002)})
    is_problem(another, 404, "not_found")

    now = int(time.time())
    for wrong in ({"aud": "https://other.example"}, {"iss": "https://other.amocrm.ru"}, {"account_id": 5}, {"exp": now - 100, "nbf": now - 200}):
        is_problem(await click(token=box.oauth.disposable(7031001, **wrong)), 401, "unauthorized")
    is_problem(await click(token="x.y.z"), 401, "unauthorized")
    assert is_problem(await click(token=box.oauth.disposable(7031003)), 400)["detail"] == "No extension configured for user 7031003"
    refused = await click("+882123456789")
    assert refused.headers["access-control-allow-origin"] == box.url
    assert refused.status_code in (400, 403)
    is_problem(await click(""), 400, "missing_parameter")
    foreign = await click("+375296254071", Origin="https://evil.example")
    assert "access-control-allow-origin" not in foreign.headers

    twice = box.oauth.disposable(7031001)
    assert (await click("+375296254072", twice)).json()["request_id"] != (await click("+375296254073", twice)).json()["request_id"]
    await api.put(f"{ONE}/integrations/amocrm", json={**document(house, box)["integrations"]["amocrm"], "single_use_clicks": True})
    twice = box.oauth.disposable(7031001)
    before = len(house.pbx.originates)
    assert (await click("+375296254074", twice)).json()["request_id"] == (await click("+375296254075", twice)).json()["request_id"]
    assert len(house.pbx.originates) == before + 1


async def changes_are_heard(api: httpx.AsyncClient, page: httpx.AsyncClient, box: AmoCrmSandbox) -> None:
    box.switches.rate_limited = False
    contact = box.account.contact("Ирина", KNOWN, 7031001)
    registered = (await api.post(f"{ONE}/integrations/amocrm/register")).json()
    assert registered["ok"], registered
    (hook,) = box.account.webhooks
    again = (await api.post(f"{ONE}/integrations/amocrm/register")).json()
    assert again["ok"], again
    assert len(box.account.webhooks) == 1
    assert hook not in box.account.webhooks

    async def responsible() -> Any:
        async with asyncio.timeout(30):
            while (found := (await api.post("/api/smart-redirect", json={"enterprise_number": NUMBER, "phone": KNOWN})).json())["status"] == "timeout":
                await asyncio.sleep(0.05)
        return found["extension"] or found["name"]

    first = await responsible()
    searches = sum(line == "GET /api/v4/contacts" for line in box.requests)
    assert await responsible() == first
    assert sum(line == "GET /api/v4/contacts" for line in box.requests) == searches  # remembered
    contact["name"] = "Марта"
    phone = {"custom_fields][0][values][0][value": KNOWN}
    assert await box.entities.tell("update_contact", "contacts", "update", {"id": contact["id"], **phone}) == [200]
    await responsible()
    assert sum(line == "GET /api/v4/contacts" for line in box.requests) == searches + 1
    assert await box.entities.tell("responsible_lead", "leads", "responsible", {"id": 5}) == [200]
    await responsible()
    assert sum(line == "GET /api/v4/contacts" for line in box.requests) == searches + 2
    (hook,) = box.account.webhooks
    path = urlsplit(hook)
    is_problem(await page.post(f"{path.path}?{path.query}", data={"account[id]": "5", "leads[add][0][id]": "1"}), 401, "unauthorized")
    is_problem(await page.post(f"{path.path}?{path.query}", data={"x": "y"}), 400)
    is_problem(await page.post(path.path, data={"account[id]": str(box.account.id)}), 401, "unauthorized")
    assert (await api.post(f"{ONE}/integrations/amocrm/unregister")).json()["ok"]
    assert box.account.webhooks == {}


async def orders_are_made_once(api: httpx.AsyncClient, box: AmoCrmSandbox) -> None:
    orders, contacts = f"{ONE}/amocrm/orders", len(box.account.contacts)
    order = {"number": "A-17", "contact": {"name": "Анна", "phone": "8 029 111-11-01"}, "lead": {"name": "Заказ", "price": 90}, "note": "позвонить"}
    box.switches.fail_next.extend(["pass", "pass", "pass", "done-then-500"])
    made = await api.post(orders, json=order)
    assert (made.status_code, made.json()["created"]) == (201, True), made.text

    async def done(sent: dict[str, Any]) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                told: dict[str, Any] = (await api.post(orders, json=sent)).json()
                if {step["state"] for step in told["steps"]} == {"delivered"}:
                    return told
                await asyncio.sleep(0.05)

    told = await done(order)
    assert not told["created"]
    lead = box.account.leads[told["lead_id"]]
    assert (lead["name"], lead["price"], lead["contact_ids"]) == ("Заказ A-17", 90, [told["contact_id"]])
    assert [note["params"]["text"] for note in box.account.notes.values() if note["note_type"] == "common"] == ["позвонить"]
    assert len(box.account.contacts) == contacts + 1
    is_problem(await api.post(orders, json={**order, "note": "другое"}), 409, "wrong_state")
    assert is_problem(await api.post(orders, json={"number": "1"}), 400, "missing_parameter")["field"] == "contact"
    second = {"number": "A-18", "contact": {"name": "Анна", "phone": "+375291111101"}}
    await done(second)
    assert len(box.account.contacts) == contacts + 1
