"""amoCRM's ways in: whose token it is and whether it is true, what changed, what an order says."""

from __future__ import annotations

import secrets
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.amocrm.inbound import LEEWAY_S, BadInbound, Clicker, Unproved, claimed, read_changed, read_clicker, read_order

SECRET = "the-integrations-own-secret-of-the-account-0123456789-0123456789"
NOW = 1_800_000_000.0
CLIENT = "2b9f3c1e-7a40-4f0e-9d55-0d6a8a1f0c11"


def token(secret: str = SECRET, algorithm: str = "HS256", without: str = "", **more: Any) -> str:
    claims: dict[str, Any] = {
        "iss": "https://example.amocrm.ru", "aud": "https://pbx.example", "jti": secrets.token_hex(16), "iat": int(NOW), "nbf": int(NOW),
        "exp": int(NOW) + 1800, "account_id": 321, "subdomain": "example", "client_uuid": CLIENT, "user_id": 7031001, "is_admin": False, **more,
    }  # fmt: skip
    claims.pop(without, None)
    return jwt.encode(claims, secret, algorithm=algorithm)


def read(text: str, now: float = NOW, **more: Any) -> Clicker:
    known: dict[str, Any] = {"host": "example.amocrm.ru", "client_id": CLIENT, "audience": "https://pbx.example/amocrm/callback", "account_id": "321"}
    return read_clicker(text, SECRET, now=now, **{**known, **more})


def test_a_true_token_says_who_clicks() -> None:
    good = token()
    assert (claimed(good).host, claimed(good).client_id) == ("example.amocrm.ru", CLIENT)
    assert read(good).user_id == "7031001"
    assert read(token(user_id="7031001", aud=["https://x.example", "https://PBX.example"])).account_id == "321"
    assert read(token(), account_id=None).account_id == "321"
    assert read(token(), now=NOW + 1800 + LEEWAY_S - 1).user_id == "7031001"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (token("another-secret-that-is-as-long-as-the-first"), "refused"),
        (token(algorithm="HS512"), "refused"),
        (jwt.encode({"iss": "https://example.amocrm.ru"}, "", algorithm="none"), "refused"),
        (token(iss="https://other.amocrm.ru"), "another account"),
        (token(iss="https://example.amocrm.ru.evil.example"), "another account"),
        (token(aud="https://other.example"), "another server"),
        (token(aud="http://pbx.example"), "another server"),
        (token(aud=5), "another server"),
        (token(account_id=322), "another account"),
        (token(client_uuid="another"), "another integration"),
        (token(exp=int(NOW) - 61), "expired"),
        (token(nbf=int(NOW) + 61), "expired"),
        (token(user_id="root"), "no user"),
        (token(user_id=True), "no user"),
        (token(jti="x"), "no id"),
        *((token(without=name), "refused") for name in ("iss", "aud", "jti", "iat", "exp", "account_id", "user_id")),
    ],
)
def test_a_token_that_is_not_all_true_proves_nothing(text: str, why: str) -> None:
    with pytest.raises(Unproved, match=why):
        read(text)


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}", fullmatch=True))
def test_whatever_stands_in_the_header_is_refused_and_nothing_more(text: str) -> None:
    with pytest.raises(Unproved):
        claimed(text)
        read(text)


def test_a_changed_contact_names_its_phones_and_anything_else_may_be_anybody() -> None:
    account = [("account[id]", "321"), ("account[subdomain]", "example")]
    contact = [
        ("contacts[update][0][id]", "1001"), ("contacts[update][0][custom_fields][0][values][0][value]", "+375 29 625-40-70"),
        ("contacts[update][0][custom_fields][0][values][1][value]", "someone@shop.example"),
    ]  # fmt: skip
    found = read_changed(account + contact)
    assert (found.account_id, found.phones, found.is_vague) == ("321", ("+375 29 625-40-70",), False)
    assert read_changed([*account, ("leads[responsible][0][id]", "2001")]).is_vague
    assert read_changed([*account, *contact, ("leads[update][0][id]", "2001")]).is_vague
    assert read_changed([*account, ("contacts[delete][0][id]", "1001")]).is_vague
    for wrong in ([], [("account[id]", "x")], [("account[id]", "321")] * 2_001):
        with pytest.raises(BadInbound):
            read_changed(wrong)


def test_an_order_is_read_with_its_phone_in_the_countrys_form() -> None:
    order = read_order(
        {"number": 17, "contact": {"name": " Анна ", "phone": "8 029 625-40-70"}, "lead": {"name": "Заказ", "price": 90}, "note": "позвонить"}, "BY"
    )
    assert order == {
        "number": "17", "contact": {"name": "Анна", "phone": "+375296254070"}, "lead": {"name": "Заказ", "price": 90}, "note": "позвонить",
    }  # fmt: skip
    assert read_order({"number": "A-1", "contact": "Анна"}, "BY") == {"number": "A-1", "contact": {"name": "Анна"}, "lead": {}}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], None), ({}, "number"), ({"number": "", "contact": "x"}, "number"), ({"number": "1"}, "contact"), ({"number": "1", "contact": {}}, "contact"),
        ({"number": "1", "contact": {"phone": "12"}}, "contact.phone"), ({"number": "1", "contact": {"name": 5}}, "contact.name"),
        ({"number": "1", "contact": {"x": "y"}}, "contact.x"), ({"number": "1", "contact": "x", "lead": {"price": "5"}}, "lead.price"),
        ({"number": "1", "contact": "x", "lead": {"price": -5}}, "lead.price"), ({"number": "1", "contact": "x", "note": 5}, "note"),
        ({"number": "1", "contact": "x", "note": "x" * 10_001}, "note"), ({"number": "1", "contact": "x", "more": 1}, "more"),
        ({"number": "1\n2", "contact": "x"}, "number"), ({"number": True, "contact": "x"}, "number"),
    ],
)  # fmt: skip
def test_a_wrong_order_names_its_field(body: Any, field: str | None) -> None:
    with pytest.raises(BadInbound) as refused:
        read_order(body, "BY")
    assert refused.value.field == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner)
)


@given(st.dictionaries(st.sampled_from(["number", "contact", "lead", "note"]), JSON))
def test_no_order_whatsoever_breaks_the_reader(body: Any) -> None:
    try:
        order = read_order(body, "BY")
    except BadInbound:
        return
    assert order["contact"]
