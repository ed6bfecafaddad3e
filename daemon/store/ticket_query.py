"""Which tickets a person looks for, and the SQL that finds them on an index. Pure."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.store.call_query import LAST, MAX_WORDS, TAIL_DIGITS, CallFilter

MAX_FOUND = 2_000  # tickets that one search looks through, the newest
UNCLOSED = "unclosed"
_NUMBER = re.compile(r"\s*(?:№|#)?\s*(\d{1,18})\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class TicketFilter:
    """What is asked for; None: anything. status `unclosed`: open or in progress. `search`: words of the subject, the end of a number, a ticket's id
    here or on the other side."""

    status: str | None = None
    phone: str | None = None
    search: str | None = None
    call: str | None = None


def ticket_conditions(enterprise: str, asked: TicketFilter, words: Sequence[str]) -> tuple[list[str], list[Any]]:
    """Conditions on `support_tickets t` and their arguments, numbered from $1. `words`: of what is searched for, as the database reads it."""
    where, arguments = ["t.enterprise_number = $1"], [enterprise]

    def put(value: Any) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    if asked.status == UNCLOSED:
        where.append("t.status <> 'closed'")
    elif asked.status is not None:
        where.append(f"t.status = {put(asked.status)}")
    if asked.phone is not None:
        where.append(f"t.customer_phone = {put(asked.phone)}")
    if asked.call is not None:
        where.append(
            f"t.id in (select m.ticket_id from support_messages m where m.enterprise_number = $1 and m.call_id = {put(asked.call)}::text::uuid)"
        )  # fmt: skip
    if asked.search is not None:
        where.append(f"t.id in ({_found(asked.search.strip(), words, put)})")
    return where, arguments


def _found(text: str, words: Sequence[str], put: Callable[[Any], str]) -> str:
    """Ids of the tickets, each way on an index of its own."""

    def with_word(condition: str) -> str:
        return f"select ticket_id as id from ticket_words where enterprise_number = $1 and {condition}"

    def beginning(word: str) -> str:
        return with_word(f"word >= {put(word)} and word < {put(word + LAST)}")

    ways = [with_word(f"word = {put('@' + text.lower()[:200])}")]
    if words:
        ways.append(f"({' intersect '.join(beginning(word) for word in words[:MAX_WORDS])})")
    if CallFilter(search=text).searches_number:
        ways.append(beginning("#" + re.sub(r"\D", "", text)[-TAIL_DIGITS:][::-1]))
    if number := _NUMBER.fullmatch(text):
        ways.append(f"select id from support_tickets where enterprise_number = $1 and id = {put(int(number[1]))}")
    if external := _uuid(text):
        ways.append(f"select id from support_tickets where enterprise_number = $1 and external_id = {put(external)}")
    return f"select id from ({' union '.join(ways)}) found order by id desc limit {MAX_FOUND}"


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
