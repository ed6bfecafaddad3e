"""Who reads which PBX: a lease row per PBX, owned by one process for at most 8 s at a time.

An owner that cannot renew lets go before the lease expires; every write checks the epoch, so a stale owner's are refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import asyncpg
import structlog

from daemon.store.pool import Database

TTL_S = 8.0
RENEW_S = 2.0
AT_ONCE = 200
SAFETY_S = 1.5  # let go this long before the database would

log = structlog.get_logger()
PbxKey = tuple[str, str]


class LeaseLost(Exception):
    """Another process reads this PBX now, or may: nothing may be written for it."""


class Leases:
    """The leases of this process; `owner` is the node's name with a random part."""

    def __init__(self, db: Database, owner: str) -> None:
        self._db = db
        self.owner = owner
        self._epochs: dict[PbxKey, int] = {}
        self._renewed_at = time.monotonic()

    async def take(self, keys: Iterable[PbxKey]) -> set[PbxKey]:
        """Tries to become the reader of each; gives those of which it did. Many in one commit: one after the other is what makes a thousand slow."""
        taken = set[PbxKey]()
        wanted = sorted(keys)  # two processes that start at once wait for each other's rows in the same order
        for at in range(0, len(wanted), AT_ONCE):
            rows = await self._db.fetch(
                "select enterprise, pbx, take_lease(enterprise, pbx, $3, $4) as epoch from unnest($1::text[], $2::text[]) as k (enterprise, pbx)",
                *map(list, zip(*wanted[at : at + AT_ONCE], strict=True)), self.owner, TTL_S,
            )  # fmt: skip
            epochs = {(row["enterprise"], row["pbx"]): int(row["epoch"]) for row in rows if row["epoch"] is not None}
            self._epochs.update(epochs)
            taken |= epochs.keys()
        return taken

    async def drop(self, key: PbxKey) -> None:
        """Gives one lease back."""
        if self._epochs.pop(key, None) is not None:
            await self._db.fetch("select drop_lease($1, $2, $3)", self.owner, *key)

    def epoch(self, key: PbxKey) -> int:
        """The epoch to write with. Raises LeaseLost when there is none, or it may have run out."""
        if key not in self._epochs or time.monotonic() - self._renewed_at > TTL_S - SAFETY_S:
            raise LeaseLost("/".join(key))
        return self._epochs[key]

    @property
    def held(self) -> set[PbxKey]:
        return set(self._epochs)

    async def run(self) -> None:
        """Renews; what could not be renewed is gone."""
        while True:
            await asyncio.sleep(RENEW_S)
            started = time.monotonic()
            try:
                rows = await asyncio.wait_for(self._db.fetch("select * from renew_leases($1, $2)", self.owner, TTL_S), RENEW_S * 2)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("leases could not be renewed", error=str(error))
                continue
            renewed = {(row["enterprise_number"], row["pbx"]): int(row["epoch"]) for row in rows}
            self._renewed_at = started
            for key in [key for key, epoch in self._epochs.items() if renewed.get(key) != epoch]:
                log.error("lease lost", enterprise=key[0], pbx=key[1])
                del self._epochs[key]

    async def drop_all(self) -> None:
        """On an orderly stop: another process may take over at once."""
        self._epochs.clear()
        await self._db.fetch("select drop_leases($1)", self.owner)
