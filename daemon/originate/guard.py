"""What may be dialled by click, decided from the enterprise's document alone. Pure; what must be counted is decided in the database."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import phonenumbers

from daemon.errors import VochidError
from daemon.model.phone import BadNumber, PhoneNumber, parse_phone
from daemon.tenants.document import DialRules, Enterprise, Hours, Pbx

# Country codes that lead to satellites, to networks without a country and to the international premium service (ITU E.164 list).
EXPENSIVE_PREFIXES = ("+870", "+878", "+881", "+882", "+883", "+979")
RANGE_LENGTH = 6  # plus and five digits: a country and the beginning of its ranges
EXPENSIVE_TYPES = frozenset({phonenumbers.PhoneNumberType.PREMIUM_RATE, phonenumbers.PhoneNumberType.SHARED_COST})
NAMED_DIGITS = 3  # a prefix that is to open a premium range names at least so many digits after the country code
MAX_PHONE_LENGTH = 40
_EXTENSION = re.compile(r"[0-9*#]{1,16}", re.ASCII)


class BadRequest(VochidError):
    """What was asked for makes no sense here: nobody may dial it."""


class DialRefused(VochidError):
    """The enterprise's dial rules do not allow it."""


def read_phone(text: str, country: str) -> PhoneNumber:
    """The number to dial. Raises BadRequest; no character but those of a written phone number gets any further."""
    if len(text) > MAX_PHONE_LENGTH or not text.isascii() or not text.isprintable():
        raise BadRequest("a phone number is written with digits, spaces, brackets, dots, dashes and one leading plus", code="bad_number", field="phone")
    try:
        return parse_phone(text, country)
    except BadNumber as error:
        raise BadRequest(str(error), code="bad_number", field="phone") from None


def read_extension(text: str, enterprise: Enterprise, assigned: frozenset[str]) -> str:
    """One of the enterprise's extensions: a phone of its list or `assigned` to a CRM user; where neither names any, one of its PBX's
    pattern. Raises BadRequest."""
    known = {phone.number for phone in enterprise.internal_phones} | assigned
    if _EXTENSION.fullmatch(text) and (text in known or (not known and _fits_a_pattern(text, enterprise))):
        return text
    shown = text if _EXTENSION.fullmatch(text) else "this"
    raise BadRequest(f"{shown} is not an extension of this enterprise", code="unknown_extension", field="extension")


def _fits_a_pattern(text: str, enterprise: Enterprise) -> bool:
    return any(re.search(pbx.internal_number, text) for pbx in enterprise.pbxs if pbx.secret is not None)


def pbx_for(extension: str, enterprise: Enterprise) -> Pbx | None:
    """The PBX that `extension` is a phone of: the first with a link whose pattern it fits, else the first with a link."""
    linked = [pbx for pbx in enterprise.pbxs if pbx.secret is not None]
    return next((pbx for pbx in linked if re.search(pbx.internal_number, extension)), linked[0] if linked else None)


def check_rules(number: PhoneNumber, enterprise: Enterprise, now: datetime) -> None:
    """Raises DialRefused with a code: dialing_disabled, outside_hours, prefix_denied, expensive_number, prefix_not_allowed.

    `now` is any aware time.
    """
    rules = enterprise.dial_rules
    if enterprise.paused or not rules.enabled:
        raise DialRefused("calls by click are switched off for this enterprise", code="dialing_disabled")
    if rules.hours is not None and not within(rules.hours, now.astimezone(ZoneInfo(enterprise.timezone))):
        raise DialRefused(f"calls may be placed from {rules.hours.from_} to {rules.hours.to} only", code="outside_hours")
    if denied := next((prefix for prefix in rules.denied_prefixes if number.startswith(prefix)), None):
        raise DialRefused(f"numbers that begin with {denied} may not be dialled", code="prefix_denied", field="phone")
    if is_expensive(number) and not _is_named(number, rules):
        raise DialRefused("premium and satellite numbers may not be dialled", code="expensive_number", field="phone")
    allowed = rules.allowed_prefixes if rules.allowed_prefixes is not None else (own_prefix(enterprise.country),)
    if not number.startswith(allowed):
        raise DialRefused(f"only numbers that begin with {', '.join(allowed) or 'nothing at all'} may be dialled", code="prefix_not_allowed", field="phone")


def own_prefix(country: str) -> str:
    """The country's calling code with its plus."""
    return f"+{phonenumbers.country_code_for_region(country)}"


def is_own(number: PhoneNumber, country: str) -> bool:
    """Whether a number is the country's own. Several share a calling code: +7 is Russia and Kazakhstan, +1 reaches the Caribbean."""
    return number.startswith(own_prefix(country)) and phonenumbers.region_code_for_number(phonenumbers.parse(number)) == country


def range_abroad(number: PhoneNumber, country: str) -> str | None:
    """What a number abroad is counted with: plus and five digits; None for one of the country's own."""
    return None if is_own(number, country) else number[:RANGE_LENGTH]


def is_expensive(number: PhoneNumber) -> bool:
    """Whether a number is premium, shared-cost or satellite."""
    return number.startswith(EXPENSIVE_PREFIXES) or phonenumbers.number_type(phonenumbers.parse(number)) in EXPENSIVE_TYPES


def _is_named(number: PhoneNumber, rules: DialRules) -> bool:
    """Whether an allowed prefix means this very range: a whole country does not open its premium numbers."""
    code = f"+{phonenumbers.parse(number).country_code}"
    least = len(code) + (0 if code in EXPENSIVE_PREFIXES else NAMED_DIGITS)
    return any(number.startswith(prefix) and len(prefix) >= least for prefix in rules.allowed_prefixes or ())


def within(hours: Hours, local: datetime) -> bool:
    """Whether a local time lies in the hours; those that end before they begin last over midnight and belong to the day they began."""
    begin, end, now = time.fromisoformat(hours.from_), time.fromisoformat(hours.to), local.time()
    if begin < end:
        return begin <= now < end and local.isoweekday() in hours.days
    if now >= begin:
        return local.isoweekday() in hours.days
    return now < end and (local - timedelta(days=1)).isoweekday() in hours.days


def day_began(enterprise: Enterprise, now: datetime) -> datetime:
    """When the enterprise's day began, for what is counted per day."""
    return now.astimezone(ZoneInfo(enterprise.timezone)).replace(hour=0, minute=0, second=0, microsecond=0)
