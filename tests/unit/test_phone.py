"""Numbers: what is E.164, what is not a number at all, what may be dialled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model.phone import BadNumber, masked, parse_dial_string, parse_phone, shown_number, to_e164


@pytest.mark.parametrize(
    "text", ["+375296254070", "375296254070", "80296254070", "296254070", "8 029 625-40-70", "+375 (29) 625-40-70", "8~10375296254070".replace("~", "")]
)
def test_every_way_to_write_a_number_is_the_same_number(text: str) -> None:
    assert to_e164(text, "BY") == "+375296254070"


def test_foreign_numbers_are_understood_with_and_without_plus_and_with_the_dial_out_prefix() -> None:
    assert {to_e164(text, "BY") for text in ("+74951234567", "74951234567", "81074951234567")} == {"+74951234567"}


@pytest.mark.parametrize("text", ["anonymous", "Anonymous", "", "<unknown>", "unknown", None, "s"])
def test_a_withheld_number_is_none(text: str | None) -> None:
    assert shown_number(text, "BY") is None


def test_what_cannot_be_e164_keeps_its_digits() -> None:
    assert shown_number("150", "BY") == "150"
    assert shown_number("12-34", "BY") == "1234"


HOSTILE = [
    "+375296254070;ext=1",
    "500&PJSIP/provider/900",
    "＋３７５",
    "٣٧٥٢٩",
    "1" * 40,
    "+",
    "+375\n29",
    "${SHELL(id)}",
    "375296254070,1",
    "tel:+375296254070",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_refused_before_it_is_parsed(text: str) -> None:
    with pytest.raises(BadNumber):
        parse_phone(text, "BY")
    assert to_e164(text, "BY") is None


@given(st.text(max_size=40))
def test_a_parsed_phone_is_always_plus_and_digits(text: str) -> None:
    try:
        number = parse_phone(text, "BY")
    except BadNumber:
        return
    assert number[0] == "+"
    assert number[1:].isascii()
    assert number[1:].isdigit()


@given(st.text(max_size=40))
def test_a_dial_string_holds_nothing_but_keys_of_a_phone(text: str) -> None:
    try:
        dial = parse_dial_string(text)
    except BadNumber:
        return
    assert set(dial) <= set("+0123456789*#")


def test_masking_shows_at_most_the_last_four_digits() -> None:
    assert masked("+375296254070") == "*********4070"
    assert masked("150") == "**0"
    assert masked(None) == "-"
