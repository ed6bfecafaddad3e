"""What pages compute without a database: filters, tables, reasons, alarms, periods."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.retailcrm.config import RetailCrmSettings
from admin_http.pages.crm_lines import line_rows
from admin_http.pages.enterprises import PER_PAGE, page_of
from admin_http.pages.rules import edited, read_rules
from admin_http.sheet import BOM, COLUMNS, harmless, heading, rows
from admin_http.tries import Tries
from daemon.delivery.health import Breaker, Health
from daemon.delivery.letters import DeliveryFilter
from daemon.delivery.rate import AccountLimiter
from daemon.delivery.why import explain
from daemon.errors import VochidError
from daemon.model.delivery import Kind, Rate
from daemon.model.integration import Rule, Send
from daemon.store.call_query import CallFilter, conditions, tail_range, termed_calls
from daemon.store.reports import Period
from daemon.telemetry.alarms import alarms
from tests.rig import a_call, ringing

KINDS = {"retailcrm": frozenset({Kind.POPUP, Kind.HANGUP, Kind.JOURNAL})}
NOW = datetime(2026, 11, 21, 21, 30, tzinfo=UTC)


def settings(**more: Any) -> RetailCrmSettings:
    return RetailCrmSettings.model_validate({"domain": "https://example.retailcrm.ru", "api_key": "k" * 12, **more})


# -- search ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tail", "name"),
    [
        ("4070", "4070", None),
        ("+375 (29) 625-40-70", "296254070", None),
        ("8 029 625 40 70", "296254070", None),
        ("восток", None, "восток"),
        ("12", None, "12"),
        ("Иван 42", None, "Иван 42"),
        ("   ", None, None),
    ],
)
def test_what_is_typed_means_a_number_or_a_name(text: str, tail: str | None, name: str | None) -> None:
    asked = CallFilter(search=text)
    assert (asked.number_tail, asked.name) == (tail, name)


@given(st.text("0123456789", min_size=1, max_size=9), st.text("0123456789", max_size=12))
def test_a_range_holds_exactly_the_numbers_that_end_so(tail: str, before: str) -> None:
    first, after = tail_range(tail)
    assert first <= (before + tail)[::-1] < after
    assert (first <= before[::-1] < after) == before.endswith(tail)


def test_only_what_was_asked_is_in_the_statement_and_values_are_arguments() -> None:
    where, arguments = conditions("0367", CallFilter())
    assert (where, arguments) == (["enterprise_number = $1"], ["0367"])
    where, arguments = conditions("0367", CallFilter(line="x' or true --", missed=True, extension="151", number="нет"))
    assert arguments == ["0367", "x' or true --", "нет"]
    assert "missed" in where
    assert where[-1] == "customer_number = $3"
    assert termed_calls("0367", ["a'b"], CallFilter(extension="151"), None)[1] == ["0367", "a'b", "a'b\U0010ffff", "#151"]


def test_deliveries_are_filtered_by_arguments_too() -> None:
    where, arguments = DeliveryFilter(state="dead", cause="HTTP … {x}").conditions("0367")
    assert arguments == ["0367", "dead", "HTTP … {x}"]
    assert where[2].endswith("= $3")


# -- the table -----------------------------------------------------------------------------------------------------------


@given(st.text(), st.text())
def test_no_cell_begins_a_formula_and_the_table_reads_back(name: str, line: str) -> None:
    call = {**a_call().to_json(), "customer_name": name, "line": line}
    read = list(csv.reader(io.StringIO(rows([call], "Europe/Minsk"), newline=""), delimiter=";"))
    assert len(read) == 1
    cells = dict(zip(COLUMNS, read[0], strict=True))
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in read[0])
    assert cells["customer_name"].removeprefix("'") == name.replace("\0", "").removeprefix("'")


@pytest.mark.parametrize("text", ["=1+1", "+375291112233", "-2", "@SUM(A1)", "\tx", "\rx", "\nx", "＝1"])
def test_what_a_spreadsheet_would_compute_gets_an_apostrophe(text: str) -> None:
    assert harmless(text) == "'" + text
    assert harmless("x" + text) == "x" + text


def test_the_table_has_a_mark_titles_local_times_and_words() -> None:
    assert heading({"started_at": "Начало"}).startswith(BOM + "Начало;direction;")
    line = rows([a_call(started_at=1_763_701_800.0).to_json()], "Europe/Minsk", {"in": "входящий", "answered": "отвечен"})
    assert line.startswith("2025-11-21 08:10:00;входящий;отвечен;")
    assert line.endswith("\r\n")


# -- why -------------------------------------------------------------------------------------------------------------------


def reasons(call: Any, chosen: RetailCrmSettings, told: list[dict[str, Any]] | None = None, *, paused: bool = False) -> dict[str, str]:
    return {r.kind: r.code for r in explain(call.to_json(), paused, {"retailcrm": chosen}, KINDS, told or [])}


def test_every_kind_that_was_not_sent_has_its_reason() -> None:
    assert reasons(a_call(direction="internal"), settings()) == dict.fromkeys(("popup", "hangup", "journal"), "internal")
    assert reasons(a_call(), settings(), paused=True) == dict.fromkeys(("popup", "hangup", "journal"), "paused")
    assert reasons(a_call(), settings(enabled=False)) == dict.fromkeys(("popup", "hangup", "journal"), "disabled")
    assert reasons(a_call(customer_number=None), settings())["popup"] == "no_number"
    assert reasons(a_call(rang=()), settings())["popup"] == "nobody_rang"
    assert reasons(ringing(a_call()), settings())["journal"] == "live"
    off = settings(send=Send(popup_in=False, journal=False).model_dump())
    assert reasons(a_call(), off) == {"popup": "switched_off", "hangup": "not_planned", "journal": "switched_off"}
    assert reasons(a_call(direction="out", initiator="150"), off)["popup"] == "not_planned"
    nothing = settings(rules=[Rule(line="+375171112233", do="nothing").model_dump()])
    assert reasons(a_call(), nothing)["journal"] == "rule"
    assert reasons(a_call(line="+375170000000"), nothing)["journal"] == "not_planned"


def test_what_was_sent_says_what_became_of_it_and_a_former_integration_is_told_too() -> None:
    told = [
        {"integration": "retailcrm", "kind": "journal", "state": "dead", "last_error": "Telephony not enabled"},
        {"integration": "amocrm", "kind": "journal", "state": "delivered", "last_error": None},
    ]
    found = explain(a_call().to_json(), False, {"retailcrm": settings()}, KINDS, told)
    assert [(r.integration, r.code, r.detail) for r in found if r.kind == "journal"] == [
        ("retailcrm", "dead", "Telephony not enabled"),
        ("amocrm", "delivered", ""),
    ]


# -- alarms, health, periods -----------------------------------------------------------------------------------------------


def test_alarms_name_what_is_wrong_worst_first_and_a_quiet_house_has_none() -> None:
    pbx = {"pbx": "main", "reads": True, "state": "ready", "reason": "", "since": None, "owner": "a"}
    crm = {"integration": "retailcrm", "state": "ok", "reason": "", "since": None, "breaker": "closed"}
    queue = {"integration": "retailcrm", "oldest_s": 3.0, "dead": 0}
    assert alarms([pbx], [crm], [queue], []) == []
    assert alarms([{**pbx, "state": None}], [], [], []) == []  # another node reads it
    found = alarms(
        [{**pbx, "state": None, "owner": None}, {**pbx, "state": "refused", "reason": "Authentication failed"}],
        [{**crm, "state": "needs_reauth"}, {**crm, "state": "paused"}, {**crm, "breaker": "open"}],
        [{**queue, "oldest_s": 900.0, "dead": 2}],
        ["integrations.amocrm: unreadable"],
    )
    assert {a.code for a in found} == {"pbx_unread", "pbx_down", "needs_reauth", "connection_off", "breaker", "old_deliveries", "dead_letters", "settings"}
    assert [a.severity for a in found] == sorted(a.severity for a in found)


def test_health_and_rates_are_seen_without_being_changed() -> None:
    health = Health()
    for n in range(10):
        health.failed(float(n))
    view = health.view(10.0, 1, False)
    assert (view.breaker, view.tries, view.failed, view.in_flight) == (Breaker.OPEN, 10, 10, 1)
    assert view.wait_s == pytest.approx(29.0)
    limiter = AccountLimiter({"all": Rate(2, 1.0)})
    for _ in range(3):
        limiter.reserve("all", 100.0)
    assert limiter.used(100.1)["all"] == (3, Rate(2, 1.0))
    assert limiter.used(105.0)["all"][0] == 0


def test_a_period_is_local_days_seven_by_default() -> None:
    assert Period.parse(None, None, "Asia/Tokyo", NOW) == Period(date(2026, 11, 16), date(2026, 11, 22), "Asia/Tokyo")
    assert Period.parse("2026-11-20", None, "Europe/Minsk", NOW).last == date(2026, 11, 22)
    assert Period.parse("2026-11-01", "2026-11-03", "Europe/Minsk", NOW).step == "hour"
    assert Period.parse("2026-11-01", "2026-11-04", "Europe/Minsk", NOW).step == "day"


@pytest.mark.parametrize(
    ("first", "last"), [("yesterday", None), ("2026-11-02", "2026-11-01"), ("2024-01-01", "2026-01-01"), ("0001-01-01", None), (None, "9999-12-31")]
)
def test_a_wrong_period_is_refused_with_the_parameters_name(first: str | None, last: str | None) -> None:
    with pytest.raises(VochidError) as refused:
        Period.parse(first, last, "Europe/Minsk", NOW)
    assert refused.value.field in ("from", "to")


@pytest.mark.parametrize(
    ("asked", "page"), [("", 1), ("1", 1), ("2", 2), ("3", 3), ("4", 3), ("99999", 3), ("0", 1), ("-1", 1), ("²", 1), ("x", 1), ("1" * 400, 1)]
)
def test_enterprises_come_in_pages(asked: str, page: int) -> None:
    numbers = [f"{n:04}" for n in range(2 * PER_PAGE + 1)]
    shown, found, pages = page_of(numbers, asked)
    assert (found, pages) == (page, 3)
    assert shown == numbers[(page - 1) * PER_PAGE :][:PER_PAGE]
    assert page_of([], asked) == ([], 1, 1)


@given(st.lists(st.sampled_from(("add", "up", "down", "remove")), max_size=12), st.integers(0, 5))
def test_rules_lose_and_gain_only_what_a_step_says(steps: list[str], place: int) -> None:
    rules: list[dict[str, Any]] = [{"do": str(n)} for n in range(3)]
    for step in steps:
        before, rules = list(rules), edited(list(rules), step, place)
        grown = {"add": 1, "remove": -1 if place < len(before) else 0}.get(step, 0)
        assert len(rules) == len(before) + grown
        if step in ("up", "down"):
            assert sorted(rules, key=str) == sorted(before, key=str)


def test_rules_are_read_in_the_order_of_their_places_and_what_is_no_number_stays_text() -> None:
    form = {
        "rules.10.do": "lead",
        "rules.2.do": "task",
        "rules.2.deadline": "90",
        "rules.10.deadline": "²",
        "rules.2.known": "true",
        "rules.x.do": "no",
        "csrf": "1",
    }
    first, second = read_rules(form)
    assert first == {"line": None, "direction": None, "answered": None, "known": True, "do": "task", "responsible": "last_talked", "task_deadline_s": 5_400}
    assert (second["do"], second["task_deadline_s"]) == ("lead", "²")


def test_questions_are_bounded_by_person_and_by_enterprise_and_come_back_with_time() -> None:
    now = 0.0
    tries = Tries(lambda: now)

    def taken(enterprise: str, person: str) -> int:
        count = 0
        with pytest.raises(VochidError) as refused:
            while count < 100:
                tries.take(enterprise, person)
                count += 1
        assert refused.value.code == "too_many_tries"
        return count

    assert taken("0367", "anna") == 10
    assert taken("0400", "anna") == 10  # another enterprise is another matter
    assert taken("0367", "boris") == 10
    assert taken("0367", "vera") == 0  # together they used up the enterprise's
    now = 6.0
    assert taken("0367", "anna") == 1
    now = 600.0
    assert taken("0367", "anna") == 10


def test_lines_at_a_crm_say_what_is_odd_and_which_rules_may_fit() -> None:
    rules = [{"line": "375171112233"}, {"line": None}, {"line": "+375447770011"}]
    ours = {"+375171112233": "Продажи", "+375447770011": "", "+375000000000": "Новая", "+375111111111": "Склад"}
    there = {"+375171112233": "Продажи", "+375447770011": "+375447770011", "+375111111111": "Other", "+375999999999": "Old"}
    rows = {row["number"]: (row["state"], row["rules"]) for row in line_rows(ours, there, rules)}
    assert rows == {
        "+375171112233": ("same", [0, 1]), "+375447770011": ("same", [1, 2]), "+375000000000": ("missing", [1]), "+375111111111": ("renamed", [1]),
        "+375999999999": ("gone", []),
    }  # fmt: skip
    assert {row["state"] for row in line_rows(ours, None, rules)} == {"unknown"}
    assert line_rows({}, {}, rules) == []
