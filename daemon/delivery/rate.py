"""Rate limits of one CRM account: at most so many requests in any window, or a leaky bucket. Pure.

Several daemons keep them together: each has a share, and all shares are never more than the whole. Whoever gains counts what it gained as just
used, for another one may have used it.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from daemon.model.delivery import Leak, Rate

SAFETY_S = 0.05  # the CRM's clock and the network shift requests a little
WANTS_OVER_S = 5.0
IDLE_S = 30.0  # an account that was not used for so long is left to the others
BASE_PARTS = 4  # every daemon has one of so many parts for itself, without asking; the rest is shared by need


@dataclass(frozen=True, slots=True)
class Share:
    """What one of `nodes` daemons may use of every limit: a base of its own, and `part` (0 to 1) of what is shared."""

    nodes: int = 1
    part: float = 1.0

    def places(self, count: int) -> int:
        """Of `count` places in a window."""
        if self.nodes <= 1:
            return count
        base = max(1, count // (BASE_PARTS * self.nodes))
        return base + int(self.part * max(0, count - base * self.nodes))

    def stretch(self, count: int) -> float:
        """By how much a window is longer: with more daemons than places each has one, less often, and the limit is kept on average."""
        return max(1.0, self.nodes / count)

    @property
    def fraction(self) -> float:
        """Of what can be divided at will."""
        return 1.0 if self.nodes <= 1 else (1 / self.nodes + (BASE_PARTS - 1) * self.part) / BASE_PARTS


WHOLE = Share()


class AccountLimiter:
    """The limits of one account, by bucket. A place is a moment at which a request may leave.

    `turn` changes when places that were given for later are good no longer: whoever waits for one asks anew.
    """

    def __init__(self, rates: Mapping[str, Rate | Leak], share: Share = WHOLE) -> None:
        self._rates = rates
        self._taken: dict[str, deque[float]] = {bucket: deque() for bucket, rate in rates.items() if isinstance(rate, Rate)}
        self._empty_at: dict[str, float] = {rate.shared: 0.0 for rate in rates.values() if isinstance(rate, Leak)}
        self._ahead: dict[str, deque[float]] = {shared: deque() for shared in self._empty_at}  # places of the leaky buckets, given for later
        self._paused_until: dict[str, float] = {}
        self._asked: dict[str, deque[float]] = {bucket: deque() for bucket in rates}
        self.share = share
        self.turn = 0

    def reserve(self, bucket: str, now: float) -> float:
        """Takes the next free place and gives the seconds to wait for it."""
        rate = self._rates[bucket]
        self._note_asked(bucket, now)
        earliest = max(now, self._paused_until.get(bucket, 0.0))
        place = self._next_drop(rate, now, earliest) if isinstance(rate, Leak) else self._next_in_window(bucket, rate, now, earliest)
        return place - now

    def _next_in_window(self, bucket: str, rate: Rate, now: float, earliest: float) -> float:
        taken, place, count = self._taken[bucket], earliest, self.share.places(rate.count)
        if len(taken) >= count:
            place = max(earliest, taken[-count] + rate.period_s * self.share.stretch(rate.count) + SAFETY_S)
        insort(taken, place)
        while len(taken) > rate.count and taken[0] < now - rate.period_s * self.share.stretch(rate.count) - SAFETY_S:
            taken.popleft()
        return place

    def _next_drop(self, rate: Leak, now: float, earliest: float) -> float:
        """A place reserved for later fills the bucket from now on: it is never fuller at the CRM than it is here."""
        per_s, up_to, ahead = rate.per_s * self.share.fraction, rate.up_to * self.share.fraction, self._ahead[rate.shared]
        empty_at = max(now, self._empty_at[rate.shared])
        self._empty_at[rate.shared] = empty_at + 1 / per_s
        place = max(earliest, empty_at - (up_to - 1) / per_s)
        while ahead and ahead[0] <= now:
            ahead.popleft()
        insort(ahead, place)
        return place

    def set_share(self, share: Share, now: float) -> None:
        """Another share from now on. Places that were given for later are taken back: they were given under the former one."""
        if share == self.share:
            return
        former, self.share = self.share, share
        self.turn += 1
        for bucket, taken in self._taken.items():
            rate = self._rates[bucket]
            assert isinstance(rate, Rate)
            kept = [place for place in taken if place <= now]
            gained = max(0, share.places(rate.count) - former.places(rate.count))
            self._taken[bucket] = deque([*kept, *[now] * gained])
        for rate in {rate.shared: rate for rate in sorted(self._leaks(), key=lambda leak: leak.up_to)}.values():
            before, after = rate.per_s * former.fraction, rate.per_s * share.fraction
            later = sum(place > now for place in self._ahead[rate.shared])
            level = max(0.0, (self._empty_at[rate.shared] - now) * before - later)
            gained_level = max(0.0, (share.fraction - former.fraction) * rate.up_to)
            self._empty_at[rate.shared] = now + (level + gained_level) / after
            self._ahead[rate.shared].clear()

    def _leaks(self) -> list[Leak]:
        return [rate for rate in self._rates.values() if isinstance(rate, Leak)]

    def pause(self, bucket: str, until: float) -> None:
        """No place of this bucket before `until`."""
        self._paused_until[bucket] = max(until, self._paused_until.get(bucket, 0.0))

    @property
    def buckets(self) -> list[str]:
        return list(self._rates)

    def used(self, now: float) -> dict[str, tuple[int, Rate | Leak]]:
        """Places taken within each bucket's window, those reserved for later too, and the bucket's rate."""
        return {bucket: (self._used(bucket, rate, now), rate) for bucket, rate in self._rates.items()}

    def _used(self, bucket: str, rate: Rate | Leak, now: float) -> int:
        if isinstance(rate, Leak):
            return round(max(0.0, self._empty_at[rate.shared] - now) * rate.per_s * self.share.fraction)
        return sum(place > now - rate.period_s for place in self._taken[bucket])

    def give_back(self, bucket: str) -> None:
        """Returns the place taken last."""
        rate = self._rates[bucket]
        if isinstance(rate, Leak):
            self._empty_at[rate.shared] -= 1 / (rate.per_s * self.share.fraction)
            if self._ahead[rate.shared]:
                self._ahead[rate.shared].pop()
        else:
            self._taken[bucket].pop()

    # -- how much is wanted --------------------------------------------------------------------------------------------------------

    def _note_asked(self, bucket: str, now: float) -> None:
        asked, rate = self._asked[bucket], self._rates[bucket]
        asked.append(now)
        while asked[0] <= now - WANTS_OVER_S or len(asked) > _most(rate):
            asked.popleft()

    def wants(self, now: float) -> float | None:
        """How much of the account this daemon could use, in steps of an eighth, from what it was asked for lately, with room to grow; None: nothing."""
        shares = [
            sum(at > now - WANTS_OVER_S for at in asked) / _most(self._rates[bucket])
            for bucket, asked in self._asked.items()
            if asked and asked[-1] > now - IDLE_S
        ]
        return min(1.0, ceil(16 * max(shares) + 0.5) / 8) if shares else None


def _most(rate: Rate | Leak) -> int:
    """What the whole account could take within WANTS_OVER_S."""
    return max(1, round(rate.per_s * WANTS_OVER_S if isinstance(rate, Leak) else rate.count * WANTS_OVER_S / rate.period_s))
