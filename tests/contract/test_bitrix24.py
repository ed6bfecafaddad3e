"""The Bitrix24 adapter on the portal in a box: calls, cards, ends, recordings, refusals, credentials."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from adapters.base import CanConsent, CanLookUp, CanRegister, HasManagers, LookupFailed
from adapters.bitrix24.deliver import Bitrix24
from adapters.bitrix24.module import EVENTS, TASK_EVENTS
from daemon.model.call import Call, Direction, Leg, LegKind, Result
from daemon.model.crm import Registration
from daemon.model.delivery import Ambiguous, AuthExpired, Delivered, Delivery, Kind, Rejected, Retry, Throttled
from daemon.model.signal import Answered, CalledBack, Ended, RecordingAdded, Ringing, StoppedRinging
from daemon.store.pool import Database
from lab.crm.bitrix24 import Bitrix24Sandbox, PortalUser
from lab.crm.bitrix24_data import Params, PortalCall
from tests.fakes.portal import TENANT, Desk, desk
from tests.rig import NUMBER, WITHIN_S, a_call, rig, ringing

CUSTOMER = "+375296254070"
MISSED = {"answered_at": None, "result": Result.NO_ANSWER, "talk_seconds": 0.0, "answered_by": None, "last_talked": None}


def only(box: Bitrix24Sandbox) -> PortalCall:
    assert len(box.data.calls) == 1
    return next(iter(box.data.calls.values()))


def row(call: PortalCall) -> dict[str, Any]:
    assert call.row is not None
    return call.row


def test_it_can_all_that_a_crm_of_its_kind_can() -> None:
    for protocol in (CanConsent, CanLookUp, CanRegister, HasManagers):
        assert isinstance(Bitrix24(), protocol)


# -- calls ---------------------------------------------------------------------------------------------------------------------------


async def test_an_answered_call_of_a_ring_group_costs_four_requests_and_is_finished_by_who_talked() -> None:
    async with desk() as d:
        call = a_call(recordings=("rec.wav",))
        await d.tell(ringing(call), Ringing(("150", "151")))
        assert only(d.box).cards == {"12", "13"}
        await d.tell(replace(ringing(call), answered_at=1.0), Answered("151"), StoppedRinging(("150",)))
        assert only(d.box).cards == {"13"}
        outcomes = await d.tell(call, Ended(("151",)))
        assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered]
        found = only(d.box)
        assert (found.external_id, found.kind, found.line, found.started) == (call.id, 2, call.line, "2025-11-21T08:10:00+03:00")
        assert {key: row(found)[key] for key in ("PORTAL_USER_ID", "CALL_DURATION", "CALL_FAILED_CODE")} == {
            "PORTAL_USER_ID": "13", "CALL_DURATION": "41", "CALL_FAILED_CODE": "200",
        }  # fmt: skip
        assert found.record == "http://127.0.0.1/recordings/abc.wav"
        assert len(d.box.requests) == 4
        assert d.box.refusals == []


async def test_a_transferred_call_is_shown_to_the_next_and_is_his_in_the_end() -> None:
    async with desk() as d:
        call = a_call(last_talked="152")
        await d.tell(ringing(call), Ringing(("151",)))
        await d.tell(replace(ringing(call), answered_at=1.0), Ringing(("152",)))
        await d.tell(replace(ringing(call), answered_at=1.0), StoppedRinging(("151",)))
        assert only(d.box).cards == {"14"}
        await d.tell(call, Ended(("152",)))
        assert row(only(d.box))["PORTAL_USER_ID"] == "14"


async def test_two_calls_at_once_from_one_number_have_a_card_each() -> None:
    async with desk() as d:
        one, two = a_call(), a_call()
        await d.tell(ringing(one), Ringing(("150",)))
        await d.tell(ringing(two), Ringing(("150",)))
        await d.tell(one, Ended(()))
        await d.tell(two, Ended(()))
        assert [row(call)["EXTERNAL_CALL_ID"] for call in d.box.finished()] == [one.id, two.id]
        assert d.box.refusals == []


async def test_a_popup_that_comes_twice_is_one_call() -> None:
    async with desk() as d:
        call = ringing(a_call())
        item = d.plan(call, Ringing(("150",)))[0]
        await d.send(d.delivery(call, item))
        d.memory.clear()  # the answer to the first was lost
        await d.send(d.delivery(call, item, attempt=2))
        assert only(d.box).cards == {"12"}


@pytest.mark.parametrize(("direction", "result", "legs", "code"), [
    (Direction.IN, Result.NO_ANSWER, (), "304"), (Direction.IN, Result.CANCELLED, (), "304"), (Direction.IN, Result.VOICEMAIL, (), "304"),
    (Direction.IN, Result.BUSY, (), "486"), (Direction.IN, Result.REJECTED, (), "603"), (Direction.IN, Result.UNAVAILABLE, (), "480"),
    (Direction.IN, Result.INTERRUPTED, (), "OTHER"), (Direction.OUT, Result.NO_ANSWER, (), "480"), (Direction.OUT, Result.CANCELLED, (), "603-S"),
    (Direction.OUT, Result.BUSY, (17,), "486"), (Direction.OUT, Result.REJECTED, (21,), "603"), (Direction.OUT, Result.REJECTED, (), "403"),
    (Direction.OUT, Result.UNAVAILABLE, (1,), "404"), (Direction.OUT, Result.UNAVAILABLE, (34,), "503"), (Direction.OUT, Result.UNAVAILABLE, (20,), "480"),
])  # fmt: skip
def test_every_end_has_its_code(direction: Direction, result: Result, legs: tuple[int, ...], code: str) -> None:
    from adapters.bitrix24.rules import status_code

    tried = tuple(Leg("PJSIP/provider-1", CUSTOMER, LegKind.CUSTOMER, 1.0, cause=cause) for cause in legs)
    assert status_code(a_call(direction=direction, result=result, initiator="150", legs=tried)) == code


async def test_a_call_that_nobody_saw_is_registered_and_finished_in_one_request_by_the_default_user() -> None:
    async with desk(default_user="15") as d:
        await d.tell(a_call(**MISSED, rang=()), Ended(()))
        assert (len(d.box.requests), row(only(d.box))["PORTAL_USER_ID"], only(d.box).ever_shown) == (1, "15", [])


async def test_the_lines_default_stands_for_a_call_nobody_took_and_a_mobile_is_nobody() -> None:
    async with desk() as d:
        d.tenant = replace(TENANT, default_codes={"+375171112233": "153"})
        await d.tell(a_call(**{**MISSED, "rang": ("+375291111111",)}), Ended(()))
        assert row(only(d.box))["PORTAL_USER_ID"] == "15"


async def test_extensions_of_nobody_here_are_told_by_number_and_unknown_ones_fall_to_the_webhooks_user() -> None:
    async with desk(user_extensions={}) as d:
        await d.tell(ringing(a_call()), Ringing(("151",)))
        assert only(d.box).cards == {"13"}
        d.box.data.calls.clear()
        stranger = a_call(rang=("199",), answered_by="199", last_talked="199")
        await d.tell(ringing(stranger), Ringing(("199",)))
        assert only(d.box).ever_shown == []
        await d.tell(stranger, Ended(("199",)))
        assert row(only(d.box))["PORTAL_USER_ID"] == "1"


async def test_a_call_without_a_number_is_not_told() -> None:
    async with desk() as d:
        assert d.plan(a_call(customer_number=None), Ringing(("150",)), Ended(("150",))) == []


async def test_late_calls_and_switched_off_popups_show_nothing() -> None:
    async with desk(send={"popup_in": False}) as d:
        call = a_call()
        assert d.plan(ringing(call), Ringing(("150",))) == []
        await d.tell(call, Ended(()), late=True)
        assert only(d.box).ever_shown == []


# -- the one finish -------------------------------------------------------------------------------------------------------------------


async def test_a_finish_whose_answer_was_lost_is_repeated_and_found_to_have_arrived() -> None:
    async with desk() as d:
        call = a_call()
        await d.tell(ringing(call), Ringing(("151",)))
        d.box.switches.fail_next.append("done-then-silence")
        item = d.plan(call, Ended(()))[0]
        assert isinstance(await d.lost(d.delivery(call, item)), Ambiguous)
        assert await d.adapter.reconcile(d.connection(), d.delivery(call, item)) == Retry("repeating is safe", after_s=0)
        again = (await d.send(d.delivery(call, item, attempt=2)))[0]
        assert again == Delivered("a former attempt had arrived", {"call_id": only(d.box).id, "finished": True})
        d.box.switches.statistics_denied = True
        d.memory[call.id].pop("finished")
        assert isinstance((await d.send(d.delivery(call, item, attempt=3)))[0], Delivered)


async def test_a_registration_and_finish_whose_answer_was_lost_is_looked_for_in_the_statistics() -> None:
    async with desk() as d:
        call = a_call(**MISSED, rang=())
        item = d.plan(call, Ended(()))[0]
        there = d.delivery(call, item)
        assert await d.adapter.reconcile(d.connection(), there) == Retry("it had not arrived", after_s=0)
        d.box.switches.fail_next.append("done-then-silence")
        assert isinstance(await d.lost(there), Ambiguous)
        assert isinstance(await d.adapter.reconcile(d.connection(), there), Delivered)
        d.box.switches.statistics_denied = True
        assert isinstance(await d.adapter.reconcile(d.connection(), there), Ambiguous)


async def test_a_finish_that_the_portal_never_knew_is_a_dead_letter() -> None:
    async with desk() as d:
        call = a_call()
        d.memory[call.id] = {"call_id": "externalCall.unknown.1"}
        assert isinstance(await d.journal(call), Rejected)
        assert isinstance(await d.journal(call, attempt=2), Rejected)


# -- recordings ---------------------------------------------------------------------------------------------------------------------


async def test_a_recording_waits_for_the_finish_and_a_later_one_replaces_it() -> None:
    async with desk() as d:
        call = a_call(recordings=("rec.wav",))
        await d.tell(ringing(call), Ringing(("151",)))
        item = next(item for item in d.plan(call, Ended(())) if item.kind is Kind.RECORDING)
        assert item.with_recordings
        links = ("http://127.0.0.1/recordings/one.wav",)
        assert isinstance((await d.send(d.delivery(call, item, links=links)))[0], Retry)
        await d.journal(call)
        assert (await d.send(d.delivery(call, item, links=links)))[0] == Delivered()
        await d.tell(call, RecordingAdded("other.wav"), links=("http://127.0.0.1/recordings/two.mp3",))
        assert only(d.box).record == "http://127.0.0.1/recordings/two.mp3"
        assert isinstance((await d.tell(call, RecordingAdded("third.gsm"), links=("http://127.0.0.1/recordings/three.gsm",)))[0], Rejected)
        assert isinstance((await d.tell(call, RecordingAdded("none"), links=()))[0], Delivered)


# -- clicks -------------------------------------------------------------------------------------------------------------------------


def _clicked(d: Desk, **more: Any) -> Call:
    base = {"direction": Direction.OUT, "initiator": "150", "rang": (), "click_to_call": True, "answered_by": "150", "last_talked": "150"}
    call = a_call(**{**base, **more})
    own = PortalCall(d.box.data.new_call_id(), "12", CUSTOMER, 1, "", "", 0.0, "", by_portal=True)
    d.box.data.calls[own.id] = own
    d.memory[call.id] = {"click": own.id}
    return call


async def test_a_call_that_the_portal_began_is_never_registered_only_finished() -> None:
    async with desk() as d:
        call = _clicked(d)
        await d.tell(ringing(call), Ringing(("150",)))
        await d.tell(call, Ended(()))
        assert [request.method for request in d.box.requests] == ["telephony.externalcall.finish"]
        assert row(only(d.box))["CALL_FAILED_CODE"] == "200"


@pytest.mark.parametrize(("code", "status"), [
    ("bad_number", "404"), ("prefix_not_allowed", "403"), ("no_extension", "480"), ("pbx_link_down", "503"), ("repeated", "603-S"), ("per_day", "403"),
])  # fmt: skip
async def test_a_refused_click_is_told_back_to_who_clicked(code: str, status: str) -> None:
    async with desk() as d:
        call = _clicked(d, result=Result.REJECTED, answered_at=None, answered_by=None, last_talked=None, initiator=None)
        click = d.memory.pop(call.id)["click"]
        assert isinstance(await d.journal(call, click=click, user="12", code=code, reason="so it is"), Delivered)
        assert {key: row(only(d.box))[key] for key in ("PORTAL_USER_ID", "CALL_FAILED_CODE", "CALL_FAILED_REASON", "CALL_DURATION")} == {
            "PORTAL_USER_ID": "12", "CALL_FAILED_CODE": status, "CALL_FAILED_REASON": "so it is", "CALL_DURATION": "0",
        }  # fmt: skip


async def test_a_call_back_is_registered_as_one() -> None:
    async with desk() as d:
        call = a_call(direction=Direction.OUT, initiator="150", rang=(), click_to_call=True)
        d.memory[call.id] = {"click": "callback:0123"}
        await d.tell(ringing(call), Ringing(("150",)))
        await d.tell(call, Ended(("150",)))
        assert only(d.box).kind == 4


# -- rules --------------------------------------------------------------------------------------------------------------------------


async def test_an_unknown_caller_becomes_a_lead_while_it_rings_and_a_known_one_does_not() -> None:
    async with desk(rules=[{"direction": "in", "do": "lead"}]) as d:
        call = a_call()
        await d.tell(ringing(call), Ringing(("151",)))
        await d.tell(call, Ended(()))
        again = a_call()
        await d.tell(ringing(again), Ringing(("151",)))
        await d.tell(again, Ended(()))
        assert [(entity.kind, entity.assigned) for entity in d.box.data.entities.values()] == [("LEAD", "13")]
        assert len(d.box.requests) == 4


async def test_rules_are_by_line_and_the_first_that_fits_wins() -> None:
    rules = [{"line": "+375170000000", "do": "contact"}, {"known": True, "do": "nothing"}, {"answered": True, "do": "contact", "responsible": "first_answered"}]
    async with desk(rules=rules) as d:
        call = a_call(answered_by="150", last_talked="151")
        await d.tell(ringing(call), Ringing(("150",)))
        assert not d.box.data.entities
        await d.tell(call, Ended(()))
        assert [(e.kind, e.phones, e.assigned) for e in d.box.data.entities.values()] == [("CONTACT", ["375296254070"], "12")]
        missed = a_call(**MISSED, customer_number="+375290000001")
        await d.tell(missed, Ended(()))
        assert len(d.box.data.entities) == 1


async def test_a_contact_that_is_there_by_now_is_not_made_again() -> None:
    async with desk(rules=[{"do": "contact"}]) as d:
        call = a_call()
        await d.tell(ringing(call), Ringing(("151",)))
        d.box.data.add_entity("COMPANY", "Acme", [CUSTOMER], "12")
        await d.tell(call, Ended(()))
        assert [entity.kind for entity in d.box.data.entities.values()] == ["COMPANY"]


@pytest.mark.parametrize(("responsible", "user"), [("entity", "14"), ("last_talked", "15"), ("153", "15"), ("first_answered", "12")])
async def test_a_missed_call_has_a_task_for_whom_the_rule_names_and_it_is_closed_when_called_back(responsible: str, user: str) -> None:
    rules = [{"direction": "in", "answered": False, "do": "task", "responsible": responsible, "task_deadline_s": 3600}]
    async with desk(rules=rules) as d:
        contact = d.box.data.add_entity("CONTACT", "Oleg", [CUSTOMER], "14")
        talked = a_call(last_talked="153", answered_by="153", rang=("153",))
        await d.tell(talked, Ended(()))
        missed = a_call(**MISSED)
        await d.tell(ringing(missed), Ringing(("150", "151")))
        await d.tell(missed, Ended(("150", "151")))
        assert row(d.box.finished()[-1])["PORTAL_USER_ID"] == user
        task_id, task = next(iter(d.box.data.tasks.items()))
        assert (str(task["RESPONSIBLE_ID"]), task["DEADLINE"], task["UF_CRM_TASK"]) == (user, "2025-11-21T09:10:48+03:00", [f"C_{contact.id}"])
        await d.tell(missed, CalledBack("called_back", 5.0, "150", None))
        assert d.box.data.tasks[task_id]["status"] == "5"
        d.planned.clear()
        assert (await d.tell(missed, CalledBack("done", 5.0, "150", None)))[0] == Delivered("somebody had closed it")
        assert len(d.box.data.tasks) == 1


async def test_a_lost_task_is_never_made_twice() -> None:
    async with desk(rules=[{"answered": False, "do": "task"}]) as d:
        missed = a_call(**MISSED)
        item = d.plan(missed, Ended(()))[1]
        assert isinstance(await d.adapter.reconcile(d.connection(), d.delivery(missed, item)), Ambiguous)


async def test_a_right_that_only_a_rule_needs_stops_the_rule_and_not_the_telephony() -> None:
    async with desk(rules=[{"answered": False, "do": "task"}]) as d:
        d.box.scopes.discard("task")
        assert [type(outcome) for outcome in await d.tell(a_call(**MISSED), Ended(()))] == [Delivered, Rejected]
        assert [check.name for check in await d.adapter.check(d.connection()) if not check.ok] == ["tasks"]


def test_what_the_portal_cannot_make_is_no_setting() -> None:
    with pytest.raises(ValueError, match="unsorted cannot be made"):
        Bitrix24.settings.model_validate({"webhook_url": "https://a.bitrix24.ru/rest/1/abc/", "rules": [{"do": "unsorted"}]})


# -- refusals ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "outcome"), [
    ("500", Retry), ("500-json", Retry), ("502", Retry), ("503", Retry), ("html-200", Ambiguous), ("truncated", Ambiguous), ("array", Ambiguous),
    ("redirect", AuthExpired), ("503-limit", Throttled), ("error-in-200", Rejected), ("reset", Ambiguous), ("silence", Ambiguous), ("expired", AuthExpired),
])  # fmt: skip
async def test_each_fault_means_what_it_means(fault: str, outcome: type) -> None:
    async with desk() as d:
        call = a_call()
        d.memory[call.id] = {"call_id": "externalCall.0.1"}
        d.box.switches.fail_next.append(fault)
        item = d.plan(call, Ended(()))[0]
        delivery = d.delivery(call, item)
        assert isinstance(await d.lost(delivery) if fault == "silence" else (await d.send(delivery))[0], outcome)


@pytest.mark.parametrize("core", [True, False])
async def test_errors_inside_a_batch_are_each_deliverys_own(core: bool) -> None:
    async with desk() as d:
        d.box.switches.error_core = core
        calls = [a_call() for _ in range(3)]
        for call in (calls[0], calls[2]):
            await d.tell(ringing(call), Ringing(("151",)))
        d.memory[calls[1].id] = {"call_id": "externalCall.unknown.1"}
        before = len(d.box.requests)
        deliveries = [d.delivery(call, d.plan(call, Ended(()))[0]) for call in calls]
        assert [type(outcome) for outcome in await d.send(*deliveries)] == [Delivered, Rejected, Delivered]
        assert len(d.box.requests) == before + 1


@pytest.mark.parametrize("switch", ["is_deleted", "is_overloaded", "is_free_plan", "require_https"])
async def test_what_only_a_person_can_mend_freezes_the_connection(switch: str) -> None:
    async with desk() as d:
        setattr(d.box.switches, switch, True)
        assert isinstance(await d.journal(a_call()), AuthExpired)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_missing_right_and_a_portal_that_wants_an_application_say_what_to_do(status: int) -> None:
    async with desk() as d:
        d.box.switches.webhook_may_register = False
        call = a_call()
        d.memory[call.id] = {"call_id": "externalCall.1.1"}
        told = await d.journal(call)
        assert isinstance(told, AuthExpired)
        assert "local application" in told.reason
        d.box.switches.webhook_may_register, d.box.switches.scope_status = True, status
        d.box.scopes.discard("telephony")
        told = await d.journal(call)
        assert isinstance(told, AuthExpired)
        assert "grant the scopes" in told.reason


async def test_a_methods_used_up_run_time_holds_back_recordings_and_nothing_else() -> None:
    async with desk() as d:
        call = a_call(recordings=("rec.wav",))
        await d.tell(ringing(call), Ringing(("151",)))
        items = d.plan(call, Ended(()))
        await d.send(d.delivery(call, items[0]))
        d.box.cost_s["telephony.externalcall.attachrecord"], d.box.switches.operating_resets_s = 481.0, 300.0
        links = ("http://127.0.0.1/recordings/one.wav",)
        recording = d.delivery(call, items[1], links=links)
        assert (await d.send(recording))[0] == Delivered()  # the next one is refused, says the documentation
        asked = len(d.box.requests)
        held = (await d.send(recording))[0]
        assert isinstance(held, Throttled)
        assert held.own_kind
        assert held.after_s > 150
        assert len(d.box.requests) == asked  # what is known to be refused is not sent
        assert isinstance((await d.tell(ringing(a_call()), Ringing(("150",))))[0], Delivered)
        d.limiter.__init__(Bitrix24.policy.rates)  # type: ignore[misc]
        refused = (await d.send(recording))[0]
        assert isinstance(refused, Throttled)
        assert refused.own_kind
        assert "429" not in refused.reason
        assert "OPERATION_TIME_LIMIT" in refused.reason


async def test_a_full_bucket_pauses_the_connection() -> None:
    async with desk() as d:
        d.box.switches.bucket_per_s = 0.0  # none drains, however long this takes
        d.box.fill_bucket()
        told = await d.journal(a_call())
        assert isinstance(told, Throttled)
        assert not told.own_kind


# -- an application's credentials --------------------------------------------------------------------------------------------------------


async def test_a_token_that_expires_in_mid_stream_is_renewed_once_for_all_who_meet_it() -> None:
    async with desk(application=True) as d:
        calls = [a_call() for _ in range(6)]
        await asyncio.gather(*(d.tell(ringing(call), Ringing(("151",))) for call in calls[:3]))
        assert d.box.token_requests == 0  # never before the portal asks for it
        first = d.tokens.tokens
        assert first is not None
        d.box.expire()
        await asyncio.gather(*(d.tell(call, Ended(())) for call in calls))
        assert len(d.box.finished()) == 6
        assert d.box.token_requests == 1
        assert d.tokens.tokens != first
        text = str(d.exchanges)
        secrets = [d.box.client_secret, *(str(each[name]) for each in (first, d.tokens.tokens or {}) for name in ("access_token", "refresh_token"))]
        assert not [secret for secret in secrets if secret in text]


async def test_a_refresh_that_is_refused_wants_a_person_and_one_that_fails_is_tried_again() -> None:
    async with desk(application=True) as d:
        d.box.expire()
        d.box.switches.oauth_error_in_200 = True
        told = await d.journal(a_call())
        assert isinstance(told, AuthExpired)
        assert "wrong_client" in told.reason
        d.raw["oauth_server"] = "http://127.0.0.1:9"
        assert isinstance(await d.journal(a_call()), Retry)
        d.raw["oauth_server"] = d.box.url
        d.box.switches.oauth_error_in_200 = False
        d.box.grant()  # the refresh token that we hold was used by somebody else
        d.box.expire()
        told = await d.journal(a_call())
        assert isinstance(told, AuthExpired)
        assert "invalid_grant" in told.reason


async def test_consent_exchanges_the_code_and_believes_only_its_own_portal() -> None:
    async with desk(application=True) as d:
        d.tokens.tokens = None
        assert isinstance(await d.journal(a_call()), AuthExpired)
        url = d.adapter.consent_url(d.settings, "the-state", "https://vochid.example/bitrix24/callback")
        assert url.startswith(f"{d.box.url}/oauth/authorize/?client_id={d.box.client_id}&state=the-state")

        async def came_back() -> dict[str, str]:
            async with d.sessions.for_url(url).get(url, allow_redirects=False) as answer:
                from urllib.parse import parse_qsl, urlsplit

                return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))

        d.box.switches.code_lives_s = 0.0
        assert not (await d.adapter.consented(d.connection(), await came_back(), "")).ok
        d.box.switches.code_lives_s = 3_600.0
        assert not (await d.adapter.consented(d.connection(), {"error": "access_denied"}, "")).ok
        answer = await came_back()
        assert (await d.adapter.consented(d.connection(), answer, "")).ok
        assert not (await d.adapter.consented(d.connection(), answer, "")).ok  # a code works once
        assert isinstance(await d.journal(a_call()), Delivered)
        assert (d.tokens.tokens or {})["user_id"] == d.box.webhook_user
        other = await came_back()
        real, d.raw["domain"] = d.raw["domain"], "https://other.bitrix24.ru"
        refused = await d.adapter.consented(d.connection(), other, "")
        assert not refused.ok
        assert "another portal" in refused.detail
        d.raw["domain"] = real


async def test_tokens_that_an_installation_form_brings_are_believed_when_the_portal_takes_them() -> None:
    async with desk(application=True) as d:
        d.tokens.tokens = None
        form = {"DOMAIN": d.box.url.partition("//")[2], "PROTOCOL": "0", "AUTH_ID": "made-up-token-of-a-stranger", "REFRESH_ID": "made-up-refresh"}
        form["APPLICATION_TOKEN"] = "t" * 32
        assert not (await d.adapter.consented(d.connection(), form, "")).ok
        granted = d.box.grant()
        told = await d.adapter.consented(d.connection(), {**form, "AUTH_ID": granted.access, "REFRESH_ID": granted.refresh}, "")
        assert told.ok
        assert told.proof == "t" * 32
        assert isinstance(await d.journal(a_call()), Delivered)


def test_the_clients_secret_goes_to_the_vendors_two_servers_only() -> None:
    near = Bitrix24.settings.model_validate({"domain": "https://a.bitrix24.ru", "client_id": "local.1", "client_secret": "s"})
    far = Bitrix24.settings.model_validate({"domain": "https://a.bitrix24.com", "client_id": "local.1", "client_secret": "s"})
    own: Any = near
    assert own.token_server(None) == "https://oauth.bitrix24.tech"
    assert far.token_server(None) == "https://oauth.bitrix.info"  # type: ignore[attr-defined]
    assert own.token_server("oauth.bitrix.info") == own.token_server("https://oauth.bitrix.info/rest/") == "https://oauth.bitrix.info"
    assert own.token_server("https://evil.example/rest/") == "https://oauth.bitrix24.tech"


# -- people and lines -----------------------------------------------------------------------------------------------------------------


async def test_the_responsible_is_named_while_at_work_and_the_customer_always() -> None:
    async with desk() as d:
        assert await d.adapter.responsible(d.connection(), CUSTOMER) is None
        d.box.data.add_entity("LEAD", "Lead", [CUSTOMER], "12")
        d.box.data.add_entity("CONTACT", "Oleg Petrov", [CUSTOMER], "13")
        found = await d.adapter.responsible(d.connection(), CUSTOMER)
        assert found is not None
        assert (found.user_id, found.extension, found.customer_name) == ("13", "151", "Oleg Petrov")
        d.box.data.users["13"].workday = "CLOSED"
        found = await d.adapter.responsible(d.connection(), CUSTOMER)
        assert found is not None
        assert (found.user_id, found.extension, found.customer_name) == (None, None, "Oleg Petrov")
        d.box.switches.fail_next.append("500")
        with pytest.raises(LookupFailed):
            await d.adapter.responsible(d.connection(), CUSTOMER)


async def test_users_come_page_by_page_and_a_partial_list_is_an_error() -> None:
    users = tuple(PortalUser(str(number), f"User {number}", str(number) if number % 2 else None) for number in range(1, 121))
    async with desk(Bitrix24Sandbox(users)) as d:
        listed = await d.adapter.managers(d.connection())
        assert len(listed) == 120
        assert len(d.box.requests) == 3
        assert {user.extension for user in listed[:2]} == {"1", None}
        d.box.switches.partial_users = True
        with pytest.raises(LookupFailed, match="listed 120 of its 121"):
            await d.adapter.managers(d.connection())
        d.box.switches.partial_users = False
        d.box.switches.fail_next.extend(["pass", "500"])
        with pytest.raises(LookupFailed):
            await d.adapter.managers(d.connection())


async def test_extensions_are_set_at_the_portal_where_they_differ() -> None:
    async with desk() as d:
        d.raw["user_extensions"] = {"12": "151", "13": "150", "14": None}  # of 15 nothing is said: that is the portal's own
        await d.adapter.set_extensions(d.connection(), {"12": "151", "13": "150"}, None)
        phones = {user.id: user.phone for user in d.box.data.users.values()}
        assert phones == {"1": None, "12": "151", "13": "150", "14": None, "15": "153", "16": None}
        before = len(d.box.requests)
        await d.adapter.set_extensions(d.connection(), {"12": "151", "13": "150"}, None)
        assert len(d.box.requests) == before + 1


async def test_lines_and_events_are_registered_again_without_harm_and_taken_away() -> None:
    async with desk(application=True) as d:
        registration = Registration("https://vochid.example", "", "c", lines={"+375171112233": "Sales", "+375171112244": ""})
        d.box.data.lines["+375170000000"] = {"ID": 1, "NAME": "gone", "CRM_AUTO_CREATE": "Y"}
        for _ in range(2):
            told = await d.adapter.register(d.connection(), registration)
            assert told.ok, told.detail
        assert {number: line["NAME"] for number, line in d.box.data.lines.items()} == {"+375171112233": "Sales", "+375171112244": "+375171112244"}
        handler = "https://vochid.example/bitrix24/events"
        assert d.box.data.handlers == [(event, handler) for event in EVENTS]
        assert {"ONEXTERNALCALLSTART", "ONCRMCONTACTUPDATE", "ONCRMCOMPANYADD", "ONCRMDEALDELETE", "ONTASKADD"} <= set(EVENTS)
        assert (await d.adapter.unregister(d.connection(), registration)).ok
        assert (d.box.data.lines, d.box.data.handlers) == ({}, [])
        d.box.scopes.discard("task")  # then the portal knows no events of tasks
        told = await d.adapter.register(d.connection(), registration)
        assert (told.ok, told.detail) == (True, "2 lines, 11 events")
        assert [event for event, _ in d.box.data.handlers] == [event for event in EVENTS if event not in TASK_EVENTS]
        assert (await d.adapter.unregister(d.connection(), registration)).ok


async def test_a_webhook_cannot_register_lines_and_says_why() -> None:
    async with desk() as d:
        told = await d.adapter.register(d.connection(), Registration("https://vochid.example", "", "c"))
        assert not told.ok
        assert "local application" in told.detail


async def test_the_connection_test_says_which_right_is_missing() -> None:
    async with desk() as d:
        assert all(check.ok for check in await d.adapter.check(d.connection()))
        d.box.scopes.discard("telephony")
        assert [check.name for check in await d.adapter.check(d.connection()) if not check.ok] == ["popups"]


async def test_foreign_notation_is_understood_by_the_box() -> None:
    """What other integrations send: any case, a trailing slash, forms, queries."""
    async with desk() as d:
        async with d.sessions.for_url(d.box.url).post(
            f"{d.box.webhook_url}telephony.externalcall.REGISTER/", data={"user_id": "12", "Phone_Number": CUSTOMER, "TYPE": "2"}
        ) as answer:
            assert (await answer.json())["result"]["CALL_ID"].startswith("externalCall.")
        async with d.sessions.for_url(d.box.url).get(f"{d.box.webhook_url}user.get.json?filter[UF_PHONE_INNER]=150&bx24_request_id=1") as answer:
            assert [user["ID"] for user in (await answer.json())["result"]] == ["12"]
        assert Params({"filter": {"a": 1}}).get("FILTER") == {"a": 1}


def test_deliveries_of_one_request_stay_within_a_batch() -> None:
    batch = Bitrix24.policy.batch
    assert 2 * batch[Kind.POPUP] <= 50
    assert 3 * batch[Kind.JOURNAL] <= 50
    assert isinstance(Delivery(1, Kind.POPUP, a_call(), {}, 1), Delivery)


async def test_a_storm_of_refusals_loses_nothing_and_doubles_nothing(db: Database) -> None:
    """Through the outbox: whatever the portal says on the way, each call is finished once, and the connection is not given up."""
    box = Bitrix24Sandbox()
    await box.start()
    try:
        async with rig(db, Bitrix24(), box.settings()) as r:
            calls = [a_call() for _ in range(5)]
            box.switches.fail_next.extend(["503-limit", "503", "500-json", "reset", "502", "truncated", "503-limit"])
            for call in calls:
                await r.live_call(call)
            async with asyncio.timeout(WITHIN_S):
                while len(box.finished()) < len(calls):
                    await r.hurry()
                    r.dispatcher._workers[(NUMBER, "bitrix24")].health.__init__()  # type: ignore[misc]  # the pauses of a storm are not waited for
                    r.dispatcher.wake(NUMBER, "bitrix24")
                    await asyncio.sleep(0.05)
            assert {row["state"] for row in await r.settled(hurry=True) if row["kind"] == "journal"} == {"delivered"}
            assert sorted(call.external_id for call in box.finished()) == sorted(call.id for call in calls)
            assert len(box.data.calls) == len(calls)
            assert not box.switches.fail_next
            assert "needs_reauth" not in [state[2] for state in r.states]
    finally:
        await box.stop()


async def test_an_expired_token_is_renewed_once_in_the_store_that_all_daemons_share(db: Database) -> None:
    box = Bitrix24Sandbox()
    await box.start()
    try:
        async with rig(db, Bitrix24(), box.application()) as r:
            calls = [a_call() for _ in range(4)]
            await r.record(calls[0], Ended(()))  # nobody has connected it yet: nothing is lost
            await r.until(lambda: "needs_reauth" in [state[2] for state in r.states])
            granted, store = box.grant(), r.crm.tokens(NUMBER, "bitrix24")
            kept = {"access_token": granted.access, "refresh_token": granted.refresh, "client_endpoint": f"{box.url}/rest/", "client_id": box.client_id}
            await store.save({**kept, "user_id": "1"})
            r.dispatcher.settings_changed({NUMBER})
            await r.until(lambda: len(box.finished()) == 1)
            box.expire()
            for call in calls[1:]:
                await r.record(call, Ended(()))
            assert {row["state"] for row in await r.settled()} == {"delivered"}
            assert len(box.finished()) == 4
            assert box.token_requests == 1
            renewed = await store.load()
            assert renewed is not None
            assert renewed["access_token"] == box.data.grants[-1].access
            async with db.tenant(NUMBER) as connection:
                everything = str(await connection.fetch("select * from connections")) + str(await connection.fetch("select * from integration_logs"))
            assert not [each for each in (granted, box.data.grants[-1]) if each.access in everything or each.refresh in everything]
    finally:
        await box.stop()
