"""Rate limits of one CRM account: at most so many requests in any window. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from daemon.model.delivery import Rate

SAFETY_S = 0.05  # the CRM's clock and the network shift requests a little


class AccountLimiter:
    """The windows of one account, by bucket. A place is a moment at which a request may leave."""

    def __init__(self, rates: Mapping[str, Rate]) -> None:
        self._rates = rates
        self._taken: dict[str, deque[float]] = {bucket: deque() for bucket in rates}

    def reserve(self, bucket: str, now: float) -> float:
        """Takes the next free place and gives the seconds to wait for it."""
        rate, taken = self._rates[bucket], self._taken[bucket]
        place = now
        if len(taken) >= rate.count:
            place = max(now, taken[-rate.count] + rate.period_s + SAFETY_S)
        taken.append(place)
        while len(taken) > rate.count and taken[0] < now - rate.period_s - SAFETY_S:
            taken.popleft()
        return place - now

    def used(self, now: float) -> dict[str, tuple[int, Rate]]:
        """Places taken within each bucket's window, those reserved for later too, and the bucket's rate."""
        return {bucket: (sum(place > now - rate.period_s for place in self._taken[bucket]), rate) for bucket, rate in self._rates.items()}

    def give_back(self, bucket: str) -> None:
        """Returns the place taken last."""
        self._taken[bucket].pop()
