"""Which calls a person looks for, and the SQL that finds them on an index. Pure.

The text is built from what was asked alone: a condition that is not there costs nothing and cannot spoil the plan.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

TAIL_DIGITS = 9  # a national number: what is left when somebody writes 8 029, 029 or +375 29
MIN_SEARCH_DIGITS = 3
MAX_WORDS = 5
LAST = "\U0010ffff"  # sorts after every letter
_PHONE_LIKE = re.compile(r"[\s()+.\-\d]+")


@dataclass(frozen=True, slots=True)
class CallFilter:
    """What is asked for; None: anything. `search`: the end of a number, or words of the customer's name."""

    since: datetime | None = None
    until: datetime | None = None
    direction: str | None = None
    result: str | None = None
    missed: bool | None = None
    number: str | None = None
    extension: str | None = None
    line: str | None = None
    queue: str | None = None
    search: str | None = None

    @property
    def number_tail(self) -> str | None:
        """The end of a number that is looked for, at most nine digits."""
        text = self.number if self.number is not None else self.search if self.searches_number else None
        digits = re.sub(r"\D", "", text or "")
        return digits[-TAIL_DIGITS:] or None

    @property
    def searches_number(self) -> bool:
        """Whether `search` means a number."""
        text = self.search or ""
        return bool(_PHONE_LIKE.fullmatch(text)) and len(re.sub(r"\D", "", text)) >= MIN_SEARCH_DIGITS

    @property
    def name(self) -> str | None:
        """Words of a name that are looked for."""
        text = (self.search or "").strip()
        return text if text and not self.searches_number else None


def conditions(enterprise: str, asked: CallFilter) -> tuple[list[str], list[Any]]:
    """Conditions on `calls` and their arguments, numbered from $1; names and extensions are found by `termed_calls`."""
    where, arguments = ["enterprise_number = $1"], [enterprise]

    def add(condition: str, *values: Any) -> None:
        places = [f"${len(arguments) + n}" for n in range(1, len(values) + 1)]
        arguments.extend(values)
        where.append(condition.format(*places))

    if asked.since is not None:
        add("started_at >= {0}", asked.since)
    if asked.until is not None:
        add("started_at < {0}", asked.until)
    for column, value in (("direction", asked.direction), ("result", asked.result), ("line", asked.line), ("queue", asked.queue)):
        if value is not None:
            add(column + " = {0}", value)
    if asked.missed is not None:
        where.append("missed" if asked.missed else "not missed")
    if tail := asked.number_tail:
        first, after = tail_range(tail)
        add("customer_number is not null and customer_reversed >= {0} and customer_reversed < {1}", first, after)
    elif asked.number is not None:
        add("customer_number = {0}", asked.number)
    return where, arguments


def termed_calls(enterprise: str, words: Sequence[str], asked: CallFilter, place: tuple[datetime, uuid.UUID] | None) -> tuple[str, list[Any]]:
    """A statement for the calls with a word that begins with each of `words` (MAX_WORDS count) and with the extension, newest first, after `place`."""
    arguments: list[Any] = [enterprise]

    def put(value: Any) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    when = ""
    if asked.since is not None:
        when += f" and started_at >= {put(asked.since)}"
    if asked.until is not None:
        when += f" and started_at < {put(asked.until)}"
    if place is not None:
        when += f" and (started_at, call_id) < ({put(place[0])}::timestamptz, {put(place[1])}::uuid)"
    stretches = [f"word >= {put(word)} and word < {put(word + LAST)}" for word in words[:MAX_WORDS]]
    if asked.extension is not None:
        stretches.append(f"word = {put('#' + asked.extension)}")
    selected = [f"select started_at, call_id as id from call_words where enterprise_number = $1 and {stretch}{when}" for stretch in stretches]
    # One extension's stretch is in order of time already; of a word's beginning a call may have two.
    both = " intersect ".join(selected) if len(selected) > 1 else selected[0] if not words else selected[0].replace("select", "select distinct", 1)
    return f"{both} order by started_at desc, id desc", arguments


def calls_of_numbers(enterprise: str, numbers: Sequence[str], asked: CallFilter, place: tuple[datetime, uuid.UUID] | None, most: int) -> tuple[str, list[Any]]:
    """A statement for the calls of these E.164 numbers, as `termed_calls` gives them, the newest `most` of each number."""
    arguments: list[Any] = [enterprise, [number[::-1] for number in numbers], most]
    where = "enterprise_number = $1 and customer_number is not null and customer_reversed = number"
    for condition, values in (
        ("started_at >= {}", (asked.since,)),
        ("started_at < {}", (asked.until,)),
        ("(started_at, id) < ({}::timestamptz, {}::uuid)", place),
    ):
        if values is not None and None not in values:
            arguments += values
            where += " and " + condition.format(*(f"${n}" for n in range(len(arguments) - len(values) + 1, len(arguments) + 1)))
    # One number after the other: each is a stretch of an index that is in order of time already.
    one = f"select started_at, id from calls where {where} order by started_at desc, id desc limit $3"
    return f"select found.* from unnest($2::text[]) as number, lateral ({one}) as found order by started_at desc, id desc", arguments


def tail_range(digits: str) -> tuple[str, str]:
    """The range of reversed numbers that end in these digits: from the first, before the second."""
    backwards = digits[::-1]
    return backwards, backwards[:-1] + chr(ord(backwards[-1]) + 1)
