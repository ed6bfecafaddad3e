"""RetailCRM: what is told, every documented error, and the sandbox checked by the official client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import requests
import retailcrm

from adapters.base import Tenant
from adapters.http import Response
from adapters.retailcrm.client import Accepted, interpret
from adapters.retailcrm.config import RetailCrmSettings
from adapters.retailcrm.deliver import RetailCrm, journal_entry
from daemon.delivery import health, schedule
from daemon.delivery.dispatcher import _Worker
from daemon.model.call import Direction, Leg, LegKind, Result, Transfer
from daemon.model.delivery import Ambiguous, AuthExpired, Kind, Rejected, Retry, Throttled
from daemon.model.signal import CallChange, Ended, Ringing, StoppedRinging
from daemon.store.pool import Database
from lab.crm.retailcrm import FAULTS, RetailCrmSandbox, call_errors, event_errors
from tests.limits import most_within_a_second, noted_places
from tests.patience import PATIENCE_S
from tests.rig import NUMBER, a_call, rig, ringing

TENANT = Tenant(NUMBER, "Июнь", "Europe/Minsk", "BY", {"+375171112233": "199"})


def settings(**more: Any) -> RetailCrmSettings:
    return RetailCrmSettings.model_validate({"domain": "https://x.retailcrm.ru", "api_key": "key", **more})


@pytest.fixture
async def box() -> AsyncIterator[RetailCrmSandbox]:
    sandbox = RetailCrmSandbox(codes=("150", "151"))
    await sandbox.start()
    yield sandbox
    await sandbox.stop()


# -- what is told --------------------------------------------------------------------------------------------------------


def test_a_journal_entry_says_when_who_how_and_how_long() -> None:
    call = a_call()
    assert journal_entry(call, settings(), TENANT) == {
        "date": "2025-11-21 08:10:00", "type": "in", "phone": "375296254070", "result": "answered", "duration": 41, "durationWaiting": 7,
        "externalId": call.id, "code": "151", "externalPhone": "375171112233",
    }  # fmt: skip


def test_the_accounts_own_time_zone_wins_over_the_enterprises() -> None:
    assert journal_entry(a_call(), settings(timezone="Asia/Vladivostok"), TENANT)["date"] == "2025-11-21 15:10:00"


NOBODY_TALKED = {"answered_by": None, "last_talked": None}


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({}, "151"),
        ({"answered_by": "150", "last_talked": "152"}, "152"),
        ({"answered_by": "150", "last_talked": "+375291111111"}, "150"),
        ({**NOBODY_TALKED, "rang": ("150", "151")}, "150"),
        ({**NOBODY_TALKED, "rang": ()}, "199"),
        ({**NOBODY_TALKED, "rang": (), "line": None}, None),
        ({"answered_by": "+375291111111", "last_talked": "+375291111111", "rang": ("150",)}, "150"),
        ({**NOBODY_TALKED, "direction": Direction.OUT, "rang": (), "initiator": "152"}, "152"),
    ],
)
def test_the_entry_belongs_to_who_talked_last_else_who_answered_else_who_rang_first_else_the_lines_default(more: dict[str, Any], code: str | None) -> None:
    assert journal_entry(a_call(**more), settings(), TENANT).get("code") == code


def test_every_result_has_a_word_that_the_crm_knows() -> None:
    for result in [*Result, None]:
        for direction in (Direction.IN, Direction.OUT):
            assert call_errors(journal_entry(a_call(result=result, direction=direction), settings(), TENANT)) == {}


def test_a_call_barred_by_the_dialplan_is_not_allowed_and_a_declined_one_failed() -> None:
    own = Leg("PJSIP/151-1", "151", LegKind.INTERNAL, 0.0)
    barred = a_call(direction=Direction.OUT, result=Result.REJECTED, initiator="151", legs=(own,))
    assert journal_entry(barred, settings(), TENANT)["result"] == "not allowed"
    declined = a_call(direction=Direction.OUT, result=Result.REJECTED, initiator="151", legs=(own, Leg("PJSIP/provider-1", "+37529", LegKind.CUSTOMER, 0.0)))
    assert journal_entry(declined, settings(), TENANT)["result"] == "failed"


def test_a_withheld_number_raises_no_popup_and_is_journaled_all_the_same() -> None:
    call = a_call(customer_number=None)
    planned = RetailCrm().plan(CallChange(call, (Ringing(("150",)), Ended(("150",))), 1.0), settings(), TENANT)
    assert [item.kind for item in planned] == ["journal"]
    assert call_errors(journal_entry(call, settings(), TENANT)) == {}


def plans(call: Any, *signals: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"kind": str(p.kind), **p.payload} for p in RetailCrm().plan(CallChange(call, signals, 1.0), settings(**more), TENANT)]


def test_popups_go_to_who_rings_and_close_with_the_right_status() -> None:
    assert plans(a_call(), Ringing(("150", "151"))) == [{"kind": "popup", "type": "in", "codes": ["150", "151"]}]
    assert plans(a_call(), StoppedRinging(("150",))) == [{"kind": "hangup", "type": "hangup", "codes": ["150"], "hangupStatus": "cancel"}]
    for result, status in [(Result.ANSWERED, "answered"), (Result.NO_ANSWER, "no answered"), (Result.BUSY, "busy"), (Result.CANCELLED, "cancel"),
                           (Result.UNAVAILABLE, "failed")]:  # fmt: skip
        assert plans(a_call(result=result), Ended(("151",)))[0]["hangupStatus"] == status


def test_a_popup_of_who_handed_the_call_on_closes_as_answered_and_a_losers_as_cancelled() -> None:
    call = a_call(answered_by="161", last_talked="150", transfers=(Transfer("blind", "161", "162", True), Transfer("attended", "162", "150", True)))
    assert [(p["codes"], p["hangupStatus"]) for p in plans(call, StoppedRinging(("161", "162", "151")))] == [
        (["161", "162"], "answered"), (["151"], "cancel"),
    ]  # fmt: skip


def test_send_flags_switch_each_kind_off() -> None:
    everything = (Ringing(("150",)), Ended(("150",)))
    assert [p["kind"] for p in plans(a_call(), *everything, send={"popup_in": False})] == ["hangup", "journal"]
    assert [p["kind"] for p in plans(a_call(direction=Direction.OUT), *everything, send={"popup_out": False})] == ["hangup", "journal"]
    assert [p["kind"] for p in plans(a_call(), *everything, send={"hangup": False})] == ["popup", "journal"]
    assert [p["kind"] for p in plans(a_call(), *everything, send={"journal": False})] == ["popup", "hangup"]


# -- what answers mean -----------------------------------------------------------------------------------------------------


def said(status: int, body: Any, **headers: str) -> Any:
    return interpret(Response(status, headers, body if isinstance(body, str) else json.dumps(body)))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, {"success": True}, Accepted),
        (201, {"success": "true"}, Accepted),
        (200, {"success": False, "errorMsg": "Telephony not enabled"}, Rejected),
        (200, {"success": "false", "errorMsg": "x"}, Rejected),
        (400, {"success": False, "errorMsg": "Parameter 'event' is missing"}, Rejected),
        (400, {"success": False, "errorMsg": "Errors in the entity format", "errors": {"code": "x"}}, Rejected),
        (400, {"success": False, "errorMsg": "Failed to activate module", "errors": ["no funds"]}, Rejected),
        (400, {"success": False, "errorMsg": "Account does not exist."}, AuthExpired),
        (403, {"success": False, "errorMsg": 'Wrong "apiKey" value.'}, AuthExpired),
        (403, {"success": False, "errorMsg": "Access denied."}, AuthExpired),
        (404, {"success": False, "errorMsg": "API method not found"}, Rejected),
        (405, {"success": False, "errorMsg": "Method Not Allowed"}, Rejected),
        (405, "<html>405</html>", AuthExpired),
        (429, {"success": False}, Throttled),
        (503, {"success": False, "errorMsg": "Rate limit exceeded"}, Throttled),
        (503, "<html>down</html>", Retry),
        (500, "<html>", Retry),
        (500, {"success": False, "errorMsg": "Internal"}, Retry),
        (502, "", Retry),
        (200, "<html>maintenance", Ambiguous),
        (200, '{"success": tr', Ambiguous),
        (200, "[]", Ambiguous),
        (302, "", AuthExpired),
        (460, {"success": False, "processedCallsCount": 1}, Accepted),
    ],
)
def test_every_documented_answer_has_its_meaning(status: int, body: Any, kind: type) -> None:
    assert isinstance(said(status, body), kind)


def test_validation_errors_are_repeated_in_the_crms_words() -> None:
    assert "code: bad prefix" in said(400, {"errorMsg": "Errors in the entity format", "errors": {"code": "bad prefix"}}).reason
    assert "no funds" in said(400, {"errorMsg": "Failed", "errors": ["no funds"]}).reason
    assert said(429, {"success": False}, **{"retry-after": "7"}).after_s == 7


# -- against the sandbox -----------------------------------------------------------------------------------------------------


async def delivered(box: RetailCrmSandbox, db: Database, *calls: Any) -> list[dict[str, Any]]:
    async with rig(db, RetailCrm(), {"domain": box.url, "api_key": box.api_key}, run=False) as r:
        for call in calls:
            await r.record(call, Ended(()), wake=False)
        r.dispatcher.wake(NUMBER, "retailcrm")
        return await r.settled(hurry=True)


async def test_sixty_calls_go_in_batches_of_fifty(box: RetailCrmSandbox, db: Database) -> None:
    async with rig(db, RetailCrm(), {"domain": box.url, "api_key": box.api_key}, run=False) as r:
        await r.record_all([a_call() for _ in range(60)], Ended(()))
        await r.settled()
    assert len(box.journal) == 60
    assert [len(upload.data) for upload in box.uploads] == [50, 10]


async def test_one_bad_call_does_not_take_its_batch_along(box: RetailCrmSandbox, db: Database) -> None:
    good, bad = a_call(), a_call(line="x" * 300)
    deliveries = await delivered(box, db, good, bad)
    assert list(box.journal) == [good.id]
    dead = [d for d in deliveries if d["state"] == "dead"]
    assert [d["call"] for d in dead] == [bad.id]
    assert "externalPhone" in dead[0]["last_error"]


async def test_a_partly_done_batch_is_sorted_out_call_by_call(box: RetailCrmSandbox, db: Database) -> None:
    box.switches.partial_status = 460
    good, bad = a_call(), a_call(line="x" * 300)
    deliveries = await delivered(box, db, good, bad)
    assert list(box.journal) == [good.id]
    assert sorted(d["state"] for d in deliveries) == ["dead", "delivered"]


# The two silences take the journal's whole deadline: the conformance suite plays them with a short one.
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if "silence" not in fault])
async def test_after_any_fault_the_call_is_in_the_journal_once_or_the_connection_asks_for_help(fault: str, box: RetailCrmSandbox, db: Database) -> None:
    box.switches.fail_next.append(fault)
    async with rig(db, RetailCrm(), {"domain": box.url, "api_key": box.api_key}) as r:
        await r.record(a_call(), Ended(()))
        if fault == "redirect":
            await r.until(lambda: r.states and r.states[-1][2] == "needs_reauth")
            return
        [delivery] = await r.settled(hurry=True)
        assert delivery["state"] == ("dead" if fault == "errors-array" else "delivered")
        assert len(box.journal) == (0 if fault in ("errors-array", "wrong-type") else 1)


async def test_the_accounts_limits_are_kept(box: RetailCrmSandbox, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    places, box.switches.rate_limited = noted_places(monkeypatch), False
    async with rig(db, RetailCrm(), {"domain": box.url, "api_key": box.api_key}) as r:
        started = time.monotonic()
        await r.record_all([a_call(ended_at=None, result=None) for _ in range(70)], Ringing(("150",)))
        await r.settled()
        assert time.monotonic() - started > 1.0
        assert (len(box.events), len(places)) == (70, 70), "every request had its place"
        assert most_within_a_second(places) <= 40


async def test_two_enterprises_with_one_account_share_its_limits(box: RetailCrmSandbox, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    places, box.switches.rate_limited = noted_places(monkeypatch), False
    settings_of_both = {"domain": box.url, "api_key": box.api_key}
    async with rig(db, RetailCrm(), settings_of_both) as r:
        await r.tenants.put("0400", {"number": "0400", "name": "x", "pbxs": [{"name": "main", "host": "h"}], "integrations": {"retailcrm": settings_of_both}})
        await r.leases.take(("0400", "main"))
        for number in [NUMBER, "0400"] * 30:
            await r.record(ringing(a_call(enterprise=number)), Ringing(("150",)))
        await r.until(lambda: len(box.events) == 60)
        assert len(places) == 60, "every request had its place"
        assert most_within_a_second(places) <= 40


async def test_popups_overtake_journals(box: RetailCrmSandbox, db: Database) -> None:
    box.switches.latency_s = 0.05
    async with rig(db, RetailCrm(), {"domain": box.url, "api_key": box.api_key}, run=False) as r:
        await r.record_all([a_call() for _ in range(9 * 50)], Ended(()), wake=False)  # one batch more than may be in flight at once
        await r.record(ringing(a_call()), Ringing(("150",)), wake=False)
        r.dispatcher.wake(NUMBER, "retailcrm")
        await r.until(lambda: len(box.uploads) == 9)
        assert box.events[0].at < box.uploads[-1].at


async def test_a_popup_that_could_not_be_shown_is_dropped_once_the_call_is_over(box: RetailCrmSandbox, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schedule._DELAYS_S, Kind.POPUP, (3_600.0,))  # it is not tried again before the call is over, however long that takes
    async with rig(db, RetailCrm(), {"domain": box.url, "api_key": box.api_key}) as r:
        box.switches.fail_next.append("500")
        call = a_call()
        await r.record(ringing(call), Ringing(("150",)))
        await r.deliveries(lambda found: found[0]["last_error"])
        await r.record(call, Ended(("150",)))
        deliveries = await r.settled()
        assert [(d["kind"], d["state"]) for d in deliveries] == [("popup", "dropped"), ("hangup", "delivered"), ("journal", "delivered")]
        assert box.popups("in") == []


async def test_a_popup_that_comes_too_late_is_dropped_and_its_journal_is_not(box: RetailCrmSandbox, db: Database) -> None:
    async with rig(db, RetailCrm(), {"domain": box.url, "api_key": box.api_key}, run=False) as r:
        await r.live_call_later(a_call())
        async with db.tenant(NUMBER) as connection:
            await connection.execute("update deliveries set expires_at = now() - interval '1 second' where expires_at is not null")
        r.dispatcher.wake(NUMBER, "retailcrm")
        assert [d["state"] for d in await r.settled()] == ["dropped", "dropped", "delivered"]
        assert box.events == []


async def test_a_crm_that_fails_ten_times_is_left_in_peace_until_a_probe_succeeds(box: RetailCrmSandbox, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FIRST_PAUSE_S", 3_600.0)
    async with rig(db, RetailCrm(), {"domain": box.url, "api_key": box.api_key}) as r:
        box.switches.fail_next.extend(["500"] * 1_000)
        for _ in range(10):
            await r.record(ringing(a_call()), Ringing(("150",)))
        await r.until(lambda: "open" in [state[2] for state in r.states])
        await r.at_rest()
        left = len(box.switches.fail_next)
        await r.record(a_call(), Ended(()))
        await asyncio.sleep(1.5)
        assert (len(box.switches.fail_next), box.events, box.journal) == (left, [], {})
        box.switches.fail_next.clear()
        worker = r.dispatcher._workers[(NUMBER, "retailcrm")]
        worker.health._open_until = 0.0
        r.dispatcher.wake(NUMBER, "retailcrm")
        await r.until(lambda: len(box.journal) == 1)
        await r.until(lambda: r.states[-1][2] == "closed")


async def test_a_probe_is_one_request_however_much_has_failed_before(box: RetailCrmSandbox, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(db, RetailCrm(), {"domain": box.url, "api_key": box.api_key}, run=False) as r:
        await r.record_all([a_call() for _ in range(30)], Ended(()), wake=False)
        async with db.tenant(NUMBER) as connection:
            await connection.execute("update deliveries set attempts = 3")
        monkeypatch.setattr(health, "FIRST_PAUSE_S", 3_600.0)
        worker = r.dispatcher._workers.setdefault((NUMBER, "retailcrm"), _Worker())
        for _ in range(10):
            worker.health.failed(time.monotonic())
        worker.health._open_until = 0.0
        box.switches.fail_next.extend(["500"] * 30)
        r.dispatcher.wake(NUMBER, "retailcrm")
        await r.until(lambda: len(box.switches.fail_next) < 30)
        await asyncio.sleep(0.5)
        assert len(box.switches.fail_next) == 29


async def test_unknown_extensions_are_told_in_the_delivery(box: RetailCrmSandbox, db: Database) -> None:
    async with rig(db, RetailCrm(), {"domain": box.url, "api_key": box.api_key}) as r:
        await r.record(a_call(ended_at=None, result=None), Ringing(("150", "777")))
        [delivery] = await r.settled()
        assert "777" in delivery["last_error"]


NAMES = ["ООО «Восток, север»", 'a "quoted" name', "O'Neil; DROP TABLE calls", "comma, and \\ backslash", "нуль\x00байт", "\u202eтекст", "🤝"]


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_goes_through_unharmed(name: str, box: RetailCrmSandbox, db: Database) -> None:
    [delivery] = await delivered(box, db, a_call(customer_name=name, answered_by="151"))
    assert delivery["state"] == "delivered"
    async with db.tenant(NUMBER) as connection:
        assert await connection.fetchval("select customer_name from calls") == name.replace("\x00", "")


# -- the sandbox, by a client that is not ours --------------------------------------------------------------------------------


async def official(box: RetailCrmSandbox, call: str, *arguments: Any, key: str | None = None) -> Any:
    client = retailcrm.v5(box.url, key or box.api_key)
    return await asyncio.to_thread(getattr(client, call), *arguments)


async def test_the_official_client_does_what_it_may(box: RetailCrmSandbox) -> None:
    assert (await official(box, "api_versions")).get_response()["versions"][-1] == "5.0"
    assert "telephony_write" in (await official(box, "api_credentials")).get_response()["scopes"]
    event = {"phone": "79995550101", "type": "in", "codes": ["150", "999"], "callExternalId": "1"}
    assert (await official(box, "telephony_call_event", event)).get_response() == {"success": True, "notExistCodes": ["999"], "notExistUsers": []}
    call = {"date": "2026-11-21 08:00:00", "type": "in", "phone": "7999", "result": "answered", "externalId": "1", "code": "150"}
    assert (await official(box, "telephony_calls_upload", [call])).get_response() == {"success": True, "processedCallsCount": 1}
    assert (await official(box, "telephony_calls_upload", [call])).get_response()["duplicateCalls"] == ["1"]


GOOD_CALL = {"date": "2026-11-21 08:00:00", "type": "in", "phone": "7999", "result": "answered", "externalId": "1"}
REFUSED_EVENTS: list[Any] = [
    {}, {"phone": "7", "type": "in"}, {"phone": "", "type": "in", "codes": ["1"]}, {"phone": "7", "type": "ring", "codes": ["1"]},
    {"phone": "7", "type": "hangup", "codes": ["1"]}, {"phone": "7", "type": "hangup", "codes": ["1"], "hangupStatus": "no answer"},
    {"phone": "7", "type": "in", "codes": "150"}, {"phone": "7", "type": "in", "codes": [150]}, {"phone": "7", "type": "in", "codes": ["1"], "x": 1}, "text",
]  # fmt: skip
REFUSED_CALLS: list[Any] = [
    [], [{**GOOD_CALL, "result": "no answered"}], [{**GOOD_CALL, "date": "2026-11-21T08:00:00Z"}], [{**GOOD_CALL, "externalId": ""}],
    [{**GOOD_CALL, "type": "hangup"}], [{**GOOD_CALL, "duration": "5"}], [{**GOOD_CALL, "duration": -1}], [{**GOOD_CALL, "nope": 1}],
    [GOOD_CALL] * 51, {"not": "a list"}, ["text"],
]  # fmt: skip


@pytest.mark.parametrize("event", REFUSED_EVENTS, ids=str)
async def test_the_official_client_is_refused_a_wrong_event(event: Any, box: RetailCrmSandbox) -> None:
    answer = await official(box, "telephony_call_event", event)
    assert answer.get_status_code() == 400
    assert not answer.get_response()["success"]
    assert box.events == []


@pytest.mark.parametrize("calls", REFUSED_CALLS, ids=lambda calls: str(calls)[:60])
async def test_the_official_client_is_refused_a_wrong_upload(calls: Any, box: RetailCrmSandbox) -> None:
    assert (await official(box, "telephony_calls_upload", calls)).get_status_code() == 400
    assert box.journal == {}


async def test_the_official_client_meets_every_other_refusal(box: RetailCrmSandbox) -> None:
    assert (await official(box, "api_credentials", key="wrong")).get_response()["errorMsg"] == 'Wrong "apiKey" value.'
    box.switches.telephony_enabled = False
    answer = await official(box, "telephony_calls_upload", [GOOD_CALL])
    assert (answer.get_status_code(), answer.get_response()["success"]) == (200, False)
    box.switches.telephony_disabled_status = 400
    assert (await official(box, "telephony_calls_upload", [GOOD_CALL])).get_status_code() == 400
    box.switches.telephony_enabled = True
    box.clock = lambda: 1.0  # all within one second, however long they take
    answers = [await official(box, "api_credentials") for _ in range(11)]
    assert answers[-1].get_response()["errorMsg"] == "Rate limit exceeded"
    assert answers[-1].get_status_code() == 503
    box.switches.account_exists = False
    with pytest.raises(requests.exceptions.JSONDecodeError):
        await official(box, "telephony_call_event", {})


async def test_what_the_official_client_cannot_do_wrong_a_bare_request_does(box: RetailCrmSandbox) -> None:
    def post(**more: Any) -> requests.Response:
        return requests.post(f"{box.url}/api/v5/telephony/call/event", timeout=PATIENCE_S, **more)

    assert (await asyncio.to_thread(post)).json()["errorMsg"] == '"apiKey" is missing.'
    keyed = {"headers": {"X-API-KEY": box.api_key}}
    assert (await asyncio.to_thread(lambda: post(**keyed))).json()["errorMsg"] == "Parameter 'event' is missing"
    assert "non-scalar" in (await asyncio.to_thread(lambda: post(data={"event[phone]": "7"}, **keyed))).json()["errorMsg"]
    assert (await asyncio.to_thread(lambda: post(data={"event": "{"}, **keyed))).status_code == 400
    assert (await asyncio.to_thread(lambda: post(json={"event": "{}"}, **keyed))).status_code == 400
    got = await asyncio.to_thread(lambda: requests.get(f"{box.url}/api/v5/telephony/call/event", timeout=PATIENCE_S, **keyed))  # type: ignore[arg-type]
    assert (got.status_code, got.json()["errorMsg"]) == (405, "Method Not Allowed")
    got = await asyncio.to_thread(lambda: requests.get(f"{box.url}/api/v5/nothing", timeout=PATIENCE_S, **keyed))  # type: ignore[arg-type]
    assert (got.status_code, got.json()["errorMsg"]) == (404, "API method not found")


def test_the_sandboxes_rules_and_the_adapters_words_agree() -> None:
    for planned in plans(a_call(), Ringing(("150",)), StoppedRinging(("151",)), Ended(("150",))):
        planned.pop("kind")
        if planned:
            assert event_errors({"phone": "7", **planned}) == {}
