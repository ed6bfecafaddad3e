"""What checks and errors say, in Russian: forms with holes, sentences in sentences, strangers' words left alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.registry import adapters
from adapters.retailcrm.client import interpret
from admin_http.app import ROUTES
from admin_http.problems import from_error
from admin_http.sentences import Form, Sentences
from admin_http.texts import sentences
from daemon.errors import NotFound
from daemon.originate.guard import DialRefused
from tools.sentences import sentences as forms_in_the_code
from tools.texts import ADMIN, read_catalogue, translated

RUSSIAN = sentences("ru")
KNOWN = Sentences({
    "there is no enterprise %(1)s": "предприятия %(1)s нет",
    "PBX %(1)s: %(2)s": "%(2)s (АТС %(1)s)",
    "no answer": "нет ответа",
    "no answer within %(1)s s": "нет ответа за %(1)s с",
    "%(1)s (and %(2)s more)": "%(1)s (и ещё %(2)s)",
})  # fmt: skip


@pytest.mark.parametrize(
    ("english", "russian"),
    [
        ("there is no enterprise 0367", "предприятия 0367 нет"),
        ("no answer", "нет ответа"),
        ("no answer within 25 s", "нет ответа за 25 с"),
        ("PBX main: no answer", "нет ответа (АТС main)"),
        ("no answer; there is no enterprise 1; Telephony not enabled", "нет ответа; предприятия 1 нет; Telephony not enabled"),
        ("no answer (and 2 more)", "нет ответа (и ещё 2)"),
        ("Telephony not enabled", "Telephony not enabled"),
        ("there is no enterprise %(1)s", "предприятия %(1)s нет"),
        ("", ""),
        ("there is no enterprise " + "x" * 2_000, "there is no enterprise " + "x" * 2_000),
    ],
)
def test_a_sentence_is_said_by_the_form_it_was_made_by(english: str, russian: str) -> None:
    assert KNOWN.say(english) == russian


@given(st.lists(st.text("ab %()1s:", max_size=5), min_size=2, max_size=4), st.lists(st.text("xy", max_size=6), min_size=3, max_size=3))
def test_what_a_form_makes_it_knows_again(between: list[str], values: list[str]) -> None:
    form = Form(tuple(between), tuple("123"[: len(between) - 1]), "")
    made = between[0] + "".join(value + piece for value, piece in zip(values, between[1:], strict=False))
    found = form.values(made)
    assert found is not None
    assert between[0] + "".join(found[hole] + piece for hole, piece in zip(form.holes, between[1:], strict=True)) == made


@given(st.text(max_size=300))
def test_whatever_strangers_say_comes_through(text: str) -> None:
    assert isinstance(RUSSIAN.say(text), str)
    assert sentences("en").say(text) == text


def test_hostile_repetition_takes_no_time_worth_a_name() -> None:
    assert RUSSIAN.say("a: " * 333) == "a: " * 333  # linear: a pattern that backtracks would not come back


def test_every_sentence_that_the_code_can_say_has_its_russian() -> None:
    have = translated("ru")
    missing = {form: where for form, where in forms_in_the_code() if form not in have}
    assert missing == {}


def test_a_text_stands_in_one_catalogue_only() -> None:
    """The catalogues become one: of a text that stood in two, one translation would be lost without a word."""
    where: dict[str, list[str]] = {}
    for path in sorted((ADMIN / "locales" / "ru").glob("*.po")):
        for message in read_catalogue(path):
            where.setdefault(message, []).append(path.name)
    assert {text: files for text, files in where.items() if len(files) > 1} == {}


def test_a_translation_keeps_the_holes_of_its_form() -> None:
    hole = re.compile(r"%\(\d\)s")
    for form in RUSSIAN._forms:
        assert set(hole.findall(form.other)) <= {f"%({name})s" for name in form.holes}, form
        assert re.search("[А-Яа-яё]", form.other), form


def test_the_extractor_sees_literals_values_choices_and_kept_reasons() -> None:
    forms = {form for form, _ in forms_in_the_code()}
    assert "there is no integration %(1)s; there are: %(2)s" in forms  # an error with values
    assert "calls by click are switched off for this enterprise" in forms
    assert "panoramisk is refused" in forms  # one of two
    assert "nothing is sent in mode observe" in forms  # kept under a name
    assert "%(1)s is switched off: enable it first" in forms  # returned
    assert not any(re.search(r"\bselect\b|\bwhere\b", form) for form in forms)


def test_a_crm_that_refuses_the_key_is_told_in_russian() -> None:
    from adapters.http import Response

    refused = interpret(Response(403, {}, '{"success": false, "errorMsg": "Wrong \\"apiKey\\" value."}'))
    assert RUSSIAN.say(refused.reason) == "403: неверный ключ API."  # type: ignore[union-attr]
    assert "retailcrm" in adapters()


def test_only_a_page_is_told_in_a_persons_language() -> None:
    import json

    error = DialRefused("numbers that begin with +7 may not be dialled", code="prefix_denied")
    told = json.loads(from_error(error, "ru").text or "")
    assert told["detail"] == str(error)
    assert told["said"] == "на номера, которые начинаются с +7, звонить нельзя"
    assert "said" not in json.loads(from_error(NotFound("there is no such call")).text or "")


def test_a_button_that_waits_for_a_route_names_one_that_there_is() -> None:
    """A button is shown where its route is served: a misspelt one would never be."""
    served = {(route.method, path) for route in ROUTES for path in route.paths}
    for path in (ADMIN / "pages").glob("*.py"):
        source = path.read_text("utf-8")
        for method, wanted in re.findall(r'has_route\(visit, "(\w+)", "([^"]+)"\)', source):
            assert (method, wanted) in served, f"{Path(path).name}: {method} {wanted}"
