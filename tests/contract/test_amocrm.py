"""amoCRM: what is told, what every answer means, what rules make, and what is found again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters.amocrm.calls import call_entry, call_note, read_results, unsorted_item
from adapters.amocrm.client import Accepted, Problem, interpret
from adapters.amocrm.config import AmoCrmSettings
from adapters.amocrm.deliver import AmoCrm
from adapters.amocrm.entities import has_phone, phones, plural, spellings
from adapters.amocrm.rules import call_status, call_words, extension_of, fitting, may_make
from adapters.base import Tenant
from adapters.http import Response
from daemon.model.call import Call, Direction, Leg, LegKind, Result
from daemon.model.delivery import Ambiguous, AuthExpired, Delivered, Delivery, Kind, Rate, Rejected, Retry, Throttled
from daemon.model.integration import Rule
from daemon.model.signal import CallChange, CalledBack, Ended, RecordingAdded, Ringing
from daemon.store.pool import Database
from lab.crm.amocrm import FAULTS, AmoCrmSandbox
from lab.crm.amocrm_data import METADATA, UNSORTED, call_errors, errors_of, note_errors
from tests.limits import most_within_a_second, noted_places
from tests.patience import PATIENCE_S
from tests.rig import NUMBER, Rig, a_call, rig, ringing

TENANT = Tenant(NUMBER, "Июнь", "Europe/Minsk", "BY", {"+375171112233": "199"})
USERS = {"7031001": "150", "7031002": "151", "7031003": "199"}
UNKNOWN = "+375291111101"
KNOWN = "+375296254070"


def settings(**more: Any) -> AmoCrmSettings:
    return AmoCrmSettings.model_validate({"base_url": "https://example.amocrm.ru", "long_lived_token": "t", "user_extensions": USERS, **more})


def missed(**more: Any) -> Call:
    return a_call(**{"result": Result.NO_ANSWER, "answered_at": None, "answered_by": None, "last_talked": None, "talk_seconds": 0.0, **more})


# -- settings ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["example.amocrm.ru", "https://example.kommo.com", "https://example.amocrm.com/", "http://127.0.0.1:8080"])
def test_accounts_of_every_zone_are_taken(address: str) -> None:
    assert settings(base_url=address).base_url.startswith("http")


@pytest.mark.parametrize("address", ["https://amocrm.ru.evil.example", "https://evil-amocrm.ru", "https://example.amocrm.ru/path", "https://amocrm.ru", ""])
def test_an_address_outside_of_the_zones_gets_no_secret(address: str) -> None:
    with pytest.raises(ValidationError):
        settings(base_url=address)


def test_there_must_be_some_way_in_and_the_consent_page_is_the_zones() -> None:
    with pytest.raises(ValidationError, match="either client_id and client_secret, or long_lived_token"):
        AmoCrmSettings.model_validate({"base_url": "https://example.amocrm.ru", "client_id": "a"})
    assert settings().consent_page == "https://www.amocrm.ru/oauth"
    assert settings(base_url="https://example.kommo.com").consent_page == "https://www.kommo.com/oauth"
    assert settings(oauth_url="https://example.org/oauth").consent_page == "https://example.org/oauth"


# -- what is told ------------------------------------------------------------------------------------------------------------------


def test_an_entry_says_when_who_how_and_how_long() -> None:
    call = a_call()
    assert call_entry(call, settings(), TENANT, ["https://pbx.example/rec/a.mp3"]) == {
        "direction": "inbound", "uniq": call.id, "duration": 41, "source": "vochid", "phone": KNOWN, "call_result": "Разговор состоялся", "call_status": 4,
        "link": "https://pbx.example/rec/a.mp3", "created_at": 1_763_701_800, "responsible_user_id": 7031002, "created_by": 7031002,
        "call_responsible": 7031002,
    }  # fmt: skip
    assert call_entry(call, settings(base_url="https://example.kommo.com"), TENANT)["call_result"] == "Answered"


def test_whatever_a_call_is_like_its_entry_its_note_and_its_lead_are_valid_and_carry_no_null() -> None:
    for result in [*Result, None]:
        for direction in (Direction.IN, Direction.OUT):
            for more in ({}, {"rang": (), "answered_by": None, "last_talked": None, "line": None, "customer_name": None}):
                call = a_call(result=result, direction=direction, **more)
                for users in (USERS, {}):
                    chosen = settings(user_extensions=users, pipeline_id=5)
                    entry = {**call_entry(call, chosen, TENANT, ["https://x/y.mp3"]), "request_id": "1"}
                    note, item = call_note(call, chosen, TENANT), unsorted_item(call, Rule(do="unsorted"), chosen, TENANT)
                    assert not call_errors(entry, nulls=False)
                    assert not note_errors(note)
                    assert not errors_of(item, UNSORTED) + errors_of(item["metadata"], METADATA)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, 4), ({"result": Result.BUSY}, 7), ({"result": Result.NO_ANSWER}, 6), ({"result": Result.CANCELLED}, 6), ({"result": Result.UNAVAILABLE}, 3),
        ({"result": Result.VOICEMAIL}, 1), ({"result": Result.INTERRUPTED}, None), ({"result": None}, None),
        ({"result": Result.UNAVAILABLE, "legs": (Leg("PJSIP/provider-1", UNKNOWN, LegKind.CUSTOMER, 1.0, cause=1),)}, 5),
    ],
)  # fmt: skip
def test_the_status_is_amocrms_number_for_the_end(more: dict[str, Any], status: int | None) -> None:
    assert call_status(a_call(**more)) == status
    assert call_words(a_call(**more), settings())


def test_popups_go_to_users_who_ring_and_not_for_a_click() -> None:
    def planned(call: Call, *extensions: str, **more: Any) -> list[Any]:
        return [dict(item.payload) for item in AmoCrm().plan(CallChange(call, (Ringing(extensions),), 5.0), settings(**more), TENANT)]

    assert planned(ringing(a_call()), "150", "151", "777") == [{"users": [7031001, 7031002]}]
    assert planned(ringing(a_call()), "777") == []
    assert planned(ringing(a_call()), "150", send={"popup_in": False}) == []
    out = ringing(a_call(direction=Direction.OUT, initiator="150"))
    assert planned(out, "150") == [{"users": [7031001]}]
    assert planned(replace(out, click_to_call=True), "150") == []
    assert planned(replace(out, customer_number=None), "150") == []


def test_a_call_without_a_number_has_no_place_at_amocrm_and_late_ones_give_nobody_work() -> None:
    rules = [{"do": "task"}]
    kinds = lambda change, **more: [item.kind for item in AmoCrm().plan(change, settings(rules=rules, **more), TENANT)]  # noqa: E731
    assert kinds(CallChange(missed(customer_number=None), (Ended(()),), 5.0)) == []
    assert kinds(CallChange(missed(), (Ended(()),), 5.0)) == [Kind.JOURNAL, Kind.TASK]
    assert kinds(CallChange(missed(), (Ended(()),), 5.0, late=True)) == [Kind.JOURNAL]
    assert kinds(CallChange(missed(), (Ended(()),), 5.0), send={"journal": False}) == []
    assert kinds(CallChange(missed(), (CalledBack("done", 9.0, "150", None),), 9.0)) == [Kind.TASK]
    assert kinds(CallChange(a_call(), (RecordingAdded("x.wav"),), 9.0)) == [Kind.RECORDING]


# -- rules -------------------------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_fits_wins_and_unknown_callers_become_incoming_leads_without_any() -> None:
    rules = [
        {"direction": "in", "answered": False, "known": True, "do": "task", "responsible": "entity"},
        {"direction": "in", "known": False, "line": "+375171112233", "do": "lead"},
        {"direction": "out", "do": "nothing"},
    ]
    chosen = settings(rules=rules)
    assert fitting(chosen, missed(), True).do == "task"
    assert fitting(chosen, a_call(), True).do == "nothing"
    assert fitting(chosen, missed(), False).do == "lead"
    assert fitting(chosen, missed(line="+375170000000"), False).do == "unsorted"
    assert fitting(chosen, a_call(direction=Direction.OUT), False).do == "nothing"
    assert fitting(settings(), a_call(direction=Direction.OUT), False).do == "contact"
    assert fitting(chosen, missed(), False, late=True).do == "unsorted"
    assert may_make(chosen, missed())
    assert not may_make(chosen, a_call(direction=Direction.OUT))


@pytest.mark.parametrize(
    ("responsible", "more", "extension"),
    [
        ("last_talked", {"answered_by": "150", "last_talked": "151"}, "151"),
        ("first_answered", {"answered_by": "150", "last_talked": "151"}, "150"),
        ("first_answered", {"answered_by": "+375291111111", "last_talked": "151"}, "151"),
        ("152", {}, "152"),
        ("last_talked", {"answered_by": None, "last_talked": None, "rang": ("150", "151")}, "150"),
        ("last_talked", {"answered_by": None, "last_talked": None, "rang": ()}, "199"),
        ("last_talked", {"answered_by": None, "last_talked": None, "rang": (), "line": None}, None),
        ("first_answered", {"answered_by": None, "last_talked": None, "rang": (), "initiator": "150", "direction": Direction.OUT}, "150"),
    ],
)
def test_a_call_is_whose_the_rule_says(responsible: str, more: dict[str, Any], extension: str | None) -> None:
    assert extension_of(a_call(**more), Rule(do="task", responsible=responsible), TENANT) == extension


# -- answers -----------------------------------------------------------------------------------------------------------------------


def response(status: int, text: str = "", **headers: str) -> Response:
    return Response(status, headers, text)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (200, "{}", Accepted), (204, "", Accepted), (202, "", Accepted), (202, "ok", Accepted), (200, "[{}]", Accepted), (200, "<html>", Ambiguous),
        (400, '{"detail": "x"}', Problem), (401, "", AuthExpired), (402, "{}", Throttled), (403, '{"detail": "no"}', Throttled), (403, "<html>", Throttled),
        (404, '{"detail": "no"}', Problem), (404, "<html>", AuthExpired), (405, "{}", Problem), (429, "slow", Throttled), (500, "{}", Ambiguous),
        (504, "<html>", Ambiguous), (302, "", AuthExpired),
    ],
)  # fmt: skip
def test_every_answer_has_a_meaning(status: int, text: str, kind: type) -> None:
    assert isinstance(interpret(response(status, text), is_read=False), kind)
    if status >= 500:
        assert isinstance(interpret(response(status, text), is_read=True), Retry)


def test_a_block_for_abuse_pauses_for_long_and_a_refusal_names_every_field() -> None:
    blocked = interpret(response(403, "<html>"), is_read=False)
    assert isinstance(blocked, Throttled)
    assert blocked.after_s >= 300
    body = (
        '{"validation-errors": [{"request_id": "7", "errors": [{"code": "NotNullable", "path": "params.link", "detail": "This value should not be null."}]}],'
        '"detail": "Request validation failed"}'
    )
    refused = interpret(response(400, body), is_read=False)
    assert isinstance(refused, Problem)
    assert refused.words == "Request validation failed; params.link: NotNullable This value should not be null."


@given(st.integers(200, 599), st.text(max_size=200) | st.binary(max_size=50).map(lambda data: data.decode("latin-1")), st.booleans())
def test_no_answer_whatsoever_raises(status: int, text: str, is_read: bool) -> None:
    interpret(response(status, text), is_read=is_read)


NAMES = st.sampled_from(["_embedded", "calls", "errors", "request_id", "_total_items", "validation-errors", "path", "title", "entity"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["_embedded", "errors", "_total_items", "validation-errors", "detail"]), JSON, max_size=4), st.booleans())
def test_every_call_of_a_batch_gets_an_outcome_whatever_the_answer_is(body: dict[str, Any], is_problem: bool) -> None:
    for ids in (["1"], ["1", "2", "3"]):
        assert len(read_results(Problem(400, body) if is_problem else Accepted(body), ids)) == len(ids)


def test_a_mixed_batch_is_matched_by_request_id_and_an_item_named_nowhere_is_undecided() -> None:
    body = {
        "_total_items": 1, "errors": [{"title": "Entity not found", "request_id": "2"}],
        "_embedded": {"calls": [{"id": 5, "entity_id": 9, "entity_type": "lead", "request_id": "1"}]},
    }  # fmt: skip
    first, second, third = read_results(Problem(400, body), ["1", "2", "3"])
    assert first == Delivered("", {"known": True, "entity_type": "leads", "entity_id": 9})
    assert second is None
    assert isinstance(third, Ambiguous)
    wrong = Problem(400, {"validation-errors": [{"request_id": "2", "errors": [{"path": "phone", "code": "X"}]}]})
    assert [type(result) for result in read_results(wrong, ["1", "2", "3"])] == [Retry, Rejected, Retry]


def test_numbers_are_compared_by_their_last_ten_digits_however_they_are_written() -> None:
    def contact(*values: str) -> dict[str, Any]:
        return {
            "custom_fields_values": [{"field_code": "EMAIL", "values": [{"value": "a@b"}]}, {"field_code": "PHONE", "values": [{"value": v} for v in values]}]
        }

    assert has_phone(contact("8 (029) 625-40-70"), KNOWN, "BY")
    assert not has_phone(contact("8 (029) 625-40-70"), KNOWN, "RU")
    assert has_phone(contact("+7 (999) 555-01-01"), "+79995550101", "BY")
    assert has_phone(contact("8 999 555 01 01"), "+79995550101", "BY")
    assert not has_phone(contact("+375 29 625-40-71"), KNOWN, "BY")
    assert not has_phone({"custom_fields_values": None}, KNOWN, "BY")
    assert phones({"custom_fields_values": [None, {"field_code": "PHONE", "values": None}]}) == []
    assert [plural(one) for one in ("contact", "leads", 3, "12", None)] == ["contacts", "leads", "companies", "customers", ""]
    assert spellings("+375296254070")[0] == "5296254070"


# -- with the sandbox --------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def box() -> AsyncIterator[AmoCrmSandbox]:
    """Without its limit: ours is kept all the same, and after a moment in which this machine stood still what had its place comes together."""
    sandbox = AmoCrmSandbox()
    sandbox.switches.rate_limited = False
    await sandbox.start()
    yield sandbox
    await sandbox.stop()


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither our own limit nor a pause makes the test wait; the sandbox's limit is off then."""
    monkeypatch.setattr(AmoCrm, "policy", replace(AmoCrm.policy, rates={"api": Rate(1_000, 1.0)}))
    for name in ("THROTTLE_PAUSE_S", "LOOK_AGAIN_S"):
        monkeypatch.setattr(f"adapters.amocrm.client.{name}", 0.05)


def told(box: AmoCrmSandbox, **more: Any) -> dict[str, Any]:
    return {"base_url": box.url, "long_lived_token": box.oauth.long_lived(), "user_extensions": {"7031001": "150", "7031002": "151"}, **more}


async def test_what_becomes_of_calls_is_seen_in_the_account(box: AmoCrmSandbox, db: Database) -> None:
    """Known, with one active lead, unknown, twice unknown in one batch: each is where amoCRM keeps it."""
    account = box.account
    contact = account.contact("Восток", "8 (029) 625-40-70", 7031001)
    other = account.contact("Ирина", "+375 33 123-45-67", 7031002)
    lead = account.lead("Заказ", other["id"], 7031001)
    async with rig(db, AmoCrm(), told(box)) as r:
        await r.live_call_later(a_call())
        await r.record(a_call(customer_number="+375331234567"), Ended(()), wake=False)
        await r.record(missed(customer_number=UNKNOWN), Ended(()), wake=False)
        await r.record(a_call(direction=Direction.OUT, customer_number="+375292222202", initiator="150", rang=()), Ended(()))
        assert {d["state"] for d in await r.settled()} == {"delivered"}
    assert box.calls.events == [{"type": "phone_call", "phone_number": KNOWN, "users": [7031001, 7031002]}]
    notes = {note["entity_id"]: note for note in account.calls()}
    assert notes[contact["id"]]["params"]["phone"] == KNOWN
    assert notes[lead["id"]]["entity_type"] == "leads"
    (waiting,) = account.unsorted.values()
    assert (waiting["metadata"]["from"], waiting["metadata"]["phone"]) == (UNKNOWN, "+375171112233")
    (made,) = [one for one in account.contacts.values() if one["id"] not in (contact["id"], other["id"])]
    assert notes[made["id"]]["note_type"] == "call_out"
    assert len(account.calls()) == 3
    assert not [line for line in box.refusals if not line.startswith("400 Entity not found")]


RULES = [
    {"direction": "in", "known": False, "line": "+375171112233", "do": "lead", "responsible": "150"},
    {"direction": "in", "answered": False, "known": True, "do": "task", "responsible": "entity", "task_deadline_s": 600},
    {"direction": "in", "answered": True, "known": True, "do": "lead"},
    {"direction": "in", "known": False, "do": "task"},
    {"do": "nothing"},
]


async def test_rules_make_leads_contacts_and_tasks_and_a_task_ends_when_the_customer_was_called_back(box: AmoCrmSandbox, db: Database) -> None:
    account = box.account
    contact = account.contact("Восток", KNOWN, 7031002)
    async with rig(db, AmoCrm(), told(box, rules=RULES)) as r:
        first = missed()
        await r.record(first, Ended(()))
        await r.settled()
        (task,) = account.tasks.values()
        assert (task["entity_type"], task["entity_id"], task["responsible_user_id"]) == ("contacts", contact["id"], 7031002)
        assert task["complete_till"] == round(first.ended_at or 0) + 600
        assert not task["is_completed"]
        await r.record(first, CalledBack("called_back", time.time(), "150", None))
        await r.settled()
        assert account.tasks[task["id"]]["is_completed"]
        assert "150" in account.tasks[task["id"]]["result"]["text"]

        await r.record(a_call(), Ended(()))
        await r.settled()
        (lead,) = account.leads.values()
        assert lead["contact_ids"] == [contact["id"]]

        await r.record(missed(customer_number=UNKNOWN, line="+375171112233"), Ended(()))
        await r.record(missed(customer_number="+375292222202", line=None), Ended(()))
        await r.record(a_call(customer_number="+375293333303", direction=Direction.OUT), Ended(()))
        assert {d["state"] for d in await r.settled()} == {"delivered"}
        assert len(account.leads) == 2
        assert len(account.contacts) == 3
        assert len(account.tasks) == 2
        newest = max(account.leads.values(), key=lambda one: one["id"])
        assert newest["responsible_user_id"] == 7031001
        assert [note["entity_id"] for note in account.calls()].count(newest["id"]) == 1
        nothing = (await r.settled())[-1]
        assert "make nothing" in nothing["last_error"]


async def test_whatever_gets_lost_a_call_an_incoming_lead_and_a_task_stand_there_once(
    box: AmoCrmSandbox, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.account.contact("Восток", KNOWN, 7031002)
    async with rig(db, AmoCrm(), told(box, rules=[{"known": True, "answered": False, "do": "task"}])) as r:
        journaled = []
        for fault in ("500", "504", "reset", "done-then-500", "done-then-reset", "html-200"):
            box.switches.fail_next.append(fault)
            journaled.append(a_call())
            await r.record(journaled[-1], Ended(()))
            await until_settled(r)
        for faults in (["pass", "done-then-500"], ["pass", "500"], ["pass", "done-then-500", "pass", "502"]):
            box.switches.fail_next.extend(faults)
            journaled.append(missed(customer_number=UNKNOWN))
            await r.record(journaled[-1], Ended(()))
            await until_settled(r)
        assert len(box.account.unsorted) == 3
        for count, faults in enumerate((["pass", "done-then-500"], ["pass", "500"]), 1):
            box.switches.fail_next.extend(faults)
            journaled.append(missed(started_at=1_763_701_800.0 + count))
            await r.record(journaled[-1], Ended(()))
            await until_settled(r)
            assert len(box.account.tasks) == count
    assert sorted(box.calls.journal()) == sorted(call.id for call in journaled)


async def until_settled(r: Rig) -> None:
    """Lets time pass until nothing waits any more; everything was delivered."""
    found = await r.settled(hurry=True)
    assert {d["state"] for d in found} == {"delivered"}, found


async def test_a_call_that_cannot_be_found_among_too_many_is_shown_as_unknown_and_not_sent_again(
    box: AmoCrmSandbox, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.amocrm.calls.NOTES_PER_PAGE", 2)
    box.account.contact("Восток", KNOWN)
    async with rig(db, AmoCrm(), told(box)) as r:
        for _ in range(8):
            box.account.add("notes", {"entity_id": 1, "entity_type": "contacts", "note_type": "call_in", "params": {"uniq": "another"}})
        box.switches.fail_next.append("500")
        await r.record(a_call(), Ended(()))
        found = await r.deliveries(lambda newest: newest[0]["state"] == "dead", hurry=True)
    assert "may or may not have arrived" in found[0]["last_error"]
    assert box.calls.journal().count("another") == 8
    assert sum(line == "POST /api/v4/calls" for line in box.requests) == 1


DOUBTS = {"not_found_details": False, "mixed_status": 400, "event_body": True, "json_429": True, "empty_status": 200, "next_on_last_page": True,
          "nulls_in_calls": False, "customers": False}  # fmt: skip


async def test_doubtful_points_may_be_either_way(box: AmoCrmSandbox, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)
    box.account.contact("Восток", KNOWN)
    async with rig(db, AmoCrm(), told(box)) as r:
        adapter, _, connect = r.crm.reach(NUMBER, "amocrm")
        for count, (name, value) in enumerate(DOUBTS.items(), 1):
            before = getattr(box.switches, name)
            setattr(box.switches, name, value)
            box.switches.fail_next.append("429")
            await r.live_call_later(a_call())
            await r.record(missed(customer_number=UNKNOWN), Ended(()))
            await until_settled(r)
            assert (len(box.calls.journal()), len(box.calls.events)) == (2 * count, count), name
            assert len(await adapter.managers(connect(PATIENCE_S))) == 3  # type: ignore[attr-defined]
            setattr(box.switches, name, before)


async def test_a_call_of_somebody_who_left_is_kept_in_nobodys_name(box: AmoCrmSandbox, db: Database) -> None:
    box.account.contact("Восток", KNOWN)
    rules = [{"known": True, "do": "task"}, {"line": "+375171112299", "do": "lead"}]
    async with rig(db, AmoCrm(), told(box, user_extensions={"7031001": "150", "999": "151"}, rules=rules)) as r:
        await r.record(a_call(customer_number=UNKNOWN, answered_by="150", last_talked="150"), Ended(()), wake=False)
        await r.record(a_call(), Ended(()))
        await r.record(a_call(customer_number="+375292222202", line="+375171112299"), Ended(()))
        await until_settled(r)
    assert [(note["created_by"], "call_responsible" in note["params"]) for note in box.account.calls()] == [(0, False), (0, False)]
    assert (len(box.account.unsorted), len(box.account.leads), len(box.account.tasks)) == (1, 1, 1)


class Room:
    """A recordings room that has every file at once."""

    def has_source(self, *_: str) -> bool:
        return False

    async def for_crm(self, call: Call, *, mp3: bool) -> tuple[str, ...]:
        assert mp3
        return tuple(f"https://pbx.example/{name}.mp3" for name in call.recordings)


async def test_calls_may_be_notes_where_somebody_wants_them_so_and_a_late_recording_is_added_to_either(box: AmoCrmSandbox, db: Database) -> None:
    contact = box.account.contact("Восток", "+375 (29) 625-40-70")
    lead = box.account.lead("Заказ", contact["id"])
    for journal_as in ("notes", "calls"):
        async with rig(db, AmoCrm(), told(box, journal_as=journal_as)) as r:
            call = a_call(recordings=("a.wav",))
            await r.record(call, Ended(()))
            await r.record(missed(customer_number=UNKNOWN), Ended(()))
            await until_settled(r)

            r.crm.recordings = Room()
            assert await r.attach(NUMBER, call.id, "b.wav")
            r.dispatcher.wake(NUMBER, "amocrm")
            await until_settled(r)
        note = next(note for note in box.account.calls() if note["params"]["uniq"] == call.id)
        assert (note["entity_type"], note["entity_id"]) == ("leads", lead["id"])
        assert note["params"]["link"] == "https://pbx.example/a.wav.mp3"
    assert len(box.account.calls()) == 2


async def test_no_fault_loses_a_call_or_breaks_the_adapter(box: AmoCrmSandbox, db: Database) -> None:
    box.account.contact("Восток", KNOWN)
    async with rig(db, AmoCrm(), told(box), run=False) as r:
        for fault in FAULTS:
            _, _, connect = r.crm.reach(NUMBER, "amocrm")
            box.switches.fail_next.append(fault)
            delivery = Delivery(1, Kind.JOURNAL, a_call(), {}, 1)
            (outcome,) = await AmoCrm().deliver(connect(0.4 if fault == "silence" else PATIENCE_S), [delivery])
            assert isinstance(outcome, (Ambiguous, AuthExpired, Throttled, Retry)), (fault, outcome)
    assert box.calls.journal() == []


async def test_seven_requests_a_second_are_not_exceeded_and_nobody_is_banned(box: AmoCrmSandbox, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    box.account.contact("Восток", KNOWN)
    places = noted_places(monkeypatch)
    async with rig(db, AmoCrm(), told(box)) as r:
        for number in range(12):
            await r.record(ringing(a_call(customer_number=f"+3752911111{number:02}")), Ringing(("150",)), wake=False)
        await r.record(a_call(), Ended(()))
        await r.settled()
    assert len(box.calls.events) == 12
    assert len(places) == len(box.requests), "every request had its place"
    assert most_within_a_second(places) <= 7


async def test_whoever_goes_on_over_the_limit_is_blocked_by_the_sandbox(box: AmoCrmSandbox) -> None:
    import aiohttp

    box.switches.rate_limited, box.limit_clock = True, lambda: 1.0  # all within one second, however long they take
    headers = {"Authorization": f"Bearer {box.oauth.long_lived()}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        statuses = []
        for _ in range(40):
            async with session.get(f"{box.url}/api/v4/account") as answer:
                statuses.append(answer.status)
    assert statuses[:7] == [200] * 7
    assert 429 in statuses
    assert statuses[-1] == 403


# -- lookup ------------------------------------------------------------------------------------------------------------------------


async def test_smart_redirect_asks_for_the_active_leads_user_else_the_contacts(box: AmoCrmSandbox, db: Database) -> None:
    contact = box.account.contact("Ирина Гай", "+375 (29) 625-40-70", 7031001)
    async with rig(db, AmoCrm(), told(box)) as r:
        adapter, _, connect = r.crm.reach(NUMBER, "amocrm")
        ask = lambda phone: adapter.responsible(connect(PATIENCE_S), phone)  # type: ignore[attr-defined] # noqa: E731
        found = await ask(KNOWN)
        assert (found.user_id, found.customer_name) == ("7031001", "Ирина Гай")
        box.account.lead("Старый", contact["id"], 7031003, status=142)
        assert (await ask(KNOWN)).user_id == "7031001"
        box.account.lead("Новый", contact["id"], 7031002)
        assert (await ask(KNOWN)).user_id == "7031002"
        assert await ask(UNKNOWN) is None
