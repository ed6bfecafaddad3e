"""The limits of CRM accounts, kept by all daemons together. Thin shell over rate.py.

A daemon that is alone has the whole of every limit and asks nobody. Among several each has a base of its own, and once a second they divide the
rest in the database by what each could use: no request ever waits for that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import asyncpg
import structlog

from daemon.delivery.rate import AccountLimiter, Share
from daemon.model.delivery import Leak, Rate
from daemon.store.pool import Database

LOOK_S = 1.0
TTL_S = 7.0
KNOWN_AFTER_S = 3.0  # after its start every other daemon has heard of this one, at its next beat at the latest
SAFETY_S = 1.5  # a part that could not be renewed is used no longer, so long before the others may have it

log = structlog.get_logger()


class Budgets:
    """One limiter per CRM account. `living`: how many daemons live, this one among them; say_pause(account, bucket, for_s): tells the others.

    known_after_s: for so long the others may not know of this daemon and use all there is: it asks nobody until then, unless it is alone.
    """

    def __init__(
        self,
        db: Database,
        owner: str,
        living: Callable[[], int] = lambda: 1,
        say_pause: Callable[[str, str, float], None] = lambda *_: None,
        known_after_s: float = 0.0,
    ) -> None:
        self._db = db
        self._owner = owner
        self._living = living
        self._say_pause = say_pause
        self._limiters: dict[str, AccountLimiter] = {}
        self._known_at = time.monotonic() + known_after_s
        self._shared_at = 0.0
        self._held: set[str] = set()

    def limiter(self, account: str, rates: Mapping[str, Rate | Leak]) -> SharedLimiter:
        """The account's limiter."""
        if account not in self._limiters:
            limiter = self._limiters[account] = AccountLimiter(rates, _first(self._living()))
            if self._living() > 1:
                for bucket in rates:
                    limiter.pause(bucket, self._known_at)
        return SharedLimiter(self._limiters[account], account, self._say_pause)

    def used(self, account: str, now: float) -> dict[str, tuple[int, Rate | Leak]]:
        """Places taken by this daemon, by bucket; empty for an account that was not used yet."""
        limiter = self._limiters.get(account)
        return limiter.used(now) if limiter is not None else {}

    def share(self, account: str) -> float:
        """This daemon's present share of an account, 0 to 1."""
        limiter = self._limiters.get(account)
        return (limiter.share if limiter is not None else _first(self._living())).fraction

    def pause(self, account: str, bucket: str, for_s: float) -> None:
        """Another daemon was told to rest."""
        limiter = self._limiters.get(account)
        if limiter is not None and bucket in limiter.buckets:
            limiter.pause(bucket, time.monotonic() + for_s)

    def tell_pause(self, account: str, buckets: Sequence[str], for_s: float) -> None:
        """The account is over its limit: the other daemons rest too."""
        for bucket in buckets:
            self._say_pause(account, bucket, for_s)

    def count(self) -> None:
        """Another number of daemons live: the whole for one alone; for one of several its base, until the rest is divided anew."""
        nodes, now = self._living(), time.monotonic()
        for limiter in self._limiters.values():
            if limiter.share.nodes != nodes:
                was_whole = limiter.share.nodes <= 1
                limiter.set_share(_first(nodes) if nodes <= 1 or was_whole else Share(nodes, limiter.share.part), now)

    async def run(self) -> None:
        """Divides, once a second, what this daemon uses with the others that use it."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                async with asyncio.timeout(TTL_S - SAFETY_S):
                    await self.divide()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("the limits of CRM accounts were not divided anew", error=str(error)[:200])
            if self._living() > 1 and time.monotonic() - self._shared_at > TTL_S - SAFETY_S:
                self._apply({})

    async def divide(self) -> None:
        """Once. Raises what asyncpg raises when the database is away."""
        self.count()
        started = time.monotonic()
        wants = {}
        if self._living() > 1:
            wants = {account: wanted for account, limiter in self._limiters.items() if (wanted := limiter.wants(started)) is not None}
        if not wants and not self._held:
            self._shared_at = started
            return
        rows = await self._db.fetch("select * from share_budgets($1, $2, $3)", self._owner, TTL_S, wants)
        self._shared_at, self._held = started, set(wants)
        if self._living() > 1:
            self._apply({row["account"]: row["part"] for row in rows})

    def _apply(self, parts: Mapping[str, float]) -> None:
        nodes, now = self._living(), time.monotonic()
        for account, limiter in self._limiters.items():
            limiter.set_share(Share(nodes, parts.get(account, 0.0)), now)


def _first(nodes: int) -> Share:
    """Before anything was divided."""
    return Share(nodes, 1.0 if nodes <= 1 else 0.0)


class SharedLimiter:
    """An account's limiter as adapters get it: a pause holds for all daemons."""

    def __init__(self, limiter: AccountLimiter, account: str, say_pause: Callable[[str, str, float], None]) -> None:
        self._limiter = limiter
        self._account = account
        self._say_pause = say_pause

    @property
    def turn(self) -> int:
        """Changes when places that were given for later are good no longer."""
        return self._limiter.turn

    def reserve(self, bucket: str, now: float) -> float:
        return self._limiter.reserve(bucket, now)

    def give_back(self, bucket: str) -> None:
        self._limiter.give_back(bucket)

    def pause(self, bucket: str, until: float) -> None:
        """Here, and at the others."""
        self._limiter.pause(bucket, until)
        self._say_pause(self._account, bucket, max(0.0, until - time.monotonic()))
