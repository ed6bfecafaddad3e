"""How often people may have vochid ask around: by person and by enterprise, so that one cannot use up what a CRM allows all."""

from __future__ import annotations

import time
from collections.abc import Callable

from daemon.errors import VochidError
from daemon.security.throttle import Limit, Throttle

PER_PERSON = Limit(burst=10, refill_s=6.0)
PER_ENTERPRISE = Limit(burst=20, refill_s=3.0)


class Tries:
    """Counts what is asked; `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._people, self._enterprises = Throttle(PER_PERSON), Throttle(PER_ENTERPRISE)

    def take(self, enterprise: str, person: str) -> None:
        """Counts a question. Raises VochidError `too_many_tries`, which counts as none."""
        now = self._clock()
        if max(self._people.wait_s(f"{enterprise} {person}", now), self._enterprises.wait_s(enterprise, now)) > 0:
            raise VochidError("too many questions in a short time: wait a few seconds", code="too_many_tries")
        self._people.failed(f"{enterprise} {person}", now)
        self._enterprises.failed(enterprise, now)
