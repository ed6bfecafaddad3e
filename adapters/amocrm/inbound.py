"""What comes from amoCRM by itself: a widget's click with its one-time token, changes told by webhook; and orders of other programs.
Pure: text in, a value out, nothing believed before it is checked.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import jwt

from daemon.model.phone import digits_of, to_e164

LEEWAY_S = 60.0  # between the CRM's clock and ours
MAX_TOKEN = 4_000
MAX_TEXT = 250
MAX_NOTE = 10_000
MAX_PAIRS = 2_000
MAX_PHONES = 100
_CLAIMS = ("iss", "aud", "jti", "iat", "exp", "account_id", "user_id")
_PHONE = re.compile(r"contacts\[\w+\]\[\d+\]\[custom_fields\]\[\d+\]\[values\]\[\d+\]\[value\]")
_CHANGE = re.compile(r"(contacts|leads|companies)\[(\w+)\]\[\d+\]\[\w+\]")


class BadInbound(ValueError):
    """What was sent makes no sense; `field` is the one at fault."""

    def __init__(self, message: str, field: str | None = None, code: str = "bad_parameter") -> None:
        super().__init__(message)
        self.field = field
        self.code = code


class Unproved(ValueError):
    """The token proves nothing; says why."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """Which account and integration a token says it is of; nothing of it is checked yet."""

    host: str
    client_id: str | None


@dataclass(frozen=True, slots=True)
class Clicker:
    """A user of the account who clicks, proved. `token_id` is another one for every token."""

    user_id: str
    token_id: str
    account_id: str


@dataclass(frozen=True, slots=True)
class Changed:
    """What changed in the account. `phones`: those of changed contacts, as they were told; `is_vague`: somebody else may have
    another responsible user too, so that nothing that is remembered of the account counts any more."""

    account_id: str
    phones: tuple[str, ...] = ()
    is_vague: bool = field(default=False)


def is_switched_off(account_id: str, client_id: str, signature: str, secret: str) -> bool:
    """Whether the account itself says that the integration was switched off there: HMAC-SHA256 of `client_id|account_id`. It says so again
    whenever the same address is called again, so that nothing may be believed of it but that it is time to look."""
    proof = hmac.new(secret.encode(), f"{client_id}|{account_id}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()
    return hmac.compare_digest(proof.encode(), signature.lower().encode("utf-8", "replace"))


# -- the widget's token ------------------------------------------------------------------------------------------------------------


def claimed(token: str) -> Claimed:
    """Whose secret the token is to be checked with. Raises Unproved."""
    if not token or len(token) > MAX_TOKEN:
        raise Unproved("there is no token in X-Auth-Token")
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unproved("X-Auth-Token is no token") from None
    issuer, client = claims.get("iss"), claims.get("client_uuid")
    return Claimed(_host(issuer), client if isinstance(client, str) else None)


def read_clicker(token: str, secret: str, *, host: str, client_id: str, audience: str, account_id: str | None, now: float) -> Clicker:
    """Who clicks. Checked: signature, issuer, audience (scheme and host of the integration's redirect address), account, integration,
    times. `account_id`: None while it is not known. Raises Unproved."""
    try:
        claims = jwt.decode(
            token, secret, algorithms=["HS256"],
            options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False, "verify_iss": False, "require": list(_CLAIMS)},
        )  # fmt: skip
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise Unproved(f"the token is refused: {str(error)[:100]}") from None
    if _host(claims["iss"]) != host:
        raise Unproved("the token is of another account")
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    if not any(isinstance(one, str) and _origin(one) == _origin(audience) for one in audiences):
        raise Unproved("the token is for another server")
    if claims.get("client_uuid", client_id) != client_id:
        raise Unproved("the token is of another integration")
    if account_id is not None and str(claims["account_id"]) != account_id:
        raise Unproved("the token is of another account")
    begins, ends = _number(claims.get("nbf", claims["iat"])), _number(claims["exp"])
    if begins is None or ends is None or not begins - LEEWAY_S <= now < ends + LEEWAY_S:
        raise Unproved("the token has expired")
    user, token_id = claims["user_id"], claims["jti"]
    if isinstance(user, bool) or not isinstance(user, (int, str)) or not str(user).isdecimal() or len(str(user)) > 20:
        raise Unproved("the token names no user")
    if not isinstance(token_id, str) or not 8 <= len(token_id) <= 100 or not token_id.isprintable():
        raise Unproved("the token has no id")
    return Clicker(str(user), token_id, str(claims["account_id"]))


def _host(issuer: Any) -> str:
    """The account's host out of an issuer, which is its address."""
    text = issuer if isinstance(issuer, str) else ""
    try:
        return urlsplit(text if "://" in text else f"https://{text}").netloc.lower()
    except ValueError:
        return ""


def _origin(address: str) -> tuple[str, str]:
    try:
        parts = urlsplit(address)
    except ValueError:
        return ("", address)
    return (parts.scheme.lower(), parts.netloc.lower())


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


# -- webhooks ----------------------------------------------------------------------------------------------------------------------


def read_changed(pairs: list[tuple[str, str]]) -> Changed:
    """A webhook's form, `{entity}[{action}][{n}][field]`. A changed contact names its phones; a contact that is gone, or a lead, does
    not. Raises BadInbound."""
    if len(pairs) > MAX_PAIRS:
        raise BadInbound(f"more than {MAX_PAIRS} fields")
    account = next((value for name, value in pairs if name == "account[id]"), "")
    if not account.isdecimal() or len(account) > 20:
        raise BadInbound("account[id] is missing", "account")
    phones = tuple(dict.fromkeys(value for name, value in pairs if _PHONE.fullmatch(name) and 5 <= len(digits_of(value)) <= 20))
    kinds = {(found[1], found[2]) for name, _ in pairs if (found := _CHANGE.match(name))}
    is_known = bool(phones) and all(kind == "contacts" and action in ("add", "update", "responsible") for kind, action in kinds)
    return Changed(account, phones[:MAX_PHONES], not is_known or len(phones) > MAX_PHONES)


# -- orders ------------------------------------------------------------------------------------------------------------------------


def read_order(body: Any, country: str) -> dict[str, Any]:
    """{number, contact {name, phone, email}, lead {name, price, …}, note}: an order to be made in the CRM. `contact` needs a name or a
    phone; `contact` and `lead` may be a bare name. Raises BadInbound naming the field."""
    if not isinstance(body, dict):
        raise BadInbound("the body is an object with number and contact", code="bad_json")
    if unknown := next((name for name in body if name not in ("number", "contact", "lead", "note")), None):
        raise BadInbound(f"there is no field {unknown[:50]}", unknown[:50])
    number = body.get("number")
    number = str(number) if isinstance(number, int) and not isinstance(number, bool) else number
    if not isinstance(number, str) or not 1 <= len(number) <= 64 or not number.isprintable() or not number.strip():
        raise BadInbound("number is the order's number, 1 to 64 characters", "number", "missing_parameter" if number is None else "bad_parameter")
    order: dict[str, Any] = {"number": number, "contact": _contact(body.get("contact"), country), "lead": _lead(body.get("lead"))}
    note = body.get("note")
    if note is not None and (not isinstance(note, str) or len(note) > MAX_NOTE):
        raise BadInbound(f"note is a text of at most {MAX_NOTE} characters", "note")
    return order | ({"note": note} if note and note.strip() else {})


def _contact(value: Any, country: str) -> dict[str, str]:
    given = _object({"name": value} if isinstance(value, str) else value, "contact", ("name", "phone", "email"))
    found = {name: text for name in ("name", "email") if (text := _text(given, name, "contact"))}
    if sent := _text(given, "phone", "contact"):
        phone = to_e164(sent, country) or digits_of(sent)
        if not 5 <= len(digits_of(phone)) <= 15:
            raise BadInbound("phone is no phone number", "contact.phone")
        found["phone"] = phone
    if not found.get("name") and not found.get("phone"):
        raise BadInbound("the contact has neither a name nor a phone", "contact", "missing_parameter")
    return found


def _lead(value: Any) -> dict[str, Any]:
    numbers = ("price", "pipeline_id", "status_id", "responsible_user_id")
    given = _object({"name": value} if isinstance(value, str) else value or {}, "lead", ("name", *numbers))
    found: dict[str, Any] = {"name": text} if (text := _text(given, "name", "lead")) else {}
    for name in numbers:
        number = given.get(name)
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 10**12:
            raise BadInbound(f"{name} is a whole number", f"lead.{name}")
        found[name] = number
    return found


def _object(value: Any, field: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadInbound(f"{field} is an object with {', '.join(names)}", field, "missing_parameter" if value is None else "bad_parameter")
    if unknown := next((name for name in value if name not in names), None):
        raise BadInbound(f"there is no field {unknown[:50]}", f"{field}.{unknown[:50]}")
    return value


def _text(given: Mapping[str, Any], name: str, field: str) -> str:
    value = given.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise BadInbound(f"{name} is a text of at most {MAX_TEXT} characters", f"{field}.{name}")
    return value.strip()
