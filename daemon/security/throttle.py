"""How often something may be tried: a token bucket per key, in bounded memory. Pure: the caller gives the time."""

from __future__ import annotations

from dataclasses import dataclass

MAX_KEYS = 50_000


@dataclass(frozen=True, slots=True)
class Limit:
    """`burst` tries at once, then one every `refill_s` seconds."""

    burst: int
    refill_s: float


class Throttle:
    """Counts failures. A key that is not known has its whole burst; when memory is full the key touched longest ago is forgotten."""

    def __init__(self, limit: Limit, max_keys: int = MAX_KEYS) -> None:
        self._limit = limit
        self._max_keys = max_keys
        self._used: dict[str, tuple[float, float]] = {}  # key -> (tries used, as of)

    def wait_s(self, key: str, now: float) -> float:
        """Seconds until the next try is allowed; 0: now."""
        over = self._level(key, now) - (self._limit.burst - 1)
        return max(0.0, over * self._limit.refill_s)

    def failed(self, key: str, now: float) -> None:
        """Counts a try."""
        level = self._level(key, now) + 1
        self._used.pop(key, None)
        if len(self._used) >= self._max_keys:
            del self._used[next(iter(self._used))]
        self._used[key] = (level, now)

    def forget(self, key: str) -> None:
        """After a success."""
        self._used.pop(key, None)

    def _level(self, key: str, now: float) -> float:
        level, since = self._used.get(key, (0.0, now))
        return max(0.0, level - (now - since) / self._limit.refill_s)
