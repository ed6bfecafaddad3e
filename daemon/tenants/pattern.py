"""Patterns of internal numbers that cannot block: anchors, literals, \\d, classes, counted repeats. Pure."""

from __future__ import annotations

import re
import warnings

MAX_PATTERN_LENGTH = 200
MAX_VARIABLE_REPEATS = 3
MAX_OPTIONALS = 8
_ATOM = re.compile(r"\\[d.+*?()\[\]{}|^$\\/-]|\[\^?(?:\\.|[^\]\\])+\]|[0-9A-Za-z#_.-]|\\[+*]")
_REPEAT = re.compile(r"\{(\d{1,2})(?:,(\d{1,2}))?\}|[?+*]")


def check_pattern(pattern: str) -> str:
    """The pattern itself. Raises ValueError for anything a regular expression could block the event loop with: repeated
    groups, many repeats, back-references, look-around."""
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(f"longer than {MAX_PATTERN_LENGTH} characters")
    position, depth, variable, optional = 0, 0, 0, 0
    after_group = False
    while position < len(pattern):
        rest = pattern[position:]
        if rest[0] in "^$|":
            position, after_group = position + 1, False
        elif rest.startswith("(?:") or (rest[0] == "(" and not rest.startswith("(?")):
            depth, after_group = depth + 1, False
            position += 3 if rest.startswith("(?:") else 1
        elif rest[0] == ")" and depth:
            depth, after_group = depth - 1, True
            position += 1
        elif repeat := _REPEAT.match(rest):
            if after_group or position == 0 or pattern[position - 1] in "^$|(":
                raise ValueError("a repeated group is not allowed, it could block: repeat single digits or classes")
            optional += repeat[0] == "?"
            variable += repeat[0] in ("+", "*") or (repeat[2] is not None and repeat[2] != repeat[1])
            position, after_group = position + repeat.end(), True  # nor may a repeat be repeated
        elif atom := _ATOM.match(rest):
            position, after_group = position + atom.end(), False
        else:
            raise ValueError(f"`{rest[:10]}` is not allowed: use digits, \\d, [classes], {{m,n}} and groups without look-around")
    if variable > MAX_VARIABLE_REPEATS or optional > MAX_OPTIONALS:
        raise ValueError("too many repeats of open length, they could block")
    if depth:
        raise ValueError("a bracket is not closed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # `[a--b]` will mean something else one day
            re.compile(pattern)
    except (re.error, FutureWarning) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern
