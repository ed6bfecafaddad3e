"""The clock that calls are measured by: Unix time that does not jump while they live. Pure: readings come from outside.

A server's clock may be set by hours in mid-call (NTP after a boot, a hand, a virtual machine that was asleep). Measured by it, a call of one
minute would have lasted an hour, or ended before it began. So time goes on from one reading of the clock by the monotonic one, and the
clock's new setting counts once no call lives that began under the old one, or after PATIENCE_S where there is always one.
"""

from __future__ import annotations

STEP_S = 1.0  # more than a clock that is slewed drifts between two looks
PATIENCE_S = 600.0


class CallClock:
    """`wall` and `monotonic`: readings in seconds, of one moment."""

    def __init__(self, wall: float, monotonic: float) -> None:
        self._offset = wall - monotonic
        self._stepped_at: float | None = None

    def at(self, monotonic: float) -> float:
        """The Unix time of a monotonic reading."""
        return monotonic + self._offset

    def look(self, wall: float, monotonic: float, *, is_idle: bool) -> float:
        """Compares with the clock; gives by how many seconds it was followed now, 0 mostly. is_idle: no call lives."""
        step = wall - self.at(monotonic)
        if abs(step) < STEP_S:
            self._stepped_at = None
            return 0.0
        if self._stepped_at is None:
            self._stepped_at = monotonic
        if not is_idle and monotonic - self._stepped_at < PATIENCE_S:
            return 0.0
        self._offset, self._stepped_at = wall - monotonic, None
        return step
