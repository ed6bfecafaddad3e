"""Whose extension is whose: the pure part."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import VochidError
from daemon.model.crm import CrmUser
from daemon.tenants.mapping import adopt, alarms, assign, differences, gone, parse_changes

ids = st.sampled_from(["1", "19", "22", "25", "31"])
extensions = st.one_of(st.none(), st.sampled_from(["150", "151", "152", "*9"]))


@st.composite
def mappings(draw: st.DrawFn) -> dict[str, str | None]:
    """A mapping in which no extension stands twice."""
    found: dict[str, str | None] = {}
    for user, extension in draw(st.dictionaries(ids, extensions)).items():
        found[user] = None if extension in found.values() else extension
    return found


users = st.builds(lambda user, extension: CrmUser(user, f"user {user}", True, extension), ids, extensions)
lists_of_users = st.lists(users, unique_by=lambda user: user.id)


def is_one_to_one(mapping: dict[str, str | None]) -> bool:
    held = [extension for extension in mapping.values() if extension]
    return len(held) == len(set(held))


def test_an_extension_that_is_given_to_another_is_taken_from_the_former() -> None:
    assert assign({"19": "150", "22": "151"}, {"22": "150"}) == {"19": None, "22": "150"}
    assert assign({"19": "150", "22": "151"}, {"19": "151", "22": "150"}) == {"19": "151", "22": "150"}
    assert assign({"19": "150"}, {"22": None}) == {"19": "150", "22": None}
    assert assign({"19": "150"}, {"19": None}) == {"19": None}


@given(mappings(), mappings())
def test_after_any_change_every_extension_has_one_manager_and_the_change_is_there(before: dict[str, str | None], changes: dict[str, str | None]) -> None:
    after = assign(before, parse_changes(changes))
    assert is_one_to_one(after)
    assert after.items() >= changes.items()
    assert assign(after, changes) == after
    for user, extension in before.items():
        if user not in changes and extension not in changes.values():
            assert after[user] == extension


@given(mappings(), lists_of_users)
def test_what_is_set_here_survives_the_first_import(before: dict[str, str | None], listed: list[CrmUser]) -> None:
    after = adopt(before, listed)
    assert is_one_to_one(after)
    assert after.items() >= before.items()
    assert adopt(after, listed) == after


@given(mappings(), lists_of_users)
def test_a_crm_that_was_mended_differs_no_more(mapping: dict[str, str | None], listed: list[CrmUser]) -> None:
    mended = [CrmUser(user.id, user.name, user.active, mapping.get(user.id)) for user in listed]
    assert differences(mapping, mended) == []
    assert {difference.user for difference in differences(mapping, listed)} == {user.id for user in listed if user.extension != mapping.get(user.id)}


def test_the_first_import_takes_what_is_free() -> None:
    listed = [CrmUser("19", "a", True, "150"), CrmUser("22", "b", True, "151"), CrmUser("25", "c", True, "not an extension"), CrmUser("31", "d", True, "150")]
    assert adopt({}, listed) == {"19": "150", "22": "151"}
    assert adopt({"25": "151", "19": None}, listed) == {"25": "151", "19": None, "31": "150"}


@pytest.mark.parametrize(
    "sent",
    [None, [], "150", 5, {"19": 1.5}, {"19": True}, {"19": ["150"]}, {"19": {}}, {"19": "15 0"}, {"19": "1" * 17}, {"19": "15\n0"},
     {"19": "+150"}, {"19": "абв"},
     {"": "150"}, {"a b": "150"}, {"x" * 65: "150"}, {"19\r\n": "150"}, {"19": "150", "22": "150"}, {"19": "150", "22": 150}],
    ids=str,
)  # fmt: skip
def test_what_is_no_mapping_is_refused_by_name(sent: Any) -> None:
    with pytest.raises(VochidError) as refused:
        parse_changes(sent)
    assert (refused.value.code, refused.value.field) == ("bad_parameter", "extensions")
    assert len(str(refused.value)) < 200


def test_empty_means_none_and_numbers_are_text() -> None:
    assert parse_changes({"19": "", "22": None, "25": 152, "31": " 153 "}) == {"19": None, "22": None, "25": "152", "31": "153"}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_any_json_gives_a_mapping_or_a_clear_error(sent: Any) -> None:
    try:
        changes = parse_changes(sent)
    except VochidError:
        return
    assert is_one_to_one(changes)


def test_alarms_name_what_somebody_should_look_at() -> None:
    listed = [CrmUser("19", "Anna", True, "150"), CrmUser("22", "Boris"), CrmUser("40", "Darya", False)]
    mapping = {"19": "150", "77": "177", "22": None}
    found = alarms(mapping, listed, {"77": "Egor"}, {"150": 4, "152": 3}, ["150", "152"])
    assert [(alarm["kind"], alarm["user"], alarm["extension"]) for alarm in found] == [
        ("user_gone", "77", "177"), ("no_extension", "22", None), ("unmapped", None, "152"), ("unknown_phone", "77", "177"),
    ]  # fmt: skip
    assert "Egor" in found[0]["detail"]
    assert found[2]["calls"] == 3
    assert alarms({"19": "150", "22": "151"}, listed[:2], {}, {"150": 1}, []) == []


def test_only_who_holds_an_extension_can_be_gone() -> None:
    assert gone({"19": "150", "22": None, "25": "151"}, [CrmUser("25", "c")]) == ["19"]
    assert gone({"19": "150", "25": "151"}, []) == ["19", "25"]
