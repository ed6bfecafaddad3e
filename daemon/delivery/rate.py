"""Rate limits of one CRM account: at most so many requests in any window, or a leaky bucket. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from daemon.model.delivery import Leak, Rate

SAFETY_S = 0.05  # the CRM's clock and the network shift requests a little


class AccountLimiter:
    """The limits of one account, by bucket. A place is a moment at which a request may leave."""

    def __init__(self, rates: Mapping[str, Rate | Leak]) -> None:
        self._rates = rates
        self._taken: dict[str, deque[float]] = {bucket: deque() for bucket, rate in rates.items() if isinstance(rate, Rate)}
        self._empty_at: dict[str, float] = {rate.shared: 0.0 for rate in rates.values() if isinstance(rate, Leak)}
        self._paused_until: dict[str, float] = {}

    def reserve(self, bucket: str, now: float) -> float:
        """Takes the next free place and gives the seconds to wait for it."""
        rate = self._rates[bucket]
        earliest = max(now, self._paused_until.get(bucket, 0.0))
        place = self._next_drop(rate, now, earliest) if isinstance(rate, Leak) else self._next_in_window(bucket, rate, now, earliest)
        return place - now

    def _next_in_window(self, bucket: str, rate: Rate, now: float, earliest: float) -> float:
        taken, place = self._taken[bucket], earliest
        if len(taken) >= rate.count:
            place = max(earliest, taken[-rate.count] + rate.period_s + SAFETY_S)
        taken.append(place)
        while len(taken) > rate.count and taken[0] < now - rate.period_s - SAFETY_S:
            taken.popleft()
        return place

    def _next_drop(self, rate: Leak, now: float, earliest: float) -> float:
        """A place reserved for later fills the bucket from now on: it is never fuller at the CRM than it is here."""
        empty_at = max(now, self._empty_at[rate.shared])
        self._empty_at[rate.shared] = empty_at + 1 / rate.per_s
        return max(earliest, empty_at - (rate.up_to - 1) / rate.per_s)

    def pause(self, bucket: str, until: float) -> None:
        """No place of this bucket before `until`."""
        self._paused_until[bucket] = max(until, self._paused_until.get(bucket, 0.0))

    def used(self, now: float) -> dict[str, tuple[int, Rate | Leak]]:
        """Places taken within each bucket's window, those reserved for later too, and the bucket's rate."""
        return {bucket: (self._used(bucket, rate, now), rate) for bucket, rate in self._rates.items()}

    def _used(self, bucket: str, rate: Rate | Leak, now: float) -> int:
        if isinstance(rate, Leak):
            return round(max(0.0, self._empty_at[rate.shared] - now) * rate.per_s)
        return sum(place > now - rate.period_s for place in self._taken[bucket])

    def give_back(self, bucket: str) -> None:
        """Returns the place taken last."""
        rate = self._rates[bucket]
        if isinstance(rate, Leak):
            self._empty_at[rate.shared] -= 1 / rate.per_s
        else:
            self._taken[bucket].pop()
