"""One number in all the ways it is written, and no other number in any of them."""

from __future__ import annotations

import re

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model.phone import BadNumber
from daemon.model.phone_forms import forms_of

CUSTOMER = "+375296254070"


@pytest.mark.parametrize(
    "written",
    [
        "+375296254070", "375296254070", "80296254070", "8 029 625-40-70", "296254070", "+375 (29) 625 40 70", "00375296254070", "810375296254070",
        "PJSIP/375296254070-0000", '{"phone":"%2B375296254070"}', '{"n": 375296254070}', "CallerIDNum: 80296254070\r\n", "Local/296254070@from-internal;1",
    ],
)  # fmt: skip
def test_every_way_in_which_it_is_written_is_found(written: str) -> None:
    assert re.search(forms_of(CUSTOMER, "BY").pattern, written)
    assert re.search(forms_of("8 029 625-40-70", "BY").pattern, written)


@pytest.mark.parametrize("other", ["+375296254071", "+48296254070", "3752962540700", "1375296254070", "29625407", "+375296254 0701", "296254-0711"])
def test_other_numbers_are_left_alone(other: str) -> None:
    assert not re.search(forms_of(CUSTOMER, "BY").pattern, other)


@pytest.mark.parametrize("text", ["150", "", "anonymous", "+3752962540x0", "1" * 21, "375;drop", "１２３４５６７８"])
def test_what_is_no_number_or_would_meet_others_is_refused(text: str) -> None:
    with pytest.raises(BadNumber):
        forms_of(text, "BY")


@given(st.sampled_from(["BY", "RU", "KZ", "DE", "US", "GB", "EE", "IT"]))
def test_every_form_holds_the_core_and_is_found_by_the_pattern(country: str) -> None:
    example = phonenumbers.example_number_for_type(country, phonenumbers.PhoneNumberType.MOBILE)
    forms = forms_of(phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164), country)
    for kind in (phonenumbers.PhoneNumberFormat.INTERNATIONAL, phonenumbers.PhoneNumberFormat.NATIONAL, phonenumbers.PhoneNumberFormat.E164):
        shown = phonenumbers.format_number(example, kind)
        assert re.search(forms.pattern, shown)
        assert forms.core in "".join(c for c in shown if c.isdigit())
    assert all(re.fullmatch(forms.pattern, one) for one in forms.written)


@given(st.text(max_size=200))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        forms = forms_of(text, "BY")
    except BadNumber:
        return
    assert re.fullmatch(r"[0-9]{6,}", forms.core)
