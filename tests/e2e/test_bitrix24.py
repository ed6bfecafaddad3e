"""A Bitrix24 portal and a running daemon: clicks and what became of them, consent in the browser, calls of a real PBX's recording."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from lab.crm.bitrix24 import Bitrix24Sandbox
from tests.e2e.conftest import NUMBER, House
from tests.e2e.test_admin import PASSWORD
from tests.e2e.test_api import ONE, is_problem
from tests.e2e.test_click import PHONE, response, until

EVENTS = "/bitrix24/events"


def document(house: House, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**house.document, "integrations": {"bitrix24": settings}, **more}


def codes(box: Bitrix24Sandbox) -> dict[str, str]:
    return {call.id: (call.row or {})["CALL_FAILED_CODE"] for call in box.finished()}


@pytest.fixture
async def box() -> Any:
    portal = Bitrix24Sandbox()
    await portal.start()
    yield portal
    await portal.stop()


async def test_a_click_at_the_portal_rings_once_and_whatever_becomes_of_it_is_told_back(house: House, api: httpx.AsyncClient, box: Bitrix24Sandbox) -> None:
    handler = f"http://{house.daemon.http}{EVENTS}"
    settings = box.settings()

    async def told(call: str) -> str | None:
        return codes(box).get(call)

    await api.put(ONE, json=document(house, settings, pbxs=[]))
    unlinked, statuses = await box.click(handler, "12", PHONE)
    assert statuses == [200]
    assert await until(lambda: told(unlinked)) == "503"
    await api.put(ONE, json=document(house, settings))
    await house.linked()

    # The same event three times, in another order each: one Originate; nobody answers, and the portal's own call is finished.
    sent = len(house.pbx.originates)
    absent, statuses = await box.click(handler, "13", "+375296254071", copies=3)
    assert statuses == [200, 200, 200]
    await until(lambda: _true(len(house.pbx.originates) > sent))
    frame = house.pbx.originates[-1]
    assert "151" in str(frame.get("Channel"))
    again, _ = await box.click(handler, "13", "+375296254071")  # a second click a moment later is another call at the portal
    assert await until(lambda: told(again)) == "603-S"
    house.pbx.send(response(frame, False, "3"))
    assert await until(lambda: told(absent)) == "480"
    assert len(house.pbx.originates) == sent + 1

    for user, phone, code in (("12", "+1900555", "404"), ("12", "+12025550123", "403"), ("1", PHONE, "480")):
        refused, statuses = await box.click(handler, user, phone)
        assert statuses == [200]
        assert await until(lambda refused=refused: told(refused)) == code, phone
    assert {call.row["PORTAL_USER_ID"] for call in box.finished()[-1:] if call.row} == {"1"}
    assert "telephony.externalcall.register" not in box.calls_made

    # The call-back form: nobody looks after the customer, so the line's default extension calls.
    line = house.document["lines"][0]["number"]
    lines = [{"number": line, "default_code": "150"}]
    await api.put(ONE, json=document(house, settings, lines=lines))
    assert await box.call_back(handler, "+375296254079", line) == [200]
    await until(lambda: _true("+375296254079" in dict(house.pbx.originates[-1].items()).values()))
    house.pbx.send(response(house.pbx.originates[-1], False, "5"))
    await until(lambda: _true(any(call.kind == 4 and call.row for call in box.data.calls.values())))

    async with httpx.AsyncClient(base_url=f"http://{house.daemon.http}", trust_env=False, timeout=60) as stranger:
        form = {"event": "ONEXTERNALCALLSTART", "data[USER_ID]": "12", "data[PHONE_NUMBER]": PHONE}
        is_problem(await stranger.post(EVENTS, data=form), 401)
        is_problem(await stranger.post(EVENTS, data={**form, "auth[application_token]": "x" * 32}), 401)
        is_problem(await stranger.post(EVENTS, data={"event": form["event"], "auth[application_token]": box.application_token}), 400, "missing_parameter")
        ignored = await stranger.post(EVENTS, data={"event": "ONAPPTEST", "auth[application_token]": box.application_token})
        assert ignored.json() == {"accepted": False}
    await api.put(ONE, json=document(house, {**settings, "mode": "observe"}))
    sent = len(house.pbx.originates)
    assert (await box.click(handler, "12", "+375296254075"))[1] == [200]
    assert len(house.pbx.originates) == sent
    # A token is one enterprise's alone, and goes with the integration.
    taken = await api.put("/api/enterprises/0400", json={**document(house, settings), "number": "0400", "pbxs": []})
    is_problem(taken, 400, "token_taken")
    await api.delete(f"{ONE}/integrations/bitrix24")
    assert (await box.click(handler, "12", PHONE))[1] == [401]


async def _true(value: bool) -> bool:
    return value


async def test_an_administrator_connects_an_application_and_a_recorded_office_is_told(house: House, api: httpx.AsyncClient, box: Bitrix24Sandbox) -> None:
    base = f"http://{house.daemon.http}"
    await api.put(ONE, json=document(house, box.application(rules=[{"direction": "out", "do": "nothing"}])))
    await house.linked()
    box.app_handler = f"{base}/bitrix24/callback"
    assert [check["name"] for check in (await api.post(f"{ONE}/integrations/bitrix24/test")).json()["checks"]] == ["credentials"]
    begun = await api.get("/bitrix24/install", params={"enterprise": NUMBER}, headers={"Accept": "text/html"})
    assert begun.status_code == 303, begun.text
    async with httpx.AsyncClient(trust_env=False, timeout=60) as browser:
        consent = await browser.get(begun.headers["location"])
        assert consent.status_code == 302
        back = consent.headers["location"]
        assert (await browser.get(back)).status_code == 400  # the state is this browser's alone
    async with httpx.AsyncClient(trust_env=False, timeout=60) as browser:
        begun = await api.get("/bitrix24/install", params={"enterprise": NUMBER})
        back = (await browser.get(begun.headers["location"])).headers["location"]
        cookies = {name: value for name, value in (part.split(";")[0].split("=", 1) for part in begun.headers.get_list("set-cookie"))}
        browser.cookies.update(cookies)
        done = await browser.get(back)
        assert (done.status_code, urlsplit(done.headers["location"]).path) == (303, f"/e/{NUMBER}/integrations/bitrix24")
        assert (await browser.get(back)).status_code == 400
    assert (await api.post(f"{ONE}/integrations/bitrix24/test")).json()["ok"]
    # The portal may bring its tokens itself, and with them what its events will carry.
    address = (await api.post(f"{ONE}/integrations/bitrix24/install-address")).json()["url"]
    granted = box.grant()
    form = {"AUTH_ID": granted.access, "REFRESH_ID": granted.refresh, "AUTH_EXPIRES": "3600", "APPLICATION_TOKEN": box.application_token}
    where = {"DOMAIN": box.url.partition("//")[2], "PROTOCOL": "0"}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as portal:
        assert (await portal.post(address, params={"state": urlsplit(address).query.partition("=")[2], **where}, data=form)).json() == {"accepted": True}
        is_problem(await portal.post(address, data=form), 400, "bad_state")
        known = {"event": "ONAPPTEST", "auth[application_token]": box.application_token}
        assert (await portal.post(f"{base}{EVENTS}", data=known)).status_code == 200
    managers = (await api.get(f"{ONE}/integrations/bitrix24/managers")).json()["items"]
    assert {manager["id"]: manager["extension"] for manager in managers} == {"1": None, "12": "150", "13": "151", "14": "152", "15": "153", "16": None}

    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=60, headers={"Accept-Language": "ru"}) as person:
        assert (await person.post(house.daemon.first_link, data={"login": "root", "password": PASSWORD})).status_code == 303
        card = await person.get(f"/e/{NUMBER}/integrations/bitrix24")
        assert "Пользователь для звонков, которые никто не принял" in card.text
        assert f"/bitrix24/install?enterprise={NUMBER}" in card.text
        assert box.client_secret not in card.text
        # Connected by consent, then by the portal itself: until when, and that its clicks are known.
        assert box.url.partition("//")[2] in card.text
        assert "Токен действует до" in card.text
        assert "продлит первый запрос" in card.text
        assert "узнаются по токену" in card.text
        lines = (await person.get(f"/e/{NUMBER}/integrations/bitrix24/lines")).text
        assert "там её нет" in lines
        assert "Сохранить и зарегистрировать" in lines
        assert (await api.post(f"{ONE}/integrations/bitrix24/register")).json()["ok"]
        lines = (await person.get(f"/e/{NUMBER}/integrations/bitrix24/lines")).text
        assert "зарегистрирована" in lines
        assert "там её нет" not in lines
        assert "1. исходящий → ничего не делать" in lines
        assert (await person.get(f"/e/{NUMBER}/integrations/retailcrm/lines")).status_code == 404
        csrf = re.search(r'name="csrf" value="(\w+)"', card.text)
        assert csrf is not None
        made = await person.post(f"/e/{NUMBER}/integrations/bitrix24/install-address", data={"csrf": csrf[1]})
        assert "/bitrix24/install?state=" in made.text
        assert (await person.post(f"/e/{NUMBER}/integrations/retailcrm/install-address", data={"csrf": csrf[1]})).status_code == 404
    given = await api.put(f"{ONE}/integrations/bitrix24/extensions", json={"extensions": {"1": "154", "16": "155"}})
    assert given.json()["detail"] == ""
    assert {user.id: user.phone for user in box.data.users.values()} == {
        "1": "154", "12": "150", "13": "151", "14": "152", "15": "153", "16": "155",
    }  # fmt: skip

    await house.play("inbound-answered", "ring-group", "attended-by-phone", "inbound-not-answered")
    calls = await house.settled(5)  # one of them a consultation
    told = {call.external_id: call for call in box.finished()}
    assert {call["id"] for call in calls if call["direction"] != "internal"} == set(told)
    held = {"150": "12", "151": "13", "152": "14", "153": "15", "154": "1"}
    for call in calls:
        if call["direction"] == "internal":
            continue
        row = told[call["id"]].row or {}
        whose = call["last_talked"] or (call["rang"] or ["150"])[0]
        assert row["PORTAL_USER_ID"] == held[whose], call
        assert row["CALL_FAILED_CODE"] == ("200" if call["result"] == "answered" else "304")
        assert {held[number] for number in call["rang"] if number in held} <= set(told[call["id"]].ever_shown)
        assert not told[call["id"]].cards
    assert set(box.refusals) <= {"400  User is not found or is not active"}  # one phone of the office belongs to nobody at the portal
