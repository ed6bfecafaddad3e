"""One phone number in every form in which callers, PBXs and CRMs write it: for finding all that is stored about it. Pure."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import phonenumbers
from phonenumbers.phonenumberutil import ndd_prefix_for_region

from daemon.model.phone import BadNumber, digits_of, to_e164

MIN_DIGITS = 7  # fewer would meet extensions and parts of other numbers
_BETWEEN = r"[-\s().]*"
_REGIONS_THAT_DIAL = ("BY", "RU", "DE")  # their ways out: 810 or 00


@dataclass(frozen=True, slots=True)
class PhoneForms:
    """`written`: as columns of numbers hold it. `core`: digits that every form has in it. `pattern`: any form in running text, for PostgreSQL's
    regular expressions and for Python's."""

    written: tuple[str, ...]
    core: str
    pattern: str


def forms_of(text: str, country: str) -> PhoneForms:
    """Every form of a number that is read in `country`; of one that is no E.164 number only the digits themselves. Raises BadNumber."""
    if any(not (c.isascii() and (c.isdigit() or c in "+ ().-")) for c in text.strip()):
        raise BadNumber("a phone number is written with digits, spaces, brackets, dots, dashes and one leading plus")
    digits = digits_of(text)
    if not MIN_DIGITS <= len(digits) <= 20:
        raise BadNumber(f"a number to look for has {MIN_DIGITS} to 20 digits: fewer would meet others too")
    number = to_e164(text, country)
    forms = {digits} if number is None else _forms(number, country)
    core = min(forms, key=len)
    listed = sorted(forms, key=lambda form: (-len(form), form))
    return PhoneForms(
        written=tuple(dict.fromkeys([*([number] if number else []), *listed, *("+" + form for form in listed)])),
        core=core,
        pattern=r"(?<![0-9])\+?(?:" + "|".join(_BETWEEN.join(form) for form in listed) + r")(?![0-9])",
    )


def _forms(number: str, country: str) -> set[str]:
    """International, national with and without the trunk prefix, and dialled from abroad; those that do not hold the national number are left out."""
    parsed = phonenumbers.parse(number)
    national = phonenumbers.national_significant_number(parsed)
    found = {digits_of(number), national, digits_of(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL))}
    for region in {country, *_REGIONS_THAT_DIAL}:
        with contextlib.suppress(phonenumbers.NumberParseException):
            found.add(digits_of(phonenumbers.format_out_of_country_calling_number(parsed, region)))
    for exit_code in ("00", "810"):
        found.add(exit_code + digits_of(number))
    prefix = ndd_prefix_for_region(phonenumbers.region_code_for_number(parsed) or country, strip_non_digits=True)
    if prefix:
        found.add(prefix + national)
    return {form for form in found if form.endswith(national) and len(form) >= MIN_DIGITS}
