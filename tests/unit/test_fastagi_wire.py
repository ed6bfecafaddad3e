"""FastAGI bytes: every cut gives the same items, every bound holds, nothing goes out that is more than one command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.fastagi.wire import (
    MAX_COMMAND_BYTES,
    MAX_ENV_BYTES,
    MAX_ENV_LINES,
    AgiError,
    AgiReader,
    Answered,
    CommandError,
    HungUp,
    Item,
    Request,
    set_variable,
)

ENV = (
    b"agi_network: yes\nagi_network_script: smart-redirect\nagi_request: agi://127.0.0.1/smart-redirect\nagi_channel: PJSIP/provider-0000001a\n"
    b"agi_uniqueid: 1763701800.12\nagi_callerid: +375296254070\nagi_calleridname: unknown\nagi_enhanced: 0.0\nagi_arg_1: 0367\n\n"
)
USAGE = b"520-Invalid command syntax.  Proper usage follows:\nUsage: SET VARIABLE ...\n520 End of proper usage.\n"
NO_USAGE = b"520 Invalid command syntax.  Proper usage not available.\n"


def read(data: bytes) -> list[Item]:
    return AgiReader().feed(data)


def request(env: bytes) -> Request:
    (found,) = read(env)
    assert isinstance(found, Request)
    return found


def test_the_environment_says_who_calls_and_what_is_asked() -> None:
    asked = request(ENV)
    assert (asked.script, asked.enterprise, asked.phone) == ("smart-redirect", "0367", "+375296254070")
    assert (asked.channel, asked.uniqueid) == ("PJSIP/provider-0000001a", "1763701800.12")


def test_the_enterprise_may_come_in_the_query_and_the_phone_as_an_argument() -> None:
    asked = request(b"agi_network_script: smart-redirect?enterprise=0400\nagi_callerid: 150\n\n")
    assert (asked.script, asked.enterprise, asked.phone) == ("smart-redirect", "0400", "150")
    asked = request(b"agi_network_script: /caller-name/?enterprise=0400\nagi_arg_1: 0367\nagi_arg_2: +375291112233\nagi_arg_3: +375171112233\n\n")
    assert (asked.script, asked.enterprise, asked.phone, asked.line) == ("caller-name", "0367", "+375291112233", "+375171112233")


def test_a_number_that_asterisk_does_not_know_is_none() -> None:
    assert request(b"agi_callerid: unknown\n\n").phone == ""


def test_values_are_utf_8_or_latin_1() -> None:
    assert request("agi_calleridname: Вася\n\n".encode()).env["agi_calleridname"] == "Вася"
    assert request("agi_calleridname: Café\n\n".encode("latin-1")).env["agi_calleridname"] == "Café"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"200 result=1\n", [Answered(200, 1)]),
        (b"200 result=1\r\n", [Answered(200, 1)]),
        (b"200 result=-1\n", [Answered(200, -1)]),
        (b"200 result=1 (a ) value) endpos=0\n", [Answered(200, 1)]),
        (b"510 Invalid or unknown command\n", [Answered(510)]),
        (b"511 Command Not Permitted on a dead channel or intercept routine\n", [Answered(511)]),
        (USAGE, [Answered(520)]),
        (NO_USAGE, [Answered(520)]),
        (b"HANGUP\n", [HungUp()]),
        (b"HANGUP\n200 result=-1\n", [HungUp(), Answered(200, -1)]),
        (b"200 result=1\nHANGUP\n", [Answered(200, 1), HungUp()]),
        (USAGE.replace(b"\nUsage", b"\nHANGUP\nUsage"), [HungUp(), Answered(520)]),
    ],
)
def test_every_form_of_answer_is_understood_and_a_hangup_may_stand_anywhere(line: bytes, expected: list[Item]) -> None:
    assert read(ENV + line)[1:] == expected


@given(st.lists(st.integers(0, len(ENV + USAGE) + 20), max_size=12))
def test_the_items_do_not_depend_on_how_the_stream_was_cut(cuts: list[int]) -> None:
    stream = ENV + b"HANGUP\n" + USAGE + b"200 result=1\n"
    reader, items, at = AgiReader(), [], 0
    for cut in sorted(min(cut, len(stream)) for cut in [*cuts, len(stream)]):
        items += reader.feed(stream[at:cut])
        at = cut
    assert items == read(stream)
    assert len(items) == 4


@pytest.mark.parametrize(
    "stream",
    [
        b"".join(b"agi_x%d: 1\n" % number for number in range(MAX_ENV_LINES + 1)),
        b"".join(b"agi_x%d: 1\n" % number for number in range(10_000)),
        b"agi_x: " + b"x" * MAX_ENV_BYTES,
        b"agi_x: " + b"x" * MAX_ENV_BYTES + b"\n",
        b"agi_a: 1\n" * 2,
        b"agi_callerid: 1\nagi_calleridname: x\nagi_callerid: 2\n\n",
        b"no colon\n",
        b"GET / HTTP/1.1\n",
        ENV + b"whatever\n",
        ENV + b"x" * 20_000,
        ENV + b"520-Usage\n" + b"x\n" * 20_000,
    ],
)
def test_what_is_beyond_a_bound_or_is_no_agi_ends_the_dialogue(stream: bytes) -> None:
    with pytest.raises(AgiError):
        read(stream)


def test_as_many_lines_as_are_allowed_are_allowed() -> None:
    assert len(request(b"".join(b"agi_x%d: 1\n" % number for number in range(MAX_ENV_LINES)) + b"\n").env) == MAX_ENV_LINES


@given(st.binary(max_size=400))
def test_any_bytes_give_items_or_a_clear_error(data: bytes) -> None:
    try:
        items = read(data)
    except AgiError:
        return
    assert all(isinstance(item, (Request, Answered, HungUp)) for item in items)


@given(st.text(max_size=200))
def test_a_value_travels_as_one_command_or_not_at_all(value: str) -> None:
    try:
        command = set_variable("VOCHI_CALLER_NAME", value)
    except CommandError:
        return
    assert command.count(b"\n") == 1
    assert command.endswith(b"\n")
    assert len(command) <= MAX_COMMAND_BYTES
    quoted = command.decode().removeprefix('SET VARIABLE VOCHI_CALLER_NAME "').removesuffix('"\n')
    assert quoted.replace('\\"', '"').replace("\\\\", "\\") == value or "\\" in value


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "x" * 2_000, "\ud800"])
def test_what_cannot_travel_is_refused(value: str) -> None:
    with pytest.raises(CommandError):
        set_variable("VOCHI_X", value)


@pytest.mark.parametrize("name", ["", "A B", "X)", "CALLERID(num)", "A\nB", "1A", "A" * 80])
def test_only_plain_variables_are_set(name: str) -> None:
    with pytest.raises(CommandError):
        set_variable(name, "x")
