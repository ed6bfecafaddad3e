"""How much of the event loop's time one PBX may have: one that floods is read less often, and the others are served in between. Pure."""

from __future__ import annotations

SHARE = 0.1  # of the loop's time, for as long as more comes than that: several thousand events a second
FOR_ALL = 0.5  # what a few may have between them: one PBX alone holds up nobody else's calls
BURST_S = 0.1  # so much at once: the lists of a large PBX, what came while the loop was busy
MAX_REST_S = 0.05  # Asterisk drops a client that takes nothing for 100 ms (manager.conf, writetimeout)


def share(links: int) -> float:
    """Of the loop's time for each of so many links."""
    return max(SHARE, FOR_ALL / max(1, links))


class Pace:
    """One link's account of the loop's time. `now` is any monotonic clock in seconds."""

    def __init__(self, now: float) -> None:
        self._credit_s = BURST_S
        self._at = now

    def rest_s(self, worked_s: float, now: float, share: float = SHARE) -> float:
        """Notes what reading a piece took; gives for how long nothing more may be read. 0 for whoever stays within its share.

        What is owed is forgotten beyond one rest: the machine, and not the PBX, holds up the loop for so long.
        """
        self._credit_s = min(BURST_S, self._credit_s + (now - self._at) * share) - worked_s
        self._at = now
        if self._credit_s >= 0:
            return 0.0
        self._credit_s = max(self._credit_s, -MAX_REST_S * share)
        return -self._credit_s / share
