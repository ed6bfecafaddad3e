"""Click-to-call from outside: the API and the webhooks of a running daemon, with a PBX that hears an Originate and answers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from daemon.ami.wire import Frame
from lab.fakepbx import QUEUED
from tests.e2e.conftest import NUMBER, House
from tests.e2e.test_api import ONE, is_problem

SECRET = "the-enterprises-own-secret-0123456789"
PHONE = "+375296254070"
CLICK = "/retailcrm/api/retailcrm/make-call"


def document(house: House, **more: Any) -> dict[str, Any]:
    built = {**house.document, "secret": SECRET, **more}
    built["integrations"]["retailcrm"]["user_extensions"] = {"19": "150", "22": None}
    return built


@pytest.fixture
async def outside(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without a token."""
    async with httpx.AsyncClient(base_url=f"http://{house.daemon.http}", trust_env=False, timeout=60) as client:
        yield client


async def until(what: Any, timeout_s: float = 30) -> Any:
    async with asyncio.timeout(timeout_s):
        while not (found := await what()):
            await asyncio.sleep(0.02)
    return found


def response(frame: Frame, ok: bool, reason: str) -> bytes:
    """The OriginateResponse that an Asterisk sends for this Originate."""
    return (
        f"Event: OriginateResponse\r\nPrivilege: call,all\r\nActionID: {frame.get('ActionID')}\r\nResponse: {'Success' if ok else 'Failure'}\r\n"
        f"Channel: Local/150@inoffice\r\nReason: {reason}\r\nUniqueid: <unknown>\r\n\r\n"
    ).encode()


async def state_of(api: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get(f"{ONE}/calls/requests/{request_id}")).json()
    return found


async def test_a_click_is_one_originate_with_our_ids_and_the_customers_number_on_the_first_leg(house: House, api: httpx.AsyncClient) -> None:
    await api.put(ONE, json=document(house))
    await house.linked()
    placed = await api.post(f"{ONE}/calls", json={"extension": "150", "phone": PHONE})
    assert (placed.status_code, placed.json()["success"], placed.json()["state"]) == (200, True, "sent"), placed.text
    (frame,) = house.pbx.originates
    assert {name: frame.get(name) for name in ("Channel", "Context", "Exten", "Priority", "CallerID", "Async", "Timeout")} == {
        "Channel": "Local/150@inoffice", "Context": "inoffice", "Exten": PHONE, "Priority": "1", "CallerID": f'"{PHONE}" <{PHONE}>', "Async": "true",
        "Timeout": "30000",
    }  # fmt: skip
    assert frame.get("ChannelId") == frame.get("ActionID")
    assert frame.get("OtherChannelId") == f"{frame.get('ChannelId')}-2"
    request = await state_of(api, placed.json()["request_id"])
    assert (request["extension"], request["phone"], request["source"], request["pbx"]) == ("150", PHONE, "api", "main")
    assert await until(lambda: is_state(api, request["id"], "sent"))

    again = await api.post(f"{ONE}/calls", json={"extension": "150", "phone": "8 029 625-40-70"})
    assert (again.status_code, again.json()["request_id"]) == (200, request["id"])
    assert len(house.pbx.originates) == 1

    house.pbx.send(response(frame, True, "4"))
    assert await until(lambda: is_state(api, request["id"], "manager_answered"))
    is_problem(await api.get(f"{ONE}/calls/requests/nonsense"), 404, "not_found")
    is_problem(await api.get(f"{ONE}/calls/requests/00000000-0000-0000-0000-000000000000"), 404, "not_found")
    await dials_in_the_other_style(house, api)


async def dials_in_the_other_style(house: House, api: httpx.AsyncClient) -> None:
    pbx = {**house.document["pbxs"][0], "originate_second": "dial", "originate_channel": "PJSIP/{extension}"}
    await api.put(ONE, json=document(house, pbxs=[pbx]))
    status, body = await house.crm.click(f"http://{house.daemon.http}", SECRET, "+375296254079", user_id="19", external_phone="375171112233")
    assert (status, body["success"]) == (200, True), body
    frame = house.pbx.originates[-1]
    assert {name: frame.get(name) for name in ("Channel", "Application", "Data", "Exten", "Variable")} == {
        "Channel": "PJSIP/150", "Application": "Dial", "Data": "Local/+375296254079@inoffice", "Exten": None, "Variable": "__VOCHI_LINE=+375171112233",
    }  # fmt: skip


async def is_state(api: httpx.AsyncClient, request_id: str, state: str) -> bool:
    return (await state_of(api, request_id))["state"] == state


async def test_a_click_comes_by_get_and_post_in_query_form_and_json_under_every_prefix(
    house: House, api: httpx.AsyncClient, outside: httpx.AsyncClient
) -> None:
    rules = {"per_extension_per_minute": 1000, "concurrent": 1000}
    await api.put(ONE, json=document(house, dial_rules=rules))
    await house.linked()
    values = {"clientId": SECRET, "userId": "19", "code": "", "unknown": "x"}
    ways = [
        lambda phone: outside.get("/retailcrm/api/retailcrm/make-call", params={**values, "phone": phone}),
        lambda phone: outside.get("/retailcrm/make-call", params={**values, "phone": phone}),
        lambda phone: outside.get("/api/retailcrm/make-call", params={**values, "phone": phone}),
        lambda phone: outside.post("/retailcrm-admin/api/retailcrm/make-call", params={**values, "phone": phone}),
        lambda phone: outside.post(CLICK, data={**values, "phone": phone}),
        lambda phone: outside.post(CLICK, json={**values, "userId": 19, "phone": phone}),
        lambda phone: outside.post(CLICK, params={"clientId": SECRET}, json={"userId": 19, "phone": int(phone[1:]), "code": None}),
        lambda phone: outside.post(CLICK, data={**values, "phone": phone}, files={"x": ("", b"")}),
        lambda phone: outside.get("/api/makecallexternal", params={"clientId": SECRET, "code": "150", "phone": phone}),
        lambda phone: outside.get(f"/api/makecallexternal?clientId={SECRET}&code=150&phone={phone}"),  # the plus arrives as a blank
    ]
    for i, way in enumerate(ways):
        answer = await way(f"+37529625400{i}")
        assert answer.status_code == 200, (i, answer.text)
        assert house.pbx.originates[-1].get("Exten") == f"+37529625400{i}"
    assert len(house.pbx.originates) == len(ways)
    wins = await outside.get(CLICK, params={"clientId": SECRET, "userId": "19", "code": "151", "phone": "+375296254099"})
    assert wins.status_code == 200
    assert house.pbx.originates[-1].get("Channel") == "Local/151@inoffice"

    by_number = {"clientId": NUMBER, "userId": "19", "phone": "+375296254098"}
    is_problem(await outside.get(CLICK, params=by_number), 401, "unauthorized")
    built = document(house, dial_rules=rules)
    built["integrations"]["retailcrm"]["accept_number_as_client_id"] = True
    await api.put(ONE, json=built)
    assert (await outside.get(CLICK, params=by_number)).status_code == 200


BAD_PHONES = [
    "", "abc", "+37529625407a", "+375296254070;ext=1", "+375296254070&PJSIP/provider", "+375296254070|60", "+375296254070,60", "${SHELL(id)}", "$[1+1]",
    "+375296254070\r\nAction: Command", "+375296254070\n", "１２３４５６７", "+３７５２９６２５４０７０", "1" * 40, "+" + "3" * 40, "112", "*43", "0", "+",
    "+375296254070\x00", "٣٧٥٢٩٦٢٥٤٠٧٠",
]  # fmt: skip
BAD_CLICKS: list[tuple[dict[str, Any], int, str]] = [
    ({"phone": PHONE, "userId": "19"}, 401, "unauthorized"),
    ({"clientId": "not-known-to-anybody", "phone": PHONE, "userId": "19"}, 401, "unauthorized"),
    ({"clientId": NUMBER, "phone": PHONE, "userId": "19"}, 401, "unauthorized"),
    ({"clientId": SECRET, "userId": "19"}, 400, "missing_parameter"),
    ({"clientId": SECRET, "phone": PHONE}, 400, "missing_parameter"),
    ({"clientId": SECRET, "phone": PHONE, "userId": "999"}, 400, "no_extension"),
    ({"clientId": SECRET, "phone": PHONE, "userId": "22"}, 400, "no_extension"),
    ({"clientId": SECRET, "phone": PHONE, "code": "999"}, 400, "unknown_extension"),
    ({"clientId": SECRET, "phone": PHONE, "code": "150&151"}, 400, "unknown_extension"),
    ({"clientId": SECRET, "phone": PHONE, "code": "${EXTEN}"}, 400, "unknown_extension"),
    ({"clientId": SECRET, "phone": [PHONE, "+375296254071"], "userId": "19"}, 400, "repeated_parameter"),
    ({"clientId": [SECRET, "other-secret-of-somebody"], "phone": PHONE, "userId": "19"}, 400, "repeated_parameter"),
    ({"clientId": SECRET, "phone": PHONE, "userId": "9" * 300}, 400, "bad_parameter"),
    ({"clientId": SECRET, "phone": "+88216123456", "userId": "19"}, 403, "expensive_number"),
    ({"clientId": SECRET, "phone": "+4915123456789", "userId": "19"}, 403, "prefix_not_allowed"),
]


async def test_whatever_is_wrong_with_a_click_gets_a_clear_4xx_and_nothing_is_dialled(house: House, api: httpx.AsyncClient, outside: httpx.AsyncClient) -> None:
    await api.put(ONE, json=document(house))
    await house.linked()
    for phone in BAD_PHONES:
        answer = await outside.get(CLICK, params={"clientId": SECRET, "userId": "19", "phone": phone})
        assert is_problem(answer, 400)["field"] == "phone", phone
        is_problem(await outside.post(CLICK, json={"clientId": SECRET, "userId": "19", "phone": phone}), 400)
        is_problem(await api.post(f"{ONE}/calls", json={"extension": "150", "phone": phone}), 400)
    for values, status, code in BAD_CLICKS:
        is_problem(await outside.get(CLICK, params=values), status, code)
    assert is_problem(await outside.get(CLICK, params=BAD_CLICKS[5][0]), 400)["detail"] == "No extension configured for user 999"
    for body in (b"{", b"[]", b'"x"', b'{"phone": {"a": 1}, "clientId": "x"}', b"\xff\xfe"):
        assert (await outside.post(CLICK, content=body, headers={"Content-Type": "application/json"})).status_code in (400, 401)
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (await outside.post(CLICK, content=b"--x\r\nbroken", headers=broken)).status_code in (400, 401)
    for wrong in ({}, {"extension": "150"}, {"phone": PHONE}, {"extension": 150, "phone": PHONE}, {"extension": "150", "phone": PHONE, "context": "x"}, []):
        is_problem(await api.post(f"{ONE}/calls", json=wrong), 400)
    assert house.pbx.originates == []
    logs = (await api.get(f"{ONE}/logs?integration=retailcrm&event_type=make_call&status=error&limit=500")).json()["items"]
    assert any(entry["error_message"] == "No extension configured for user 999" for entry in logs)
    assert SECRET not in str(logs)


async def test_twenty_clicks_at_once_are_one_call_then_limits_rules_and_the_kill_switch(house: House, api: httpx.AsyncClient) -> None:
    async def click(extension: str, phone: str, **more: str) -> httpx.Response:
        return await api.post(f"{ONE}/calls", json={"extension": extension, "phone": phone, **more})

    noon = {"timezone": f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"}  # no day ends meanwhile
    rules: dict[str, Any] = {"per_extension_per_minute": 2}
    await api.put(ONE, json=document(house, dial_rules=rules, **noon))
    await house.linked()
    answers = await asyncio.gather(*(click("150", "+375296254001", idempotency_key="one") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["request_id"] for answer in answers}) == 1
    first = answers[0]
    assert (await click("150", "+375296254001", idempotency_key="one")).json()["request_id"] == first.json()["request_id"]
    assert (await click("150", "+375296254002")).status_code == 200
    is_problem(await click("150", "+375296254003"), 429, "per_extension_per_minute")
    await api.put(ONE, json=document(house, dial_rules={"concurrent": 2}))
    is_problem(await click("151", "+375296254003"), 429, "concurrent")
    await api.put(ONE, json=document(house, dial_rules={"per_day": 2}, **noon))
    is_problem(await click("151", "+375296254003"), 429, "per_day")
    await api.put(ONE, json=document(house, dial_rules={"denied_prefixes": ["+37529"]}))
    is_problem(await click("151", "+375296254003"), 403, "prefix_denied")
    await api.put(ONE, json=document(house, dial_rules={"enabled": False}))
    is_problem(await click("151", "+375296254003"), 403, "dialing_disabled")
    await api.put(ONE, json=document(house, paused=True))
    is_problem(await click("151", "+375296254003"), 403, "dialing_disabled")
    assert len(house.pbx.originates) == 2


async def test_a_pbx_that_is_down_refuses_at_once_and_nothing_is_queued(house: House, api: httpx.AsyncClient) -> None:
    await api.put(ONE, json=document(house))
    await house.linked()
    await house.pbx.stop()
    await until(lambda: _link_is_down(api))
    is_problem(await api.post(f"{ONE}/calls", json={"extension": "150", "phone": PHONE}), 503, "pbx_link_down")
    await house.pbx.start()
    await house.linked()
    assert house.pbx.originates == []
    assert (await api.post(f"{ONE}/calls", json={"extension": "150", "phone": PHONE})).status_code == 200
    await api.put("/api/enterprises/0400", json={"number": "0400", "name": "posts", "pbxs": [], "internal_phones": [{"number": "150"}]})
    is_problem(await api.post("/api/enterprises/0400/calls", json={"extension": "150", "phone": PHONE}), 503, "pbx_link_down")


async def _link_is_down(api: httpx.AsyncClient) -> bool:
    return all(pbx["state"] != "ready" for pbx in (await api.get("/health")).json().get("pbxs", []))


async def test_what_the_pbx_refuses_is_told_stored_and_journaled(house: House, api: httpx.AsyncClient) -> None:
    await api.put(ONE, json=document(house))
    await house.linked()
    for i, words in enumerate(("Extension does not exist.", "Invalid channel", "Permission denied")):
        house.pbx.originate, phone = words, f"+37529625407{i}"
        refused = is_problem(await api.post(f"{ONE}/calls", json={"extension": "150", "phone": phone}), 400, "pbx_refused")
        assert words in refused["detail"]
        again = is_problem(await api.post(f"{ONE}/calls", json={"extension": "150", "phone": phone}), 400, "pbx_refused")
        assert again["detail"] == refused["detail"]
    assert len(house.pbx.originates) == 3
    calls = await house.settled(3)
    assert {call["customer_number"] for call in calls} == {f"+37529625407{i}" for i in range(3)}
    for call in calls:
        assert (call["click_to_call"], call["result"], call["direction"], call["initiator"]) == (True, "unavailable", "out", "150")
    assert {(entry["result"], entry["code"], entry["type"]) for entry in house.crm.journal.values()} == {("failed", "150", "out")}
    assert [popup["codes"] for popup in house.crm.popups("hangup")] == [["150"]] * 3
    assert house.crm.popups("out") == []
    logged = (await api.get(f"{ONE}/logs?event_type=make_call")).json()["items"]
    assert [(entry["status"], entry["integration_type"]) for entry in logged] == [("error", "api")] * 3
    assert all("the PBX refused" in entry["error_message"] for entry in logged)


@pytest.mark.hasty("click")
async def test_no_answer_is_unknown_and_a_late_one_is_believed(house: House, api: httpx.AsyncClient) -> None:
    house.pbx.originate = "silent"
    await api.put(ONE, json=document(house))
    await house.linked()
    placed = await api.post(f"{ONE}/calls", json={"extension": "150", "phone": PHONE})
    assert (placed.status_code, placed.json()["state"]) == (202, "unknown")
    await until(lambda: _true_if(house.pbx.originates))
    house.pbx.send(response(house.pbx.originates[0], False, "3"))
    assert await until(lambda: is_state(api, placed.json()["request_id"], "failed"))
    request = await state_of(api, placed.json()["request_id"])
    assert (request["code"], request["reason"]) == ("manager_no_answer", "the manager did not pick up")
    assert len(house.pbx.originates) == 1


async def test_the_link_lost_between_the_originate_and_its_answer_is_unknown_and_found_in_the_snapshot(house: House, api: httpx.AsyncClient) -> None:
    house.pbx.originate = "drop"
    await api.put(ONE, json=document(house))
    await house.linked()
    placed = await api.post(f"{ONE}/calls", json={"extension": "150", "phone": PHONE})
    assert (placed.status_code, placed.json()["state"]) == (202, "unknown")
    assert house.pbx.channels == [house.pbx.originates[0].get("ChannelId")]  # it rings: the next snapshot shows it
    house.pbx.originate = QUEUED
    assert await until(lambda: is_state(api, placed.json()["request_id"], "sent"))
    assert (await api.post(f"{ONE}/calls", json={"extension": "150", "phone": PHONE})).json()["request_id"] == placed.json()["request_id"]
    assert len(house.pbx.originates) == 1


@pytest.mark.hasty("lease")
async def test_a_daemon_that_was_killed_in_the_middle_finds_out_afterwards_and_never_dials_again(house: House, api: httpx.AsyncClient) -> None:
    house.pbx.originate = "silent"
    await api.put(ONE, json=document(house))
    await house.linked()
    clicking = asyncio.ensure_future(api.post(f"{ONE}/calls", json={"extension": "150", "phone": PHONE}))
    await until(lambda: _true_if(house.pbx.originates))
    await house.daemon.kill()
    with pytest.raises(httpx.HTTPError):
        await clicking
    house.pbx.connected.clear()
    await house.daemon.start()
    await house.linked()
    frame = house.pbx.originates[0]
    request_id = (frame.get("ChannelId") or "").removeprefix("vochid-click-")
    assert await until(lambda: is_state(api, request_id, "unknown"), 60)
    house.pbx.send(response(frame, True, "4"))
    assert await until(lambda: is_state(api, request_id, "manager_answered"))
    assert len(house.pbx.originates) == 1


async def _true_if(value: object) -> bool:
    return bool(value)


async def test_managers_statuses_are_kept(house: House, api: httpx.AsyncClient, outside: httpx.AsyncClient) -> None:
    await api.put(ONE, json=document(house))
    path = "/retailcrm/api/retailcrm/status"
    for values in ({"userId": "19", "status": "dinner"}, {"code": "150", "status": "free"}):
        assert (await outside.get(path, params={"clientId": SECRET, **values})).json() == {"success": True}
        assert (await outside.post(path, data={"clientId": SECRET, **values})).json() == {"success": True}
        assert (await outside.post(path, json={"clientId": SECRET, **values})).json() == {"success": True}
    is_problem(await outside.get(path, params={"clientId": SECRET, "userId": "19", "status": "dnd"}), 400, "bad_parameter")
    is_problem(await outside.get(path, params={"clientId": SECRET, "userId": "19"}), 400)
    is_problem(await outside.get(path, params={"clientId": SECRET, "status": "free"}), 400, "missing_parameter")
    is_problem(await outside.get(path, params={"clientId": SECRET, "code": "999", "status": "free"}), 400, "unknown_extension")
    is_problem(await outside.get(path, params={"clientId": "wrong-client-id", "userId": "19", "status": "free"}), 401, "unauthorized")
