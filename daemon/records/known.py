"""Whom a caller's number belongs to, and what it is called. Thin shell: what was read is kept for a moment, for all who look.

A call that nobody gave a name gets that of the user, or else of the company, with its number; where people look, also what a CRM
called the number when it was asked lately, or else the name that its calls were shown with last.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

import asyncpg

from daemon.model.crm_record import KnownAs

FRESH_S = 10.0  # a record changed by another daemon, or by its sync, shows after this; one changed here, at once
MAX_KEPT = 20_000
AT_ONCE = 500  # numbers in one statement
LIVE_DEADLINE_S = 2.0  # the live board waits no longer for a name

T = TypeVar("T")
Known = Mapping[str, Sequence[KnownAs]]
_Key = tuple[str, int, str]  # enterprise, edition of its records, number


class Reads(Protocol):
    """Where it is read from: daemon.store.known_customers."""

    async def find(self, enterprise: str, numbers: Sequence[str]) -> Mapping[str, Sequence[KnownAs]]: ...


class Said(Protocol):
    """What CRMs said of numbers when they were asked; nobody is asked for it: daemon.lookup.service."""

    def known_names(self, enterprise: str, numbers: Iterable[str]) -> Mapping[str, str]: ...


class Past(Protocol):
    """What the calls so far tell: daemon.store.past_calls."""

    async def names(self, enterprise: str, numbers: Collection[str]) -> Mapping[str, str]: ...


class Kept(Generic[T]):
    """What `read` gives for an enterprise's numbers, for FRESH_S. Beyond MAX_KEPT numbers those that were read first go."""

    def __init__(self, read: Callable[[str, Sequence[str]], Awaitable[Mapping[str, T]]], now: Callable[[], float]) -> None:
        self._read_numbers = read
        self._now = now
        self._kept: OrderedDict[_Key, tuple[float, T | None]] = OrderedDict()
        self._edition: dict[str, int] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._kept)

    async def find(self, enterprise: str, numbers: Iterable[str | None]) -> Mapping[str, T]:
        """What is known of these E.164 numbers. Whoever asks for the same at the same time reads once."""
        edition = self._edition.get(enterprise, 0)
        wanted = {(enterprise, edition, number) for number in numbers if number is not None and number.startswith("+")}
        if self._missing(wanted):
            lock = self._locks.setdefault(enterprise, asyncio.Lock())
            async with lock:
                missing = sorted(self._missing(wanted))
                for first in range(0, len(missing), AT_ONCE):
                    await self._read(enterprise, missing[first : first + AT_ONCE])
        kept = ((key[2], self._kept.get(key)) for key in wanted)
        return {number: entry[1] for number, entry in kept if entry is not None and entry[1]}

    def forget(self, enterprise: str) -> None:
        """All of this enterprise is read anew."""
        self._edition[enterprise] = self._edition.get(enterprise, 0) + 1

    def _missing(self, keys: Iterable[_Key]) -> set[_Key]:
        now = self._now()
        return {key for key in keys if (entry := self._kept.get(key)) is None or now >= entry[0]}

    async def _read(self, enterprise: str, keys: Sequence[_Key]) -> None:
        found, until = await self._read_numbers(enterprise, [number for *_, number in keys]), self._now() + FRESH_S
        for key in keys:
            self._kept.pop(key, None)
            self._kept[key] = (until, found.get(key[2]))
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


class Callers:
    """One for all enterprises."""

    def __init__(self, reads: Reads, said: Said, past: Past, now: Callable[[], float] = time.monotonic) -> None:
        self._records: Kept[Sequence[KnownAs]] = Kept(reads.find, now)
        self._said = said
        self._past: Kept[str] = Kept(past.names, now)

    async def find(self, enterprise: str, numbers: Iterable[str | None]) -> Known:
        """For each of these E.164 numbers that is known, whose it is by the records, users first."""
        return await self._records.find(enterprise, numbers)

    async def name(self, enterprise: str, calls: Sequence[dict[str, Any]]) -> Known:
        """Fills in `customer_name` of calls (contract section 5) that have a customer and no name; gives who is known of them."""
        known = await self.find(enterprise, (call["customer_number"] for call in calls))
        for call in calls:
            if not call["customer_name"] and (matches := known.get(call["customer_number"] or "")):
                call["customer_name"] = matches[0].name
        return known

    async def name_for_people(self, enterprise: str, calls: Sequence[dict[str, Any]]) -> Known:
        """As `name`; whom no record names is called as CRMs said lately, or as the calls before were shown: a page is read by names."""
        known = await self.name(enterprise, calls)
        nameless = [call for call in calls if call["customer_number"] and not call["customer_name"] and call.get("direction") != "internal"]
        numbers = {call["customer_number"] for call in nameless}
        said = self._said.known_names(enterprise, numbers) if numbers else {}
        past = await self._past.find(enterprise, numbers - said.keys())
        for call in nameless:
            number = call["customer_number"]
            call["customer_name"] = said.get(number) or past.get(number)
        return known

    async def live(self, enterprise: str, call: dict[str, Any]) -> dict[str, Any]:
        """The call with its name and `records` of its customer, as the live board shows it; without them when the database takes too long."""
        told = {**call, "records": []}
        try:
            async with asyncio.timeout(LIVE_DEADLINE_S):
                known = await self.name_for_people(enterprise, [told])
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return told
        return {**told, "records": records_json(known, call)}

    def forget(self, enterprise: str) -> None:
        """Records of this enterprise have changed."""
        self._records.forget(enterprise)

    def forget_names(self, enterprises: Iterable[str]) -> None:
        """Something of these enterprises was erased: no name of theirs is shown from memory."""
        for enterprise in enterprises:
            self._records.forget(enterprise)
            self._past.forget(enterprise)


def records_json(known: Known, call: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The users and companies of a call's customer; `kind` is the plural that routes and pages have."""
    return [{"type": str(one.type), "kind": one.type.plural, "id": one.id, "name": one.name} for one in known.get(call["customer_number"] or "", ())]
