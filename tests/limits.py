"""Whether an account's limits are kept: by the places that requests are given, for when they arrive depends on this machine's pace too."""

from __future__ import annotations

from bisect import bisect_left

import pytest

from daemon.delivery.rate import AccountLimiter


def noted_places(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every moment (monotonic s) before which a request may not leave, from now on; `tests/unit/test_http.py` shows that none leaves before."""
    places: list[float] = []
    reserve = AccountLimiter.reserve

    def noted(self: AccountLimiter, bucket: str, now: float) -> float:
        wait_s = reserve(self, bucket, now)
        places.append(now + wait_s)
        return wait_s

    monkeypatch.setattr(AccountLimiter, "reserve", noted)
    return places


def most_within_a_second(places: list[float]) -> int:
    """The most of them in any second."""
    ordered = sorted(places)
    return max((bisect_left(ordered, first + 1.0) - n for n, first in enumerate(ordered)), default=0)
