"""Bitrix24's pure parts: events, parameters as PHP reads them, the leaky bucket."""

from __future__ import annotations

import contextlib
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.bitrix24.client import Accepted, Ref, encode, interpret, judge
from adapters.bitrix24.config import Bitrix24Settings
from adapters.bitrix24.inbound import BadInbound, read_event, token_of
from adapters.bitrix24.limits import FINISH, POLICY, POPUP, SYNC
from adapters.bitrix24.lookup import read_answer
from adapters.http import Response
from daemon.delivery.rate import AccountLimiter
from daemon.model.delivery import AuthExpired, Leak, Retry, Throttled
from lab.crm.bitrix24_data import nested

CLICK = [
    ("event", "ONEXTERNALCALLSTART"), ("event_handler_id", "1055"), ("data[PHONE_NUMBER]", "+375296254070"), ("data[USER_ID]", "12"),
    ("data[LINE_NUMBER]", "375171112233"), ("data[CALL_ID]", "externalCall.0f.1"), ("ts", "1767225600"), ("auth[domain]", "acme.bitrix24.example"),
    ("auth[application_token]", "a-token-of-sixteen"),
]  # fmt: skip
BACK = [
    ("event", "onexternalcallbackstart"), ("data[PHONE_NUMBER]", "+375296254070"), ("data[LINE_NUMBER]", ""), ("ts", "5"),
    ("auth[application_token]", "a-token-of-sixteen"),
]  # fmt: skip
names = st.text("ABab_", min_size=1, max_size=3)
plain = st.recursive(
    st.text("a1+%&=[]$ я", max_size=5),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=6,
)


# -- events ------------------------------------------------------------------------------------------------------------------------


@given(st.permutations(CLICK), st.lists(st.sampled_from(CLICK)))
def test_a_click_is_the_same_in_any_order_and_with_names_sent_twice(pairs: list[tuple[str, str]], again: list[tuple[str, str]]) -> None:
    event = read_event([*pairs, *again])
    assert (event.key, event.phone, event.user_id, event.line) == ("externalCall.0f.1", "+375296254070", "12", "375171112233")
    assert token_of([*pairs, *again]) == "a-token-of-sixteen"
    assert event.wants_call


@pytest.mark.parametrize("missing", ["event_handler_id", "data[LINE_NUMBER]", "ts", "auth[domain]", "data[CALL_ID]"])
def test_names_that_old_portals_leave_out_are_not_needed(missing: str) -> None:
    event = read_event([pair for pair in CLICK if pair[0] != missing])
    assert event.wants_call
    assert event.key


@pytest.mark.parametrize(("change", "field"), [
    (("data[USER_ID]", "0"), "data[USER_ID]"), (("data[PHONE_NUMBER]", ""), "data[PHONE_NUMBER]"),
    (("data[USER_ID]", "x" * 501), "data[USER_ID]"), (("data[PHONE_NUMBER]", "1\r\n2"), "data[PHONE_NUMBER]"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_with_its_name(change: tuple[str, str], field: str) -> None:
    with pytest.raises(BadInbound) as wrong:
        read_event([change if pair[0] == change[0] else pair for pair in CLICK])
    assert wrong.value.field == field


def test_a_name_with_two_values_is_refused() -> None:
    with pytest.raises(BadInbound, match="twice"):
        read_event([*CLICK, ("DATA[USER_ID]", "13")])


def test_two_tokens_are_nobodys() -> None:
    assert token_of([*CLICK, ("auth[application_token]", "another")]) == token_of([]) == ""


def test_a_call_back_is_named_by_what_it_says() -> None:
    first, again = read_event(BACK), read_event(BACK[::-1])
    assert first == again
    assert first.key.startswith("callback:")
    assert (first.user_id, first.line) == (None, None)
    assert read_event([pair if pair[0] != "ts" else ("ts", "6") for pair in BACK]).key != first.key


def test_other_events_want_no_call() -> None:
    assert not read_event([("event", "ONAPPUNINSTALL"), ("auth[application_token]", "a-token-of-sixteen")]).wants_call


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([name for name, _ in CLICK]) | st.text(max_size=9), st.text(max_size=9)), max_size=9))
def test_anything_is_read_or_refused(pairs: list[tuple[str, str]]) -> None:
    with contextlib.suppress(BadInbound):
        read_event(pairs)


# -- parameters and answers ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.dictionaries(names, plain, max_size=4))
def test_php_reads_what_was_written(params: dict[str, object]) -> None:
    def texts(value: object) -> object:
        if isinstance(value, dict):
            return {key: texts(item) for key, item in value.items()}
        return [texts(item) for item in value] if isinstance(value, list) else str(value)

    assert nested(parse_qsl(encode(params), keep_blank_values=True)) == texts(params)


def test_a_reference_and_flags_are_written_as_the_portal_wants_them() -> None:
    assert encode({"CALL_ID": Ref("register", ("CALL_ID",)), "SHOW": True, "none": None}) == "CALL_ID=%24result%5Bregister%5D%5BCALL_ID%5D&SHOW=1"


def test_an_answer_that_nearly_used_up_the_run_time_says_how_long_to_rest() -> None:
    text = '{"result": true, "time": {"operating": 450, "operating_reset_at": 130, "finish": 100.5}}'
    assert interpret(Response(200, {}, text)) == (Accepted(True), 29.5)
    assert interpret(Response(200, {}, text.replace("450", "4.5")))[1] is None


@pytest.mark.parametrize(("status", "code", "outcome"), [
    (401, "NO_AUTH_FOUND", AuthExpired), (403, "insufficient_scope", AuthExpired), (401, "insufficient_scope", AuthExpired), (403, "", AuthExpired),
    (500, "PORTAL_DELETED", AuthExpired), (503, "OVERLOAD_LIMIT", AuthExpired), (503, "QUERY_LIMIT_EXCEEDED", Throttled),
    (None, "query_limit_exceeded", Throttled),
    (None, "OPERATION_TIME_LIMIT", Throttled), (500, "ERROR_UNEXPECTED_ANSWER", Retry), (None, "INTERNAL_SERVER_ERROR", Retry), (502, "", Retry),
])  # fmt: skip
def test_codes_mean_the_same_in_either_case_and_inside_a_batch(status: int | None, code: str, outcome: type) -> None:
    assert isinstance(judge(status, code, "words", {}), outcome)


@settings(max_examples=60)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_a_lookups_answer_of_any_shape_is_read(answer: object) -> None:
    read_answer(answer)


# -- settings --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [
    {}, {"webhook_url": "https://a.bitrix24.ru/"}, {"webhook_url": "https://a.bitrix24.ru/rest/1/../x/"}, {"webhook_url": "https://u@a.bitrix24.ru/rest/1/x/"},
    {"domain": "https://a.bitrix24.ru", "client_id": "local.1"}, {"webhook_url": "https://a.bitrix24.ru/rest/1/x/", "domain": "https://b.bitrix24.ru"},
    {"webhook_url": "https://a.bitrix24.ru/rest/1/x/", "application_token": "short"}, {"webhook_url": "https://a.bitrix24.ru/rest/1/x/", "default_user": "x"},
])  # fmt: skip
def test_settings_that_lead_nowhere_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        Bitrix24Settings.model_validate(wrong)


# -- the bucket ------------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([POPUP, FINISH, SYNC]), st.floats(0, 3)), max_size=150))
def test_the_portals_bucket_never_overflows_and_popups_always_find_room(asked: list[tuple[str, float]]) -> None:
    """Replayed on a bucket of the portal's own size, at the moments at which the requests leave."""
    limiter, now, leaving = AccountLimiter(POLICY.rates), 0.0, []
    for bucket, pause_s in asked:
        now += pause_s
        leaving.append(now + limiter.reserve(bucket, now))
    level, before = 0.0, 0.0
    for at in sorted(leaving):
        level, before = max(0.0, level - (at - before) * 2.0) + 1, at
        assert level <= 50 + 1e-6


def test_journals_under_a_full_load_leave_room_for_popups() -> None:
    limiter = AccountLimiter(POLICY.rates)
    waits = [limiter.reserve(FINISH, 0.0) for _ in range(40)]
    assert (waits[35], round(waits[36], 3)) == (0.0, 0.5)
    for _ in range(4):
        limiter.give_back(FINISH)
    assert [limiter.reserve(POPUP, 0.0) for _ in range(12)] == [0.0] * 12
    assert limiter.reserve(POPUP, 0.0) > 0
    assert limiter.used(0.0)[POPUP][0] == 49


def test_a_pause_holds_one_kind_only() -> None:
    limiter = AccountLimiter({"a": Leak("x", 5, 1.0), "b": Leak("x", 5, 1.0)})
    limiter.pause("a", 30.0)
    assert (limiter.reserve("a", 0.0), limiter.reserve("b", 0.0)) == (30.0, 0.0)
