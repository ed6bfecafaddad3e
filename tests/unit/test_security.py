"""Secrets at rest, where CRM traffic may go, what logs show."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import SettingsError
from daemon.security.egress import EgressDenied, EgressPolicy
from daemon.security.redact import for_log, redact
from daemon.security.tokens import new_token, same, token_hash
from daemon.security.vault import Vault, VaultError, load_keys

OLD, NEW = "o" * 40, "n" * 40


def test_a_secret_comes_back_and_its_sealed_form_shows_nothing() -> None:
    sealed = Vault([NEW]).seal("hunter2-secret", "0367", "pbxs.main.secret")
    assert "hunter2" not in sealed
    assert Vault([NEW]).open(sealed, "0367", "pbxs.main.secret") == "hunter2-secret"


def test_older_keys_still_open_and_the_newest_seals() -> None:
    sealed = Vault([OLD]).seal("s3cret", "1", "f")
    both = Vault([NEW, OLD])
    assert both.open(sealed, "1", "f") == "s3cret"
    assert not both.is_newest(sealed)
    assert both.is_newest(both.seal("s3cret", "1", "f"))


def test_a_sealed_secret_cannot_be_moved_to_another_enterprise_or_field() -> None:
    vault = Vault([NEW])
    sealed = vault.seal("s3cret", "1", "f")
    for enterprise, field in (("2", "f"), ("1", "g")):
        with pytest.raises(VaultError, match="another place"):
            vault.open(sealed, enterprise, field)


def test_a_missing_key_and_damage_are_told_apart() -> None:
    sealed = Vault([OLD]).seal("s3cret", "1", "f")
    with pytest.raises(VaultError, match="key that is not here"):
        Vault([NEW]).open(sealed, "1", "f")
    with pytest.raises(VaultError, match="damaged"):
        Vault([OLD]).open(sealed[:-6] + "AAAAA=", "1", "f")


def test_a_generated_key_is_made_once_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    first = load_keys(None, None, tmp_path)
    assert load_keys(None, None, tmp_path) == first
    assert (os.stat(tmp_path / "secret_keys").st_mode & 0o777) == 0o600


def test_keys_come_newest_first_from_the_setting_or_its_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{NEW}\n{OLD}\n")
    assert load_keys(f"{NEW}, {OLD}", None, tmp_path) == load_keys(None, tmp_path / "keys", tmp_path) == [NEW, OLD]
    with pytest.raises(SettingsError, match="32 characters"):
        Vault(["short"])


PRIVATE = [
    "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "::1", "::", "fe80::1", "fc00::1", "::ffff:10.0.0.1",
    "64:ff9b::a00:1", "64:ff9b:1::a00:1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:a00:1::", "::127.0.0.1",
    "::ffff:127.0.0.1", "0:0:0:0:0:ffff:7f00:1", "::ffff:0:7f00:1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1", "2001:20::1", "2001:db8::1",
    "3fff::1", "5f00::1", "100::1", "100:0:0:1::1", "4000::1", "fd00:ec2::254", "fe80::1%eth0", "2620:4f:8000::1", "0.1.2.3", "192.0.0.8", "192.0.0.192",
    "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "100.100.100.200", "127.1", "0177.0.0.1",
    "0x7f.0.0.1", "127.0.0.1 ", "8.8.8.8:443", "224.0.0.1", "192.88.99.1", "100.64.0.1", "fec0::1", "ff02::1", "not-an-address", "2130706433",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_and_special_addresses_are_out_of_reach(address: str) -> None:
    assert not EgressPolicy().permits(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2a00:1450:4010::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2606:4700::1111"])
def test_public_addresses_are_within_reach_but_not_by_plain_http(address: str) -> None:
    assert EgressPolicy().permits(address)
    assert not EgressPolicy().permits(address, plain=True)


def test_the_operators_list_opens_exactly_what_it_names() -> None:
    policy = EgressPolicy(["10.0.0.0/24", " fd00::/8"])
    assert policy.permits("10.0.0.7", plain=True)
    assert policy.permits("fd00::1", plain=True)
    assert not policy.permits("10.0.1.7")


def test_the_guard_stands_behind_dns() -> None:
    make = EgressPolicy().socket_factory(plain=False)
    with pytest.raises(EgressDenied):
        make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443)))
    made = EgressPolicy(["127.0.0.0/8"]).socket_factory(plain=True)((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))
    made.close()


BAD_URLS = [
    "https://127.1", "https://0177.0.0.1", "https://0x7f000001", "https://017700000001", "https://127.0.0.1.", "https://①②⑦.0.0.1", "https://[64:ff9b:1::a00:1]",
    "https://[2002:7f00:1::]", "https://169.254.169.254", "https://0", "https://[fe80::1%25eth0]", "https://localhost.", "https://192.0.0.192",
    "http://crm.example", "https://127.0.0.1", "https://localhost", "https://x.localhost", "https://0x7f.1", "https://2130706433", "https://[::1]/",
    "https://[::ffff:10.0.0.1]", "https://user:pw@crm.example", "ftp://crm.example", "https://", "crm.example", "https://crm.example:8443",
    "https://crm.example/\r\nX: y", "https://a b", "https://[bad",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_crm_address_is_refused_when_it_is_entered(url: str) -> None:
    assert EgressPolicy().problem_with(url)


def test_a_lab_address_needs_the_operators_word() -> None:
    assert EgressPolicy(["127.0.0.0/8"]).problem_with("http://127.0.0.1:8080") is None
    assert EgressPolicy(["127.0.0.0/8"]).problem_with("http://10.0.0.1") is not None
    assert EgressPolicy().problem_with("https://example.retailcrm.ru") is None


def test_secrets_are_masked_by_name_and_inside_urls() -> None:
    data = {"api_key": "abcdef", "nested": [{"Authorization": "Bearer x"}], "url": "https://x/?apiKey=abcdef&y=1", "name": "Восток"}
    masked = redact(data)
    assert "abcdef" not in str(masked)
    assert "Bearer" not in str(masked)
    assert masked["name"] == "Восток"
    assert masked["url"].endswith("&y=1")


def test_logs_show_no_phone_number_in_full_and_no_control_characters() -> None:
    line = for_log({"event": "x", "phone": "+375296254070", "text": "call from +375296254070\x1b[31m\u202e", "error": 'phone "375296254070" is bad'})
    assert "296254070" not in str(line)
    assert "\x1b" not in line["text"]
    assert "\u202e" not in line["text"]


@given(st.recursive(st.text(), lambda inner: st.dictionaries(st.sampled_from(["secret", "a", "token"]), inner) | st.lists(inner), max_leaves=20))
def test_redaction_takes_anything_and_is_stable(value: object) -> None:
    assert redact(redact(value)) == redact(value)
    for_log(value)


def test_tokens_are_random_and_compared_by_hash() -> None:
    one, two = new_token(), new_token()
    assert one != two
    assert len(one) > 40
    assert token_hash(one) != token_hash(two)
    assert same(one, one)
    assert not same(one, two)
