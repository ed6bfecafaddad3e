"""The pure parts of looking up: names, numbers, the cache, the decision."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.retailcrm.lookup import read_answer
from daemon.calls.view import PbxView
from daemon.lookup.cache import NEGATIVE_TTL_S, STALE_S, Cache, Hit
from daemon.lookup.customer import NoCustomer, customer_number
from daemon.lookup.decision import Decision, Said, Status, choose, verdict
from daemon.lookup.name import caller_name
from daemon.model.crm import Responsible, UserStatus
from daemon.model.device import DeviceState

VIEW = PbxView("0367", "main", internal_number=r"^1\d\d$", lines=("+375171112233",), employee_mobiles=frozenset({"+375291111111"}))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ООО «Восток, север»", "ООО «Восток север»"), ('ООО "Ромашка"', "ООО Ромашка"), ("O'Neil", "ONeil"), ("a;b|c,d", "a b c d"),
        ("two\nlines\r\n", "two lines"), ("back\\slash", "backslash"), ("${SHELL(id)}", "{SHELL(id)}"), ("Пицца 🍕", "Пицца 🍕"),
        ("Anna \u202eevil\u202c \u200fx", "Anna evil x"), ("\x00\x1b[2J", "[2J"), (None, ""), ("", ""), ("x" * 200, "x" * 80),
        ("a" * 79 + " b", "a" * 79), ("half \ud800 char", "half char"), ("a\u2028b\u00a0c", "a b c"),
    ],
)  # fmt: skip
def test_a_name_is_made_fit_for_the_dialplan(name: str | None, expected: str) -> None:
    assert caller_name(name) == expected


@given(st.text(max_size=300))
def test_no_name_carries_what_the_dialplan_gives_a_meaning_to(name: str) -> None:
    shown = caller_name(name)
    assert len(shown) <= 80
    assert not set(shown) & set("\",;|'`\\$\r\n\0")
    assert all(unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in shown)
    assert caller_name(shown) == shown


@pytest.mark.parametrize(
    ("text", "expected"), [("+375296254070", "+375296254070"), ("80296254070", "+375296254070"), ("375296254070", "+375296254070"), ("12345", "12345")]
)
def test_a_customers_number_is_as_calls_and_crms_know_it(text: str, expected: str) -> None:
    assert customer_number(text, [VIEW], "BY") == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no number"), ("anonymous", "no number"), ("150", "extension"), ("+375171112233", "line"), ("375171112233", "line"), ("+375291111111", "mobile"),
        ("80291111111", "mobile"), ("abc", "no number"), ("x" * 10_000, "no number"),
    ],
)  # fmt: skip
def test_who_is_no_customer_is_said(text: str, why: str) -> None:
    with pytest.raises(NoCustomer, match=why):
        customer_number(text, [VIEW], "BY")


def test_an_enterprise_without_a_pbx_has_customers_too() -> None:
    assert customer_number("+375296254070", [], "BY") == "+375296254070"


KEY = ("0367", "retailcrm", "+375296254070")


def test_the_cache_serves_stale_answers_and_forgets_nobody_soon() -> None:
    cache: Cache[str] = Cache()
    cache.put(KEY, "anna", 300, 0.0)
    assert cache.get(KEY, 299) == Hit("anna", True)
    assert cache.get(KEY, 300) == Hit("anna", False)
    assert cache.get(KEY, 300 + STALE_S) is None
    cache.put(KEY, None, 300, 0.0)
    assert cache.get(KEY, NEGATIVE_TTL_S - 1) == Hit(None, True)
    assert cache.get(KEY, NEGATIVE_TTL_S) is None
    cache.put(KEY, "anna", 0, 0.0)
    assert cache.get(KEY, 0.0) is None


def test_the_cache_is_bounded_and_loses_what_was_not_used() -> None:
    cache: Cache[int] = Cache(max_entries=2)
    cache.put(("1", "a", "x"), 1, 300, 0)
    cache.put(("1", "a", "y"), 2, 300, 0)
    cache.get(("1", "a", "x"), 1)
    cache.put(("2", "a", "z"), 3, 300, 0)
    assert len(cache) == 2
    assert cache.get(("1", "a", "y"), 1) is None
    cache.forget({"1"})
    assert len(cache) == 1


def extension_of(source: str, known: Responsible) -> str | None:
    return known.extension


ANNA = Responsible("19", "150", "Олег")
NAMELESS = Responsible("20", "151", None)
ONLY_NAME = Responsible(None, None, "Олег")
LATE = Said("b", failed="no answer in time", is_late=True)


@pytest.mark.parametrize(
    ("said", "extension", "name", "otherwise"),
    [
        ([Said("a", ANNA), Said("b", NAMELESS)], "150", "Олег", Status.UNKNOWN),
        ([Said("a", ONLY_NAME), Said("b", NAMELESS)], "151", "Олег", Status.UNKNOWN),
        ([Said("a"), LATE, Said("c", NAMELESS)], "151", "", Status.UNKNOWN),
        ([Said("a"), Said("b")], None, "", Status.UNKNOWN),
        ([Said("a", ONLY_NAME), LATE], None, "Олег", Status.TIMEOUT),
        ([Said("a", failed="500"), Said("c")], None, "", Status.ERROR),
        ([Said("a", failed="500"), LATE], None, "", Status.TIMEOUT),
        ([], None, "", Status.UNKNOWN),
    ],
)
def test_the_first_source_that_names_somebody_wins(said: list[Said], extension: str | None, name: str, otherwise: Status) -> None:
    choice = choose(said, extension_of)
    assert (choice.extension, choice.name) == (extension, name)
    if extension is None:
        assert verdict(choice, DeviceState.FREE, UserStatus.FREE, False).status is otherwise


@pytest.mark.parametrize(
    ("device", "status", "tried", "expected", "why"),
    [
        (DeviceState.FREE, UserStatus.FREE, False, Status.FOUND, "named by a"),
        (DeviceState.BUSY, UserStatus.FREE, False, Status.BUSY, "150 is busy"),
        (DeviceState.RINGING, UserStatus.FREE, False, Status.BUSY, "150 is ringing"),
        (DeviceState.AWAY, UserStatus.FREE, False, Status.BUSY, "150 is away"),
        (DeviceState.UNKNOWN, UserStatus.FREE, False, Status.BUSY, "150 is unknown"),
        (DeviceState.FREE, UserStatus.DINNER, False, Status.BUSY, "150 has the status dinner"),
        (DeviceState.FREE, UserStatus.BREAK, False, Status.BUSY, "150 has the status break"),
        (DeviceState.FREE, UserStatus.BUSY, False, Status.BUSY, "150 has the status busy"),
        (DeviceState.FREE, UserStatus.FREE, True, Status.BUSY, "150 was tried in this call already"),
    ],
)
def test_only_who_is_reachable_free_and_not_tried_gets_the_call(device: DeviceState, status: UserStatus, tried: bool, expected: Status, why: str) -> None:
    decision = verdict(choose([Said("a", ANNA)], extension_of), device, status, tried)
    assert decision == Decision(expected, "150" if expected is Status.FOUND else None, "Олег", why, "a")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"manager": {"id": 19, "code": "150"}, "customer": {"firstName": "Oleg", "lastName": "P"}}, Responsible("19", "150", "Oleg P")),
        ({"manager": {"id": "19"}}, Responsible("19", None, None)),
        ({"customer": {"firstName": "Oleg"}}, Responsible(None, None, "Oleg")),
        ({"success": True, "links": {}}, None),
        ({"manager": [], "customer": "x"}, None),
        ({"manager": {"id": True, "code": {"a": 1}}, "customer": {"firstName": 7}}, None),
        ({"manager": None, "customer": None}, None),
    ],
)
def test_what_retailcrm_answers_is_read_whatever_its_shape(body: dict[str, object], expected: Responsible | None) -> None:
    assert read_answer(body) == expected
