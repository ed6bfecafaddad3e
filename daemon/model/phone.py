"""Phone numbers and dial strings: types, never bare str.

Whatever comes from a caller, a CRM or a PBX is hostile: characters are whitelisted before anything is parsed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NewType

import phonenumbers

PhoneNumber = NewType("PhoneNumber", str)  # E.164 with plus
DialString = NewType("DialString", str)  # what may go into an Exten: [+]digits * #

_SENT = re.compile(r"\+?[0-9][0-9 ().-]{0,30}", re.ASCII)
_DIALABLE = re.compile(r"\+?[0-9*#]{1,20}", re.ASCII)
_NOBODY = frozenset({"", "anonymous", "unknown", "<unknown>", "restricted", "private", "unavailable", "withheld", "s"})


class BadNumber(ValueError):
    """The text is no phone number of the given country; its text says why, without repeating all of it."""


def digits_of(text: str) -> str:
    """The ASCII digits of `text`, nothing else."""
    return "".join(character for character in text if character in "0123456789")


@lru_cache(maxsize=16_384)
def to_e164(text: str, country: str) -> PhoneNumber | None:
    """`text` as an E.164 number read in `country` (ISO 3166 alpha-2), or None when it cannot be one.

    National, international with and without plus, and the country's own dial-out prefix are understood.
    """
    text = text.strip()
    if not _SENT.fullmatch(text):
        return None
    candidates = [text] if text.startswith("+") else [text, f"+{digits_of(text)}"]
    for candidate in candidates:
        try:
            parsed = phonenumbers.parse(candidate, country)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(parsed):
            return PhoneNumber(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))
    return None


def shown_number(text: str | None, country: str) -> str | None:
    """A caller's number as the contract stores it: E.164 where it can be, else the digits as sent, None when withheld."""
    if text is None or text.strip().lower() in _NOBODY:
        return None
    return to_e164(text, country) or digits_of(text) or None


def parse_phone(text: str, country: str) -> PhoneNumber:
    """A number that a person or a CRM asks to dial. Raises BadNumber."""
    if not _SENT.fullmatch(text.strip()):
        raise BadNumber("a phone number is written with digits, spaces, brackets, dots, dashes and one leading plus")
    number = to_e164(text, country)
    if number is None:
        raise BadNumber(f"not a valid phone number for {country} nor an international one")
    return number


def parse_dial_string(text: str) -> DialString:
    """What may be put into an Exten or a dial string. Raises BadNumber for anything but +, digits, * and #."""
    if not _DIALABLE.fullmatch(text):
        raise BadNumber("only digits, * and # after an optional plus can be dialled, at most 20 of them")
    return DialString(text)


def masked(number: str | None) -> str:
    """For logs: all but the last four digits hidden, and never more than half of the number shown."""
    if not number:
        return "-"
    keep = min(4, len(number) // 2)
    return "*" * (len(number) - keep) + number[len(number) - keep :]
