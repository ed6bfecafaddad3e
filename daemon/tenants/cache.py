"""All tenants' settings in memory: read without locks, swapped whole, kept fresh by notifications and, as a safety net, by time.

A read never waits. What is older than its TTL is served as it is and read anew behind it; everything is read anew every few minutes, each
daemon at a time of its own. Whoever must see the newest state asks `refresh`: askers who come while a load runs share the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping

import structlog

from daemon.errors import VochidError
from daemon.store.enterprises import StoredEnterprise
from daemon.telemetry import metrics
from daemon.tenants.documents import Tenancy

TTL_S = (60.0, 120.0)
REFRESH_S = 240.0
JITTER = (0.10, 0.20)  # of REFRESH_S, either way: 192 to 288 s
STALE_AGAIN_S = 5.0  # a stale one that was asked for is not asked for again before
PARSED_AT_ONCE = 8  # documents between two turns of the event loop

Read = Callable[[Collection[str] | None], Awaitable[list[StoredEnterprise]]]
Parse = Callable[[StoredEnterprise, Tenancy | None], Tenancy]
log = structlog.get_logger()


class SettingsCache:
    """`read` gives the stored tenants named, or all for None; `parse` makes one ready for use, given what it was
    before, or raises VochidError."""

    def __init__(self, read: Read, parse: Parse) -> None:
        self._read = read
        self._parse = parse
        self._tenants: Mapping[str, Tenancy] = {}
        self._matrix: Mapping[str, frozenset[str]] = {}
        self._stale_at: dict[str, float] = {}
        self._rows: dict[str, StoredEnterprise] = {}
        self._listeners: list[Callable[[set[str]], None]] = []
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._wanted: set[str] = set()
        self._all_wanted = False
        self._pending = 0  # notifications received and not applied yet
        self._loaded_at: float | None = None
        self._reads: Counter[str] = Counter()
        self._found: Counter[str] = Counter()  # reads of each tenant that were answered, since the start
        self._unknown = 0
        self._notified: Counter[str] = Counter()

    # -- reading -----------------------------------------------------------------------------------------------------------

    def get(self, number: str) -> Tenancy | None:
        """One tenant as last loaded."""
        tenancy = self._tenants.get(number)
        if tenancy is None:
            self._reads["miss"] += 1
            self._unknown += 1
            return None
        self._found[number] += 1
        if time.monotonic() < self._stale_at[number]:
            self._reads["hit"] += 1
        else:
            self._reads["stale"] += 1
            self._stale_at[number] = time.monotonic() + STALE_AGAIN_S
            self._wanted.add(number)
            self._wake.set()
        return tenancy

    def all(self) -> Mapping[str, Tenancy]:
        """Every tenant as last loaded."""
        return self._tenants

    def matrix(self) -> Mapping[str, frozenset[str]]:
        """Integrations at work, by tenant."""
        return self._matrix

    def on_change(self, listener: Callable[[set[str]], None]) -> None:
        """Calls `listener` with the numbers that are new, changed or gone, after every load."""
        self._listeners.append(listener)

    # -- loading -----------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Reads everything anew."""
        self._all_wanted = True
        async with self._lock:
            if self._all_wanted:
                await self._load()

    async def refresh(self, numbers: Collection[str]) -> None:
        """Reads these anew (all, the first time); returns when what is in memory was read after this call began."""
        self._wanted.update(numbers)
        self._all_wanted = self._all_wanted or self._loaded_at is None
        async with self._lock:
            if self._all_wanted or not self._wanted.isdisjoint(numbers):
                await self._load()

    async def _load(self) -> None:
        """Takes all that is wanted so far, in one go; what cannot be read stays wanted."""
        numbers = None if self._all_wanted else frozenset(self._wanted)
        wanted, pending = self._wanted, self._pending
        self._wanted, self._all_wanted, self._pending = set(), False, 0
        try:
            stored = await self._read(numbers)
            changed = await self._take_in(stored, numbers)
        except BaseException:
            self._wanted |= wanted
            self._all_wanted = self._all_wanted or numbers is None
            self._pending += pending
            self._notified["failed"] += pending
            raise
        self._notified["applied"] += pending
        if changed:
            for listener in self._listeners:
                listener(changed)

    async def _take_in(self, stored: list[StoredEnterprise], numbers: frozenset[str] | None) -> set[str]:
        """Parses what differs, a few at a time, and swaps it in at once; gives what changed."""
        fresh, rows, changed, now = dict(self._tenants), dict(self._rows), set[str](), time.monotonic()
        for position, row in enumerate(stored):
            if position % PARSED_AT_ONCE == PARSED_AT_ONCE - 1:
                await asyncio.sleep(0)
            if rows.get(row.number) != row:
                changed.add(row.number)
                rows[row.number] = row
                if (tenancy := self._parsed(row)) is not None:
                    fresh[row.number] = tenancy
            self._stale_at[row.number] = now + random.uniform(*TTL_S)
        gone = (rows.keys() if numbers is None else numbers & rows.keys()) - {row.number for row in stored}
        for number in gone:
            fresh.pop(number, None)
            del rows[number]
            self._stale_at.pop(number, None)
        if numbers is None:
            self._loaded_at = now
        if changed or gone:
            matrix = {n: frozenset[str]() if t.enterprise.paused else frozenset(k for k, s in t.integrations.items() if s.enabled) for n, t in fresh.items()}
            self._tenants, self._matrix, self._rows = fresh, matrix, rows
        return changed | gone

    def _parsed(self, row: StoredEnterprise) -> Tenancy | None:
        try:
            tenancy = self._parse(row, self._tenants.get(row.number))
        except VochidError as error:
            log.error("enterprise cannot be read, its last good settings stay", enterprise=row.number, error=str(error), field=error.field)
            return None
        for problem in tenancy.problems:
            log.error("part of an enterprise cannot be read", enterprise=row.number, problem=problem)
        return tenancy

    # -- kept fresh --------------------------------------------------------------------------------------------------------

    def notified(self, payload: object) -> None:
        """A NOTIFY: {"enterprise_number", "integration_type"}. One that cannot be read costs a full load, never a change."""
        self._notified["received"] += 1
        self._pending += 1
        number: object = None
        with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
            number = json.loads(str(payload)).get("enterprise_number")
        if isinstance(number, str):
            self._wanted.add(number)
        else:
            self._all_wanted = True
        self._wake.set()

    def wake(self) -> None:
        """Has `run` look at once."""
        self._wake.set()

    async def run(self, goes_on: Callable[[], bool]) -> None:
        """Loads all once, then what notifications and stale reads ask for, and all again every few minutes, while `goes_on`."""
        self._all_wanted = True
        due = 0.0
        while goes_on():
            self._wake.clear()
            if time.monotonic() >= due:
                self._all_wanted = True
                due = time.monotonic() + REFRESH_S * (1 + random.choice((-1, 1)) * random.uniform(*JITTER))
            if self._all_wanted:
                await self.load()
            elif self._wanted:
                await self.refresh(frozenset(self._wanted))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, due - time.monotonic()))

    @property
    def age_s(self) -> float | None:
        """Seconds since all were read last."""
        return None if self._loaded_at is None else round(time.monotonic() - self._loaded_at, 1)

    def counts(self, number: str | None) -> tuple[int, int]:
        """Reads since the start that found a tenant, and those that did not; of one tenant, or of all."""
        return (self._found[number], 0) if number is not None else (self._found.total(), self._unknown)

    def report(self) -> None:
        """Hands the counts to the metrics; reads themselves stay free of them."""
        for result, count in self._reads.items():
            metrics.SETTINGS_READS.labels(result).inc(count)
        for result, count in self._notified.items():
            metrics.SETTINGS_NOTIFIED.labels(result).inc(count)
        self._reads.clear()
        self._notified.clear()
        metrics.SETTINGS_SIZE.set(len(self._tenants))
        if (age_s := self.age_s) is not None:
            metrics.SETTINGS_AGE.set(age_s)
