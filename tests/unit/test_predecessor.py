"""An enterprise of the predecessor as a document of ours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.retailcrm.config import RetailCrmSettings
from daemon.tenants.document import Enterprise
from daemon.tenants.predecessor import Source, document_of

KINDS: Any = {"retailcrm": RetailCrmSettings}
CONFIG = {
    "retailcrm": {
        "enabled": True, "domain": "example.retailcrm.ru", "api_key": "abcdef", "last_sync": "2025-01-01", "version": 2, "color": "red",
        "user_extensions": {"19": "150", "22": None, "25": "", "31": "150", "40": "bad one"},
    },
    "smart": {"mode": "x"},
}  # fmt: skip


def source(**more: Any) -> Source:
    base = {"number": "0367", "name": "Июнь", "secret": "long-enough", "config": CONFIG, "phones": [("150", "Анна С"), ("151", ""), ("150", "x"), ("abc", "")]}
    return Source(**{**base, **more})


def test_what_can_be_taken_is_and_the_rest_is_named() -> None:
    document, remarks = document_of(source(), KINDS, None)
    assert document == {
        "number": "0367", "name": "Июнь", "paused": False, "pbxs": [], "secret": "long-enough",
        "internal_phones": [{"number": "150", "owner": "Анна С"}, {"number": "151", "owner": ""}],
        "integrations": {"retailcrm": {"enabled": True, "domain": "example.retailcrm.ru", "api_key": "abcdef",
                                       "user_extensions": {"19": "150", "22": None, "25": None, "31": None}}},
    }  # fmt: skip
    Enterprise.model_validate(document)
    assert RetailCrmSettings.model_validate(document["integrations"]["retailcrm"]).domain == "https://example.retailcrm.ru"
    said = "\n".join(remarks)
    assert len(remarks) == 5
    for word in ("'abc'", "color", "extension 150 of user 31", "bad one", "smart"):
        assert word in said
    assert "abcdef" not in said


@pytest.mark.parametrize("secret", ["short", "x" * 201, "with\nline"])
def test_a_secret_that_cannot_be_one_here_is_replaced_with_a_warning(secret: str) -> None:
    document, remarks = document_of(source(secret=secret, config={}, phones=[]), KINDS, None)
    assert "secret" not in document
    assert "random" in remarks[0]
    assert secret not in remarks[0]


def test_what_is_set_here_is_never_overwritten() -> None:
    here = {
        "number": "0367", "name": "Own name", "pbxs": [{"name": "main"}], "secret": {"sealed": "v1:x"}, "internal_phones": [{"number": "150", "owner": "Own"}],
        "integrations": {"retailcrm": {"domain": "https://own.example"}},
    }  # fmt: skip
    document, _ = document_of(source(), KINDS, here)
    assert document == {**here, "internal_phones": [{"number": "150", "owner": "Own"}, {"number": "151", "owner": ""}]}
    assert document_of(source(), KINDS, document)[0] == document


def test_one_that_is_switched_off_is_taken_as_paused() -> None:
    document, remarks = document_of(source(is_active=False, config={}, phones=[], name="  "), KINDS, None)
    assert (document["paused"], document["name"]) == (True, "0367")
    assert "paused" in remarks[0]


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3)
)


short = st.text(max_size=5)


@given(
    st.text(max_size=20), st.none() | st.text(max_size=20), st.dictionaries(st.sampled_from(["retailcrm", "uon"]), json_like),
    st.lists(st.tuples(short, short), max_size=4),
)  # fmt: skip
def test_whatever_lies_there_gives_a_document_and_a_second_run_changes_nothing(
    name: str, secret: str | None, config: dict[str, Any], phones: list[Any]
) -> None:
    first, _ = document_of(source(name=name, secret=secret, config=config, phones=phones), KINDS, None)
    again, _ = document_of(source(name=name, secret=secret, config=config, phones=phones), KINDS, first)
    assert again == first
