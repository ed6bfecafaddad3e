"""What decides who may do what: roles, codes, throttles, addresses, forms, texts. Pure."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from adapters.registry import adapters
from admin_http.audited import changes
from admin_http.pages.forms import FormField, make_fields, read_fields
from admin_http.pages.routing import safe_next
from admin_http.problems import Forbidden
from admin_http.visitors import must_be_own_page, parse_networks, visitor_of, way_of
from daemon.model.person import Role
from daemon.security import totp
from daemon.security.throttle import Limit, Throttle
from daemon.tenants.document import DialRules, Enterprise, Pbx
from tools.texts import ADMIN, missing

RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(
    ("at", "code"),
    [(59, "94287082"), (1111111109, "07081804"), (1111111111, "14050471"), (1234567890, "89005924"), (2000000000, "69279037"), (20000000000, "65353130")],
)
def test_codes_are_those_of_rfc_6238(at: int, code: str) -> None:
    assert totp.code_at(RFC_SECRET, at // 30, digits=8) == code


def test_a_code_holds_one_step_to_either_side_and_no_longer() -> None:
    secret, now = totp.new_secret(), 1_763_701_800.0
    code = totp.code_at(secret, int(now) // 30)
    for drift, fits in ((-60, False), (-30, True), (0, True), (30, True), (60, False)):
        assert (totp.matching_step(secret, code, now + drift) is not None) is fits
    assert totp.matching_step(secret, code[:3] + " " + code[3:], now) == int(now) // 30
    for wrong in ("", "12345", "абвгде", "1" * 400):
        assert totp.matching_step(secret, wrong, now) is None


@given(st.lists(st.floats(0, 600), min_size=1, max_size=60))
def test_no_key_is_tried_more_often_than_its_bucket_gives(moments: list[float]) -> None:
    limit = Limit(burst=5, refill_s=30)
    throttle, tried = Throttle(limit), 0
    for now in sorted(moments):
        if throttle.wait_s("k", now) == 0:
            throttle.failed("k", now)
            tried += 1
    assert tried <= limit.burst + 600 / limit.refill_s


def test_a_full_throttle_forgets_who_came_longest_ago() -> None:
    throttle = Throttle(Limit(1, 60), max_keys=2)
    for key in ("a", "b", "c"):
        throttle.failed(key, 0)
    assert [throttle.wait_s(key, 0) > 0 for key in ("a", "b", "c")] == [False, True, True]


def test_roles_cover_what_stands_below_them_and_a_cabinet_only_itself() -> None:
    covers = {(one, other): one.covers(other) for one in Role for other in Role}
    assert {pair for pair, does in covers.items() if does} == {
        (Role.SUPER, Role.SUPER), (Role.SUPER, Role.ADMIN), (Role.SUPER, Role.VIEWER), (Role.ADMIN, Role.ADMIN), (Role.ADMIN, Role.VIEWER),
        (Role.VIEWER, Role.VIEWER), (Role.CABINET, Role.CABINET),
    }  # fmt: skip


def a_request(remote: str, **headers: str) -> Any:
    class Transport:
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return (remote, 1) if name == "peername" else default

    return make_mocked_request("POST", "/", headers={name.replace("_", "-"): value for name, value in headers.items()}, transport=Transport())


PROXIES = parse_networks(["127.0.0.1/32", "10.0.0.0/8"])


@pytest.mark.parametrize(
    ("remote", "headers", "address", "takes_cookies", "secure"),
    [
        ("127.0.0.1", {"Host": "127.0.0.1:8019"}, "127.0.0.1", True, False),
        ("127.0.0.1", {"Host": "localhost:8019"}, "127.0.0.1", True, False),
        ("::1", {"Host": "[::1]:8019"}, "::1", True, False),
        ("127.0.0.1", {"Host": "admin.example.com"}, "127.0.0.1", False, False),
        ("192.0.2.7", {"Host": "192.0.2.1:8019"}, "192.0.2.7", False, False),
        ("192.0.2.7", {"Host": "localhost"}, "192.0.2.7", False, False),
        ("192.0.2.7", {"Host": "x", "X_Forwarded_Proto": "https", "X_Forwarded_For": "127.0.0.1"}, "192.0.2.7", False, False),
        ("127.0.0.1", {"Host": "x", "X_Forwarded_Proto": "https", "X_Forwarded_For": "6.6.6.6, 192.0.2.9, 10.0.0.3"}, "192.0.2.9", True, True),
        ("127.0.0.1", {"Host": "localhost", "X_Forwarded_For": "192.0.2.9"}, "192.0.2.9", False, False),
    ],
)
def test_forwarded_headers_count_from_trusted_proxies_only(remote: str, headers: dict[str, str], address: str, takes_cookies: bool, secure: bool) -> None:
    way = way_of(a_request(remote, **headers), PROXIES)
    assert (way.address, way.takes_cookies, way.is_secure) == (address, takes_cookies, secure)
    assert way.cookie("vochid").startswith("__Host-") is secure


def test_ipv6_neighbours_count_as_one_visitor() -> None:
    seen = {visitor_of(request := a_request(f"2001:db8::{n}", Host="x"), way_of(request, ())).address for n in range(1, 5)}
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("headers", "fine"),
    [
        ({"Sec_Fetch_Site": "same-origin"}, True), ({"Sec_Fetch_Site": "none"}, True), ({"Sec_Fetch_Site": "cross-site"}, False),
        ({"Sec_Fetch_Site": "same-site"}, False),
        ({"Origin": "http://127.0.0.1:1"}, True), ({"Origin": "http://evil.example"}, False), ({"Origin": "null"}, False), ({}, True),
    ],
)  # fmt: skip
def test_a_change_that_another_sites_page_asks_for_is_refused(headers: dict[str, str], fine: bool) -> None:
    request = a_request("127.0.0.1", Host="127.0.0.1:1", **headers)
    if fine:
        must_be_own_page(request, way_of(request, PROXIES))
    else:
        with pytest.raises(Forbidden):
            must_be_own_page(request, way_of(request, PROXIES))


@given(st.text(max_size=80) | st.sampled_from(["//evil", "/\\evil", "https://evil", "/e/0367?x=1", "/\tx", "javascript:1"]))
def test_the_way_on_after_a_login_never_leaves_this_site(path: str) -> None:
    onward = safe_next(path)
    assert onward.startswith("/")
    assert URL("http://here.example/").join(URL(onward)).host == "here.example"


def names_of(fields: Any) -> list[FormField]:
    return [inner for field in fields for inner in ([field, *names_of(field.fields)])]


@pytest.mark.parametrize("model", [Pbx, DialRules, Enterprise, *(adapter.settings for adapter in adapters().values())])
def test_every_setting_has_a_field_with_a_word_of_its_own(model: Any) -> None:
    fields = names_of(make_fields(model, {}, skip=("integrations", "lines", "internal_phones", "pbxs")))
    assert fields
    assert len({(field.name, field.kind) for field in fields}) == len(fields)


def test_a_form_gives_back_the_document_that_it_was_made_of() -> None:
    pbx = {
        "name": "main", "host": "pbx.example", "port": 5039, "trunks": ["PJSIP/a", "SIP/b"], "allow_redirect": True,
        "recordings": {"source": "http", "url": "https://pbx/{file}", "username": "u", "password": {"set": True, "last4": "word"}, "retention_days": 30},
    }  # fmt: skip
    form: dict[str, str] = {}
    for field in names_of(make_fields(Pbx, pbx)):
        if field.kind == "toggle":
            form |= {field.name: "on"} if field.value else {}
        elif field.kind == "either":
            form[f"{field.name}.source"] = field.value
        elif field.kind not in ("secret", "group") and field.value is not None:
            form[field.name] = str(field.value)
    read = read_fields(Pbx, form)
    assert "secret" not in read
    assert "password" not in read["recordings"]
    assert Pbx.model_validate(read) == Pbx.model_validate({**pbx, "recordings": {k: v for k, v in pbx["recordings"].items() if k != "password"}})  # type: ignore[attr-defined]


@given(
    st.dictionaries(
        st.sampled_from(["host", "port", "tls", "secret", "recordings.source", "recordings.url", "cdr.source", "cdr.url", "trunks"]), st.text(max_size=30)
    )
)
def test_no_submitted_form_breaks_the_reading(form: dict[str, str]) -> None:
    assert read_fields(Pbx, form)


def test_the_audit_says_what_changed_and_never_a_secret() -> None:
    before = {"name": "a", "secret": {"set": True, "last4": "1111"}, "pbxs": [{"name": "x", "host": "h"}], "lines": [{"number": "1", "name": ""}]}
    after = {"name": "b", "secret": {"set": True, "last4": "2222"}, "pbxs": [], "lines": [{"number": "2", "name": ""}, {"number": "1", "name": ""}]}
    found = changes(before, after)
    assert found["name"] == "a → b"
    assert found["secret"] == "secret changed"
    assert found["lines.2.number"] == "– → 2"
    assert "1111" not in str(found)
    assert not [place for place in found if place.startswith("lines.1.")]


def test_templates_translate_only_literals_by_what_gives_markup() -> None:
    """`_(value)` would show a stranger's text unescaped."""
    for path in ADMIN.rglob("*.html"):
        assert re.findall(r"\b_\([^\"'].{0,20}", path.read_text()) == [], path
        assert re.findall(r"\| *safe\b", path.read_text()) == ([] if path.name != "totp.html" else ["| safe"]), path  # the QR code is ours


def test_russian_has_every_text_that_a_page_may_show() -> None:
    assert missing("ru") == []
