"""The circuit breaker of one CRM connection. Pure: outcomes and time in, a verdict out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

WINDOW_S = 300.0
MIN_TRIES = 10
FAILED_SHARE = 0.7
FIRST_PAUSE_S = 30.0
MAX_PAUSE_S = 900.0


class Breaker(StrEnum):
    """closed: all goes; open: nothing goes; half_open: one probe goes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class HealthView:
    """A connection's health at one moment: tries and failures of the last five minutes, seconds until something may be sent again."""

    breaker: Breaker
    tries: int
    failed: int
    wait_s: float
    in_flight: int = 0
    needs_reauth: bool = False


@dataclass(slots=True)
class Health:
    """Opens when 70 % of at least 10 tries within 5 minutes failed; lets one probe through after 30 s, then after twice as
    long each time, up to 15 minutes. `now` is any monotonic clock in seconds."""

    _tries: deque[tuple[float, bool]] = field(default_factory=deque)
    _open_until: float = 0.0
    _pause_s: float = 0.0
    _probing: bool = False
    _paused_until: float = 0.0

    def state(self, now: float) -> Breaker:
        if self._pause_s == 0.0:
            return Breaker.CLOSED
        return Breaker.OPEN if now < self._open_until else Breaker.HALF_OPEN

    def room(self, now: float, concurrency: int) -> int:
        """How many requests may be in flight now."""
        if now < self._paused_until:
            return 0
        match self.state(now):
            case Breaker.CLOSED:
                return concurrency
            case Breaker.OPEN:
                return 0
            case Breaker.HALF_OPEN:
                return 0 if self._probing else 1

    def view(self, now: float, in_flight: int, needs_reauth: bool) -> HealthView:
        """What a person sees of it."""
        recent = [failed for at, failed in self._tries if at >= now - WINDOW_S]
        return HealthView(self.state(now), len(recent), sum(recent), round(self.wait_s(now), 1), in_flight, needs_reauth)

    def begin(self, now: float) -> None:
        """A request goes out."""
        if self.state(now) is Breaker.HALF_OPEN:
            self._probing = True

    def wait_s(self, now: float) -> float:
        """Seconds until there may be room again; 0 when there may be now."""
        return max(0.0, self._paused_until - now, self._open_until - now if self._pause_s else 0.0)

    def succeeded(self, now: float) -> None:
        """A try reached the CRM and was answered, whatever the answer says of the item."""
        self._pause_s, self._open_until, self._probing = 0.0, 0.0, False
        self._note(now, failed=False)

    def failed(self, now: float) -> None:
        """A try failed for a reason that is the CRM's or the network's."""
        was_probing, self._probing = self._probing, False
        self._note(now, failed=True)
        if was_probing:
            self._open(now, min(MAX_PAUSE_S, self._pause_s * 2))
        elif self._pause_s == 0.0 and self._is_failing():
            self._open(now, FIRST_PAUSE_S)

    def throttled(self, now: float, after_s: float) -> None:
        """The account is over its limit: nobody sends before `after_s` has passed. Says nothing about its health."""
        self._probing = False
        self._paused_until = max(self._paused_until, now + after_s)

    def _open(self, now: float, pause_s: float) -> None:
        self._pause_s, self._open_until = pause_s, now + pause_s

    def _note(self, now: float, *, failed: bool) -> None:
        self._tries.append((now, failed))
        while self._tries and self._tries[0][0] < now - WINDOW_S:
            self._tries.popleft()

    def _is_failing(self) -> bool:
        failures = sum(failed for _, failed in self._tries)
        return len(self._tries) >= MIN_TRIES and failures >= FAILED_SHARE * len(self._tries)
