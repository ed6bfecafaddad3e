"""The cabinet link's token: what opens, and everything that does not."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.security.cabinet import LIFETIME_S, MAX_LENGTH, CabinetLinks
from daemon.security.tokens import TokenOwner
from daemon.security.vault import Vault
from daemon.store.inbound_tokens import InboundTokens
from daemon.store.pool import Database
from daemon.tenants.service import Tenants

OLD, NEW = "o" * 40, "n" * 40
NOW = 1_795_000_000.0


class Memory:
    """The ids in memory, for the pure part."""

    def __init__(self) -> None:
        self.ids: dict[str, TokenOwner] = {}

    async def find(self, token: str, *purposes: str) -> TokenOwner | None:
        owner = self.ids.get(token)
        return owner if owner and owner.purpose in purposes else None

    async def replace(self, owner: TokenOwner, token: str | None, *, overlap_s: float = 0) -> None:
        self.ids = {key: value for key, value in self.ids.items() if value != owner}
        if token is not None:
            self.ids[token] = owner

    async def add(self, owner: TokenOwner, token: str) -> None:
        self.ids[token] = owner

    async def drop(self, owner: TokenOwner, token: str) -> None:
        self.ids.pop(token, None)


def links(memory: Memory | None = None, *keys: str, now: float = NOW) -> CabinetLinks:
    return CabinetLinks(Vault(list(keys) or [NEW]), memory or Memory(), lambda: now)


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


async def test_a_link_opens_its_own_enterprise_and_says_what_it_is_for() -> None:
    cabinet = links()
    token = await cabinet.issue("0367")
    assert await cabinet.find(token) == "0367"
    claims = claims_of(token)
    assert (claims["enterprise_number"], claims["source"], claims["aud"]) == ("0367", "retailcrm", "cabinet")
    assert claims["exp"] - claims["iat"] == LIFETIME_S
    assert jwt.get_unverified_header(token)["alg"] == "HS256"


async def test_a_new_link_ends_the_former_one_and_disturbs_no_other_enterprise() -> None:
    cabinet = links()
    other = await cabinet.issue("0400")
    first = await cabinet.issue("0367")
    second = await cabinet.issue("0367")
    assert [await cabinet.find(token) for token in (first, second, other)] == [None, "0367", "0400"]


async def test_beside_each_other_until_it_is_known_which_one_the_crm_holds() -> None:
    cabinet = links()
    first = await cabinet.issue("0367")
    second = await cabinet.issue_beside("0367")
    assert [await cabinet.find(token) for token in (first, second)] == ["0367", "0367"]
    await cabinet.withdraw("0367", second)
    assert [await cabinet.find(token) for token in (first, second)] == ["0367", None]
    third = await cabinet.issue_beside("0367")
    await cabinet.keep_only("0367", third)
    assert [await cabinet.find(token) for token in (first, third)] == [None, "0367"]


async def test_a_revoked_link_opens_nothing() -> None:
    cabinet = links()
    token = await cabinet.issue("0367")
    await cabinet.revoke("0367")
    assert await cabinet.find(token) is None


async def test_a_link_lives_for_a_year_and_not_a_second_longer() -> None:
    memory = Memory()
    token = await links(memory).issue("0367")
    assert await links(memory, now=NOW + LIFETIME_S - 1).find(token) == "0367"
    assert await links(memory, now=NOW + LIFETIME_S).find(token) is None
    assert await links(memory, now=NOW - 3_600).find(token) is None  # issued in the future


async def test_links_survive_a_new_key_and_die_with_their_own() -> None:
    memory = Memory()
    token = await links(memory, OLD).issue("0367")
    assert await links(memory, NEW, OLD).find(token) == "0367"
    assert await links(memory, NEW).find(token) is None


def forged(claims: dict[str, Any], key: Any = None, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(claims, Vault([NEW]).cabinet_keys[0] if key is None else key, algorithm=algorithm, headers=header or None)


def unsigned(claims: dict[str, Any], algorithm: str) -> str:
    parts = [json.dumps({"alg": algorithm, "typ": "JWT"}), json.dumps(claims)]
    return ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts) + "."


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "session"}, {"aud": None}, {"iss": "somebody"}, {"source": "bitrix24"}, {"source": None}, {"enterprise_number": "0400"},
        {"enterprise_number": None}, {"enterprise_number": 367}, {"enterprise_number": ["0367"]}, {"jti": None}, {"jti": "other-id-than-stored"}, {"jti": 5},
        {"exp": None}, {"exp": "tomorrow"}, {"exp": 9e99}, {"exp": True}, {"iat": None}, {"iat": "x"}, {"exp": int(NOW) - 1},
    ],
    ids=str,
)  # fmt: skip
async def test_no_claim_may_be_missing_or_different_even_when_the_signature_is_ours(change: dict[str, Any]) -> None:
    memory = Memory()
    claims = claims_of(await links(memory).issue("0367"))
    assert await links(memory).find(forged(claims)) == "0367"
    changed = {name: value for name, value in {**claims, **change}.items() if value is not None}
    assert await links(memory).find(forged(changed)) is None


async def test_other_algorithms_and_no_algorithm_are_refused() -> None:
    memory = Memory()
    claims = claims_of(await links(memory).issue("0367"))
    for algorithm in ("none", "None", "NONE", "HS256"):
        assert await links(memory).find(unsigned(claims, algorithm)) is None
    for algorithm in ("HS384", "HS512"):
        long_key = Vault([NEW]).cabinet_keys[0] * 2
        assert await links(memory).find(forged(claims, long_key, algorithm)) is None
    assert await links(memory).find(forged(claims, b"k" * 32)) is None
    assert await links(memory).find(forged(claims, b"k" * 32, jwk={"kty": "oct"}, kid="../../dev/null")) is None


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "x" * (MAX_LENGTH + 1), "ё.ё.ё", "\x00", "eyJhbGciOiJIUzI1NiJ9..", "[" * 900])
async def test_rubbish_is_nobody(text: str) -> None:
    assert await links().find(text) is None


@given(st.text(max_size=1_200))
async def test_any_text_is_nobody_and_raises_nothing(text: str) -> None:
    assert await links().find(text) is None


@given(st.data())
async def test_a_link_with_any_character_changed_opens_nothing_else(data: st.DataObject) -> None:
    memory = Memory()
    token = await links(memory).issue("0367")
    at = data.draw(st.integers(0, len(token) - 1))
    other = token[:at] + data.draw(st.characters(codec="ascii")) + token[at + 1 :]
    assert await links(memory).find(other) in ((None, "0367") if at >= token.rindex(".") or other == token else (None,))


async def test_on_the_real_store_links_belong_to_their_enterprise_and_go_with_it(db: Database, vault: Vault, lab_egress: Any) -> None:
    tenants = Tenants(db, vault, lab_egress, {})
    for number in ("0367", "0400"):
        await tenants.put(number, {"number": number, "name": "x", "pbxs": []})
    cabinet = CabinetLinks(vault, InboundTokens(db, vault), time.time)
    first, other = await cabinet.issue("0367"), await cabinet.issue("0400")
    second = await cabinet.issue("0367")
    assert [await cabinet.find(token) for token in (first, second, other)] == [None, "0367", "0400"]
    third = await cabinet.issue_beside("0367")
    assert [await cabinet.find(token) for token in (second, third)] == ["0367", "0367"]
    await cabinet.withdraw("0367", third)
    assert [await cabinet.find(token) for token in (second, third)] == ["0367", None]
    await cabinet.revoke("0367")
    assert await cabinet.find(second) is None
    await tenants.remove("0400")
    assert await cabinet.find(other) is None
