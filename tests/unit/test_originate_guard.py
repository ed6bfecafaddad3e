"""What may be dialled: the guard, the Originate action, the states. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.ami.actions import Originate, channel_of
from daemon.ami.session import Session, State
from daemon.ami.wire import ActionError, encode_action
from daemon.model.call import Direction, Leg, LegKind, Result
from daemon.model.phone import PhoneNumber
from daemon.originate.guard import BadRequest, DialRefused, check_rules, day_began, pbx_for, range_abroad, read_extension, read_phone, within
from daemon.originate.states import COMES_FROM, OPEN, Progress, moves, of_call, of_response
from daemon.originate.states import State as Stand
from daemon.tenants.document import Enterprise, Hours
from tests.rig import a_call

NOON = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)  # a Saturday, 12:00 in Minsk


def enterprise(**more: Any) -> Enterprise:
    pbxs = [{"name": "posts", "host": "h"}, {"name": "main", "host": "h", "secret": "s", "internal_number": "^1\\d\\d$"}]
    return Enterprise.model_validate({"number": "0367", "name": "Июнь", "pbxs": pbxs, **more})


def code_of(number: str, **more: Any) -> str | None:
    try:
        check_rules(PhoneNumber(number), enterprise(**more), NOON)
    except DialRefused as error:
        return error.code
    return None


# -- numbers -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["+375296254070", "375296254070", "80296254070", "8 029 625-40-70", " 80 (29) 625.40.70 "])
def test_the_ways_a_number_is_written(text: str) -> None:
    assert read_phone(text, "BY") == "+375296254070"


@given(st.text(max_size=60))
def test_any_text_is_a_number_of_plus_and_digits_or_refused(text: str) -> None:
    try:
        number = read_phone(text, "BY")
    except BadRequest:
        return
    assert re.fullmatch(r"\+[0-9]{5,15}", number, re.ASCII)


@given(st.sampled_from(["\r", "\n", "\r\n", ",", "&", "|", "${", "$[", ";", "\0", "@", "/", "１", "х", "\u202e", '"', "\\"]), st.integers(0, 13))
def test_one_foreign_character_anywhere_refuses_a_number(foreign: str, at: int) -> None:
    number = "+375296254070"
    with pytest.raises(BadRequest):
        read_phone(number[:at] + foreign + number[at:], "BY")


@pytest.mark.parametrize("number", ["+870773123456", "+88216123456", "+8816123456789", "+883510001234", "+979123456789", "+78091234567", "+19005551234"])
def test_premium_and_satellite_numbers_are_denied_by_default_even_where_everything_is_allowed(number: str) -> None:
    assert code_of(number, dial_rules={"allowed_prefixes": ["+1", "+7", "+8", "+9"]}) == "expensive_number"


def test_an_operator_may_open_such_a_range_by_naming_it() -> None:
    assert code_of("+88216123456", dial_rules={"allowed_prefixes": ["+882"]}) is None
    assert code_of("+19005551234", dial_rules={"allowed_prefixes": ["+1900"]}) is None
    assert code_of("+19005551234", dial_rules={"allowed_prefixes": ["+1"]}) == "expensive_number"


def test_prefixes() -> None:
    assert code_of("+375296254070") is None
    assert code_of("+79161234567") == "prefix_not_allowed"
    assert code_of("+79161234567", dial_rules={"allowed_prefixes": ["+375", "+7"]}) is None
    assert code_of("+375296254070", dial_rules={"allowed_prefixes": []}) == "prefix_not_allowed"
    assert code_of("+375296254070", dial_rules={"denied_prefixes": ["+37529"]}) == "prefix_denied"
    assert code_of("+79161234567", country="RU") is None


@pytest.mark.parametrize(
    ("number", "home", "abroad"),
    [("+79161234567", "RU", "KZ"), ("+77012345678", "KZ", "RU"), ("+77172123456", "KZ", "RU"), ("+18095551234", "DO", "US"), ("+12125551234", "US", "DO")],
)
def test_countries_that_share_a_calling_code_are_abroad_for_each_other(number: str, home: str, abroad: str) -> None:
    assert code_of(number, country=home) is code_of(number, country=abroad) is None, "the prefix is both's"
    assert range_abroad(PhoneNumber(number), home) is None
    assert range_abroad(PhoneNumber(number), abroad) == number[:6]


def test_switched_off_is_off() -> None:
    assert code_of("+375296254070", dial_rules={"enabled": False}) == "dialing_disabled"
    assert code_of("+375296254070", paused=True) == "dialing_disabled"


# -- hours -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "end", "days", "at", "open_"),
    [
        ("09:00", "18:00", (1, 2, 3, 4, 5), "2026-11-20T09:00", True),
        ("09:00", "18:00", (1, 2, 3, 4, 5), "2026-11-20T18:00", False),
        ("09:00", "18:00", (1, 2, 3, 4, 5), "2026-11-20T08:59", False),
        ("09:00", "18:00", (1, 2, 3, 4, 5), "2026-11-21T12:00", False),
        ("22:00", "06:00", (5,), "2026-11-20T23:00", True),
        ("22:00", "06:00", (5,), "2026-11-21T05:59", True),
        ("22:00", "06:00", (5,), "2026-11-21T06:00", False),
        ("22:00", "06:00", (5,), "2026-11-21T22:00", False),
        ("00:00", "00:00", (6,), "2026-11-21T13:00", True),
    ],
)
def test_hours(begin: str, end: str, days: tuple[int, ...], at: str, open_: bool) -> None:
    hours = Hours.model_validate({"from": begin, "to": end, "days": days})
    assert within(hours, datetime.fromisoformat(at)) is open_


def test_hours_and_days_are_those_of_the_enterprises_zone() -> None:
    rules = {"hours": {"from": "12:00", "to": "12:01"}}
    assert code_of("+375296254070", dial_rules=rules) is None
    assert code_of("+375296254070", dial_rules=rules, timezone="Asia/Almaty") == "outside_hours"
    late = datetime(2026, 11, 21, 22, 30, tzinfo=UTC)  # in Minsk the next day has begun
    assert day_began(enterprise(), late).isoformat() == "2026-11-22T00:00:00+03:00"


# -- extensions and PBXs -------------------------------------------------------------------------------------------------------


def test_an_extension_is_of_the_list_or_held_by_a_manager_and_by_pattern_only_where_there_is_neither() -> None:
    listed = enterprise(internal_phones=[{"number": "150"}])
    assert read_extension("150", listed, frozenset()) == "150"
    assert read_extension("777", listed, frozenset({"777"})) == "777"
    assert read_extension("112", enterprise(), frozenset()) == "112"
    for text, where, held in (("112", listed, frozenset()), ("112", enterprise(), frozenset({"150"})), ("1500", enterprise(), frozenset[str]())):
        with pytest.raises(BadRequest, match="is not an extension"):
            read_extension(text, where, held)


@given(st.text(max_size=30).filter(lambda text: text != "150"))
def test_nothing_else_is_an_extension(text: str) -> None:
    with pytest.raises(BadRequest):
        read_extension(text, enterprise(internal_phones=[{"number": "150"}]), frozenset())


def test_the_pbx_is_one_with_a_link_and_rather_one_whose_pattern_fits() -> None:
    pbxs = [
        {"name": "a", "host": "h", "secret": "s", "internal_number": "^2\\d\\d$"},
        {"name": "b", "host": "h", "secret": "s", "internal_number": "^1\\d\\d$"},
    ]
    two = enterprise(pbxs=pbxs)
    assert [getattr(pbx_for(extension, two), "name", None) for extension in ("150", "250", "999")] == ["b", "a", "a"]
    assert pbx_for("150", enterprise(pbxs=[{"name": "posts", "host": "h"}])) is None


def test_a_posting_pbx_is_one_without_a_link() -> None:
    assert getattr(enterprise().posting_view(), "pbx", None) == "posts"
    assert getattr(enterprise(pbxs=[]).posting_view(), "pbx", None) == "posted"
    assert enterprise(pbxs=[{"name": "main", "host": "h", "secret": "s"}]).posting_view() is None


# -- the action ------------------------------------------------------------------------------------------------------------------


def originate(**more: Any) -> Originate:
    base: dict[str, Any] = {
        "channel": "Local/150@inoffice", "context": "inoffice", "phone": "+375296254070", "second": "exten", "shown": "+375296254070",
        "timeout_ms": 30_000, "channel_id": "vochid-click-0123456789", "other_channel_id": "vochid-click-0123456789-2",
    }  # fmt: skip
    return Originate(**{**base, **more})


def test_both_dial_styles_on_the_wire_always_async_with_our_ids() -> None:
    session = Session("u", "s", "prefix", 0)
    session.state = State.READY
    action_id, write = session.send(originate(), 0)
    assert action_id == "vochid-click-0123456789"
    assert write.data == (
        b"Action: Originate\r\nActionID: vochid-click-0123456789\r\nChannel: Local/150@inoffice\r\nContext: inoffice\r\nExten: +375296254070\r\n"
        b'Priority: 1\r\nCallerID: "+375296254070" <+375296254070>\r\nTimeout: 30000\r\nAsync: true\r\nChannelId: vochid-click-0123456789\r\n'
        b"OtherChannelId: vochid-click-0123456789-2\r\n\r\n"
    )
    dial = encode_action(originate(second="dial", variables=(("__VOCHI_LINE", "+375171112233"),)).headers())
    assert b"\r\nApplication: Dial\r\nData: Local/+375296254070@inoffice\r\n" in dial
    assert b"\r\nVariable: __VOCHI_LINE=+375171112233\r\n" in dial
    assert b"Exten" not in dial


HOSTILE = ["\r\nAction: Command", "\n", "\0", ",", "&PJSIP/provider", "|", "${SHELL(id)}", "$[1]", ";", '"', "<", " ", "é"]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", ["channel", "context", "phone", "shown", "channel_id", "other_channel_id"])
def test_no_value_of_an_originate_can_mean_more_than_itself(name: str, hostile: str) -> None:
    good = getattr(originate(), name)
    for value in (good + hostile, hostile + good, hostile):
        with pytest.raises(ActionError):
            originate(**{name: value})


@pytest.mark.parametrize("hostile", [*HOSTILE, "A=1"])
def test_nor_can_a_variable(hostile: str) -> None:
    for variable in ((f"__VOCHI_LINE{hostile}", "1"), ("CALLERID(num)", "1"), ("__VOCHI_LINE", f"1{hostile}")):
        with pytest.raises(ActionError):
            originate(variables=(variable,))


@given(st.text(max_size=40))
def test_whatever_phone_an_originate_takes_it_is_written_as_one_line_each(phone: str) -> None:
    try:
        data = encode_action(originate(phone=phone).headers())
    except ActionError:
        return
    assert data.count(b"\r\n") == len(originate().headers()) + 1
    assert b"$" not in data


def test_a_template_knows_two_words() -> None:
    assert channel_of("PJSIP/{extension}", "150", "inoffice") == "PJSIP/150"
    assert channel_of("Local/{extension}@{context}/n", "150", "inoffice") == "Local/150@inoffice/n"
    with pytest.raises(ValueError):
        enterprise(pbxs=[{"name": "a", "host": "h", "originate_channel": "Local/{other}@x"}])


# -- states ------------------------------------------------------------------------------------------------------------------------


def test_nothing_leads_back_and_the_ends_are_ends() -> None:
    for then, before in COMES_FROM.items():
        assert then not in before
        assert set(before) <= set(OPEN)
    assert moves(Stand.UNKNOWN, Stand.SENT)
    assert not moves(Stand.SENT, Stand.RESERVED)
    assert not moves(Stand.CUSTOMER_ANSWERED, Stand.UNKNOWN)
    assert not moves(Stand.ENDED, Stand.FAILED)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("3", "manager_no_answer"),
        ("5", "manager_busy"),
        ("8", "congestion"),
        ("1", "manager_hung_up"),
        ("0", "manager_unreachable"),
        (None, "manager_unreachable"),
    ],
)
def test_an_originate_response_says_why_the_manager_was_not_reached(reason: str | None, code: str) -> None:
    progress = of_response(False, reason)
    assert (progress.state, progress.code) == (Stand.FAILED, code)
    assert progress.reason
    assert of_response(True, "4") == Progress(Stand.MANAGER_ANSWERED)


def click(result: Result | None, *, picked_up: bool, talked: bool = False) -> Progress:
    legs = (
        Leg("PJSIP/150-1", "150", LegKind.INTERNAL, 1.0, 2.0 if picked_up else None, None, None),
        Leg("PJSIP/provider-1", "+375296254070", LegKind.CUSTOMER, 2.0, 3.0 if talked else None, None, None),
    )
    return of_call(
        a_call(direction=Direction.OUT, legs=legs, result=result, ended_at=9.0 if result else None, answered_at=3.0 if talked else None, click_to_call=True)
    )


def test_a_calls_record_says_how_far_it_came() -> None:
    assert click(None, picked_up=False).state is Stand.SENT
    assert click(None, picked_up=True).state is Stand.MANAGER_ANSWERED
    assert click(None, picked_up=True, talked=True).state is Stand.CUSTOMER_ANSWERED
    assert click(Result.ANSWERED, picked_up=True, talked=True) == Progress(Stand.ENDED)
    assert (click(Result.BUSY, picked_up=True).state, click(Result.BUSY, picked_up=True).code) == (Stand.ENDED, "customer_busy")
    assert (click(Result.NO_ANSWER, picked_up=False).state, click(Result.NO_ANSWER, picked_up=False).code) == (Stand.FAILED, "manager_no_answer")
    for result in Result:
        assert click(result, picked_up=True).state is Stand.ENDED
        assert click(result, picked_up=False).code is not None
