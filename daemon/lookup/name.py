"""A customer's name made fit for a dialplan variable and a telephone's display. Pure."""

from __future__ import annotations

import unicodedata

MAX_NAME_CHARS = 80

_APART = str.maketrans(dict.fromkeys(",;|", " "))
# What the dialplan, AGI and SIP headers give a meaning to. Guillemets have none and belong to company names.
_GONE = frozenset("\"'`\\$‘’‚‛“”„‟′″")


def caller_name(name: str | None) -> str:
    r"""At most 80 characters without `" , ; |`, quotes, backslashes, control characters, marks of direction and what nothing is assigned to; `,;|` and
    line breaks become a blank. `$` goes too: a dialplan that evaluates the variable must find nothing to expand."""
    text = (name or "")[: MAX_NAME_CHARS * 20].translate(_APART)
    kept = "".join(_kept(character) for character in text)
    return " ".join(kept.split())[:MAX_NAME_CHARS].rstrip()


def _kept(character: str) -> str:
    if character in _GONE:
        return ""
    category = unicodedata.category(character)
    if category in ("Zl", "Zp", "Zs") or character in "\t\n\r\v\f\x85":
        return " "
    return "" if category.startswith("C") else character  # control, direction, surrogates, private use, and what no letter is assigned to
