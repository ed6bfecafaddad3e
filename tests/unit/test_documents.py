"""The enterprise document: what is accepted, what is refused with the field's name, and where its secrets go."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from adapters.retailcrm.config import RetailCrmSettings
from daemon.errors import SettingsError
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.tenants.document import Enterprise
from daemon.tenants.documents import Documents
from daemon.tenants.pattern import check_pattern
from daemon.tenants.secret_fields import collect, is_shown, keep_stored, map_secrets, shown


def document(**more: Any) -> dict[str, Any]:
    return {"number": "0367", "name": "Июнь", "pbxs": [{"name": "main", "host": "127.0.0.1", "secret": "manager-secret"}], **more}


def test_only_number_name_and_pbxs_are_required() -> None:
    assert Enterprise.model_validate({"number": "1", "name": "x", "pbxs": []}).country == "BY"
    for missing in ("number", "name", "pbxs"):
        with pytest.raises(ValidationError):
            Enterprise.model_validate({key: value for key, value in document().items() if key != missing})


@pytest.mark.parametrize(
    "wrong",
    [
        {"unknown": 1}, {"timezone": "Moon/Base"}, {"country": "XX"}, {"number": "a b"}, {"name": ""},
        {"pbxs": [{"name": "a", "host": "h"}, {"name": "a", "host": "h"}]}, {"pbxs": [{"name": "a", "host": "h\r\nx"}]},
        {"pbxs": [{"name": "a", "host": "h", "port": 0}]}, {"pbxs": [{"name": "a", "host": "h", "internal_number": "(a+)+$"}]},
        {"pbxs": [{"name": "a", "host": "h", "secret": "a\nb"}]}, {"pbxs": [{"name": "a", "host": "h", "fastagi_peers": ["x"]}]},
        {"pbxs": [{"name": "a", "host": "h", "originate_channel": "Local/1&PJSIP/2"}]}, {"pbxs": [{"name": "a", "host": "h", "nope": 1}]},
        {"pbxs": [{"name": "a", "host": "h", "recordings": {"source": "ftp"}}]}, {"internal_phones": [{"number": "1"}, {"number": "1"}]},
        {"internal_phones": [{"number": "a&b"}]}, {"dial_rules": {"allowed_prefixes": ["375"]}}, {"smart_redirect": {"mode": "maybe"}},
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Enterprise.model_validate(document(**wrong))


def test_the_contracts_whole_document_is_accepted() -> None:
    whole = document(
        secret="0123456789abcdef", timezone="Europe/Minsk", country="BY", paused=False,
        pbxs=[{
            "name": "main", "host": "127.0.0.1", "port": 5038, "tls": False, "username": "vochid", "secret": "s", "internal_context": "inoffice",
            "inbound_contexts": ["from-trunk"], "trunks": ["PJSIP/provider"], "internal_number": "^1\\d\\d$",
            "originate_channel": "Local/{extension}@{context}", "originate_second": "dial", "allow_redirect": False, "fastagi_peers": ["127.0.0.1/32"],
            "recordings": {"source": "directory", "path": "/rec", "pbx_path": "/var/spool/asterisk/monitor", "retention_days": 365},
            "cdr": {"source": "postgresql", "url": "postgresql://cdr", "table": "cdr"},
        }, {"name": "second", "host": "pbx.example", "recordings": {"source": "http", "url": "https://pbx/rec/{file}", "username": "u", "password": "p"}}],
        lines=[{"number": "+375171112233", "name": "Sales", "default_code": None}], internal_phones=[{"number": "150", "owner": "Reception"}],
        employee_mobiles=["+375291111111"],
        dial_rules={"enabled": True, "allowed_prefixes": ["+375"], "denied_prefixes": [], "per_extension_per_minute": 10, "concurrent": 10, "per_day": 500,
                    "hours": None},
        smart_redirect={"mode": "redirect", "crm": ["retailcrm", "bitrix24"], "cache_ttl_s": 300},
    )  # fmt: skip
    enterprise = Enterprise.model_validate(whole)
    view = enterprise.view(enterprise.pbxs[0])
    assert view.is_extension("150")
    assert not view.is_extension("1500")
    assert view.is_trunk("PJSIP/provider-00000001")
    assert not view.is_trunk("PJSIP/provider2-00000001")
    assert view.line("375171112233") == "+375171112233"


def test_repr_and_json_of_a_document_show_no_secret() -> None:
    enterprise = Enterprise.model_validate(document(secret="enterprise-secret"))
    assert "manager-secret" not in repr(enterprise) + enterprise.model_dump_json()
    assert "enterprise-secret" not in repr(enterprise) + enterprise.model_dump_json()


def test_secrets_are_found_wherever_the_model_nests_them() -> None:
    data = document(secret="a")
    data["pbxs"][0]["recordings"] = {"source": "http", "url": "https://x/{file}", "password": "b"}
    data["pbxs"][0]["cdr"] = {"source": "mysql", "url": "mysql://c"}
    assert collect(Enterprise, data) == {
        "secret": "a", "pbxs.main.secret": "manager-secret", "pbxs.main.recordings.password": "b", "pbxs.main.cdr.url": "mysql://c",
    }  # fmt: skip


def test_a_left_out_or_shown_secret_is_kept_null_clears_and_a_string_replaces() -> None:
    stored = document(secret={"sealed": "v1:a"})
    stored["pbxs"][0]["secret"] = {"sealed": "v1:b"}
    sent = document(secret={"set": True, "last4": "cdef"})
    del sent["pbxs"][0]["secret"]
    kept = keep_stored(Enterprise, sent, stored)
    assert kept["secret"] == {"sealed": "v1:a"}
    assert kept["pbxs"][0]["secret"] == {"sealed": "v1:b"}
    assert keep_stored(Enterprise, document(secret=None), stored)["secret"] is None
    assert keep_stored(Enterprise, document(secret="new"), stored)["secret"] == "new"


def test_a_pbxs_secret_follows_its_name_not_its_place() -> None:
    stored = document(pbxs=[{"name": "a", "host": "h", "secret": {"sealed": "1"}}, {"name": "b", "host": "h", "secret": {"sealed": "2"}}])
    kept = keep_stored(Enterprise, document(pbxs=[{"name": "b", "host": "h"}, {"name": "c", "host": "h"}]), stored)
    assert kept["pbxs"][0]["secret"] == {"sealed": "2"}
    assert "secret" not in kept["pbxs"][1]


def test_what_a_row_written_by_sql_leaves_out_is_shown_as_it_counts() -> None:
    shown_document = Documents(Vault(["k" * 40]), EgressPolicy(), {}).shown({"number": "0367", "name": "Июнь", "timezone": "Europe/Vilnius"})
    assert (shown_document["number"], shown_document["timezone"], shown_document["integrations"]) == ("0367", "Europe/Vilnius", {})
    assert shown_document["smart_redirect"] == {"mode": "redirect", "crm": None, "cache_ttl_s": 300}
    assert shown_document["dial_rules"]["abroad"]["per_day"] == 50
    assert shown_document["lines"] == []
    assert "secret" not in shown_document


def test_a_short_secret_shows_nothing_of_itself() -> None:
    assert shown("short") == {"set": True, "last4": ""}
    assert shown("0123456789abcdef") == {"set": True, "last4": "cdef"}
    assert is_shown(shown("x"))
    assert map_secrets(Enterprise, document(), lambda value, _: shown(value))["pbxs"][0]["secret"]["set"]


def retailcrm(**more: Any) -> RetailCrmSettings:
    raw = {"domain": "https://example.retailcrm.ru/", "api_key": "key", **more}
    return RetailCrmSettings.model_validate(raw, context={"egress": EgressPolicy()})


def test_an_integrations_settings_have_their_defaults() -> None:
    settings = retailcrm()
    assert settings.domain == "https://example.retailcrm.ru"
    assert settings.enabled
    assert settings.send.journal
    assert isinstance(settings.api_key, SecretStr)


@pytest.mark.parametrize(
    "wrong",
    [
        {"domain": "http://example.retailcrm.ru"}, {"domain": "https://10.0.0.1"}, {"api_key": "a\nb"}, {"api_key": "ключ"}, {"nope": 1},
        {"mode": "dry"}, {"user_extensions": {"1": "150", "2": "150"}}, {"send": {"fax": True}}, {"timezone": "x"}, {"rules": [{"do": "dance"}]},
    ],
)  # fmt: skip
def test_a_wrong_integration_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        retailcrm(**wrong)


@pytest.mark.parametrize("pattern", [r"^1\d\d$", r"^\d{2,4}$", r"^(1|2)\d{2}$", r"^[12]\d\d$", r"^\+?\d{3}$", r"^(?:10[0-9]|2\d\d)$"])
def test_patterns_of_internal_numbers_are_accepted(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"^(\d*)*$", r"(?=x)", r"(\d+){3}", r"\1", r"(a|a)*", r"\d+\d+\d+\d+", "a**", "+", "(", "[", r"\w", "[0--9]"])
def test_patterns_that_could_block_or_mean_something_else_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError):
        check_pattern(pattern)


@given(st.text(alphabet=r"^$()|?+*{}[]\d,0129ab-", max_size=24), st.text(alphabet="0129ab", max_size=32))
def test_an_accepted_pattern_is_quick_on_every_number(pattern: str, number: str) -> None:
    import re
    import time

    try:
        checked = re.compile(check_pattern(pattern))
    except ValueError:
        return
    started = time.process_time()
    checked.search(number)
    assert time.process_time() - started < 5.0


@pytest.mark.parametrize("where", ["pbxs", "integrations"])
def test_half_of_a_character_is_refused_with_a_word(where: str) -> None:
    documents = Documents(Vault(["k" * 40]), EgressPolicy(), {"retailcrm": RetailCrmSettings})
    half = {"pbxs": [{"name": "a", "host": "h", "internal_number": "\udcff"}]} if where == "pbxs" else {"integrations": {"retailcrm": {"domain": "\udcff"}}}
    with pytest.raises(SettingsError):
        documents.merged({**document(), **half}, None)
