"""What sources said of numbers, for a while. Pure: `now` is any monotonic clock in seconds."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

MAX_ENTRIES = 100_000
NEGATIVE_TTL_S = 30.0  # a customer who is entered into the CRM now is known at the next call
STALE_S = 3_600.0  # this long an outdated answer still serves while a newer one is fetched

T = TypeVar("T")
Key = tuple[str, str, str]  # enterprise, source, number


@dataclass(frozen=True, slots=True)
class Hit(Generic[T]):
    """A kept answer. is_fresh False: use it, and ask again meanwhile."""

    value: T | None
    is_fresh: bool


class Cache(Generic[T]):
    """Bounded: beyond MAX_ENTRIES the one that was not used for longest goes."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max = max_entries
        self._entries: OrderedDict[Key, tuple[T | None, float, float]] = OrderedDict()
        self._asked: Counter[tuple[str, bool]] = Counter()  # enterprise, whether there was an answer

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, now: float) -> Hit[T] | None:
        """What is kept for `key`, or None."""
        entry = self._entries.get(key)
        if entry is None or now >= entry[2]:
            self._entries.pop(key, None)
            self._asked[key[0], False] += 1
            return None
        value, fresh_until, _ = entry
        self._asked[key[0], True] += 1
        self._entries.move_to_end(key)
        return Hit(value, now < fresh_until)

    def peek(self, key: Key, now: float) -> T | None:
        """What is kept for `key`, however old; nothing is counted."""
        entry = self._entries.get(key)
        return entry[0] if entry is not None and now < entry[2] else None

    def counts(self, enterprise: str | None) -> tuple[int, int, int]:
        """Entries, hits and misses since the start; of one enterprise, or of all."""
        mine = [key[0] for key in self._entries if enterprise in (None, key[0])]
        hits, misses = (sum(n for (owner, hit), n in self._asked.items() if hit is wanted and enterprise in (None, owner)) for wanted in (True, False))
        return len(mine), hits, misses

    def put(self, key: Key, value: T | None, ttl_s: float, now: float) -> None:
        """Keeps an answer: `ttl_s` fresh and STALE_S more usable; an answer `nobody` only NEGATIVE_TTL_S. ttl_s 0: not at all."""
        self._entries.pop(key, None)
        if ttl_s <= 0:
            return
        if value is None:
            fresh_until = usable_until = now + min(ttl_s, NEGATIVE_TTL_S)
        else:
            fresh_until, usable_until = now + ttl_s, now + ttl_s + STALE_S
        self._entries[key] = (value, fresh_until, usable_until)
        if len(self._entries) > self._max:
            self._entries.popitem(last=False)

    def forget(self, enterprises: set[str]) -> None:
        """Their settings changed: what was kept for them may not be true any more."""
        for key in [key for key in self._entries if key[0] in enterprises]:
            del self._entries[key]

    def drop(self, enterprise: str, source: str, numbers: Iterable[str] | None) -> None:
        """What one source said of these numbers, or of all, is not true any more."""
        if numbers is not None:
            for number in numbers:
                self._entries.pop((enterprise, source, number), None)
            return
        for key in [key for key in self._entries if key[:2] == (enterprise, source)]:
            del self._entries[key]
