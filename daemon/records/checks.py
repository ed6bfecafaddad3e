"""What people and programs may write into a record. Pure.

Texts are trimmed; an empty one counts as null. Phones become E.164 by the enterprise's country, an IMEI its digits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import date
from typing import Any

from daemon.errors import VochidError
from daemon.model.crm_record import DATES, FIELDS, REFERENCES, REQUIRED, Fields, RecordType
from daemon.model.phone import to_e164

# Characters. Names and titles as long as Bitrix24's titles, e-mail as RFC 5321 has it.
MOST: Mapping[str, int] = {"name": 255, "number": 100, "type": 100, "role": 100, "description": 10_000, "email": 254, "phone": 40, "imei": 40}
MAX_KEY = 200  # of an idempotency key
BAD = "bad_parameter"
_MAX_ID = 2**63 - 1
_DATE = re.compile(r"(?:19|20|21)\d\d-\d\d-\d\d", re.ASCII)
_EMAIL = re.compile(r"[^\s@<>(),;:\"\[\]\\]{1,64}@(?:[^\s@<>(),;:\"\[\]\\./_]{1,63}\.)+[^\s@<>(),;:\"\[\]\\./_]{2,63}")
# 14 digits without the check digit, 15 with it, 16 with the software's version, 17 as some trackers report it (3GPP TS 23.003, 6.2).
# The check digit is not judged: it is never sent over the air, trackers with a wrong one are sold, and what is on the label must be enterable.
_IMEI = re.compile(r"[0-9]{14,17}", re.ASCII)


def checked(kind: RecordType, sent: Any, country: str, before: Fields | None = None) -> dict[str, Any]:
    """The fields to store: all of a new record, or of a change to `before` those that were sent; null clears one.

    `country`: ISO 3166 alpha-2. Raises VochidError with the `field` at fault.
    """
    if not isinstance(sent, Mapping):
        raise VochidError("the body must be a JSON object", code="bad_body")
    for name in sent:
        if name not in FIELDS[kind]:  # a typo must not silently do nothing
            shown = name[:80].encode("utf-8", "replace").decode()  # half of a surrogate pair can be sent in JSON and not be answered
            raise VochidError(f"{shown} is not a field of this: {', '.join(FIELDS[kind])}", code=BAD, field=shown)
    found = {name: _value(name, value, country) for name, value in sent.items()}
    whole = {**dict.fromkeys(FIELDS[kind]), **(before or {}), **found}
    if whole[REQUIRED[kind]] is None:
        raise VochidError(f"{REQUIRED[kind]} is needed", code=BAD, field=REQUIRED[kind])
    if kind is RecordType.CONTRACT and whole["starts_on"] and whole["ends_on"] and whole["ends_on"] < whole["starts_on"]:
        raise VochidError("ends_on is not before starts_on", code=BAD, field="ends_on")
    return whole if before is None else found


def checked_key(value: Any) -> str | None:
    """An idempotency key, or None. Raises VochidError."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_KEY or not value.isprintable():
        raise VochidError(f"idempotency_key is a text of at most {MAX_KEY} characters", code=BAD, field="idempotency_key")
    return value


def _value(name: str, value: Any, country: str) -> Any:
    if value is None:
        return None
    if name in REFERENCES:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MAX_ID:
            raise VochidError(f"{name} is the id of a record", code=BAD, field=name)
        return value
    if not isinstance(value, str):
        raise VochidError(f"{name} is a text", code=BAD, field=name)
    text = value.replace("\r\n", "\n").strip()
    if len(text) > MOST.get(name, 40):
        raise VochidError(f"{name} has at most {MOST.get(name, 40)} characters", code="too_long", field=name)
    if any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") and not (name == "description" and one in "\n\t") for one in text):
        raise VochidError(f"{name} has characters that cannot be shown", code=BAD, field=name)
    return _READERS.get(name, _as_it_is)(name, text, country) if text else None


def _as_it_is(name: str, text: str, country: str) -> str:
    return text


def _phone(name: str, text: str, country: str) -> str:
    number = to_e164(text, country)
    if number is None:
        raise VochidError(f"{name} is not a phone number of {country} nor an international one", code=BAD, field=name)
    return number


def _email(name: str, text: str, country: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise VochidError(f"{name} is an address like anna@example.com", code=BAD, field=name)
    return text


def _imei(name: str, text: str, country: str) -> str:
    digits = re.sub(r"[ /-]", "", text)
    if not _IMEI.fullmatch(digits):
        raise VochidError(f"{name} has 14 to 17 digits", code=BAD, field=name)
    return digits


def _date(name: str, text: str, country: str) -> str:
    try:
        date.fromisoformat(text if _DATE.fullmatch(text) else "")
    except ValueError:
        raise VochidError(f"{name} is a date, like 2026-11-21", code=BAD, field=name) from None
    return text


_READERS = {"phone": _phone, "email": _email, "imei": _imei, **dict.fromkeys(DATES, _date)}
