"""Who lives, and who reads which PBX: a lease row per PBX, owned by one process for at most 8 s at a time.

An owner that cannot renew lets go before the lease expires; every write checks the epoch, so a stale owner's are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog

from daemon.store.pool import Database
from daemon.telemetry import metrics

TTL_S = 7.0
RENEW_S = 2.0
SAFETY_S = 1.5  # let go this long before the database would
PATIENCE_S = 4.0  # what is free for so long is taken by anybody, whoever's part it is
DROP_DEADLINE_S = 5.0
ASTRAY_S = 5.0  # a lease that the database renews for this process, which knows nothing of it: the answer to its taking was lost on the way

log = structlog.get_logger()
PbxKey = tuple[str, str]


class LeaseLost(Exception):
    """Another process reads this PBX now, or may: nothing may be written for it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A living process. `told`: what it tells the others of itself; pbxs: how many it reads."""

    owner: str
    name: str
    started_at: float
    told: Mapping[str, Any]
    pbxs: int


class Leases:
    """The leases of this process, and its pulse; `owner` is the node's name with a random part.

    told: what the others are to know of this process, asked for at every beat. ttl_s: how long it counts as living without a beat.
    on_beat: called after every beat; on_lost: when a lease was lost.
    """

    def __init__(self, db: Database, owner: str, told: Callable[[], Mapping[str, Any]] = dict, *, ttl_s: float = TTL_S) -> None:
        self._db = db
        self._ttl_s = ttl_s
        self.owner = owner
        self.told = told
        self.on_beat: list[Callable[[], None]] = []
        self.on_lost: list[Callable[[], None]] = []
        self.nodes: tuple[Node, ...] = ()  # all that live, this one among them
        self._read_by: dict[str, set[PbxKey]] = {}
        self._elsewhere: dict[str, set[str]] = {}
        self._epochs: dict[PbxKey, int] = {}
        self._astray: dict[PbxKey, float] = {}  # since when
        self._renewed_at = time.monotonic()
        self._soon = asyncio.Event()
        self._beating = asyncio.Lock()
        self._is_over = False

    @property
    def others(self) -> list[Node]:
        """The other processes, as of the last beat."""
        return [node for node in self.nodes if node.owner != self.owner]

    def read_by(self, owner: str) -> Collection[PbxKey]:
        """What another process reads, as of the last beat."""
        return self._read_by.get(owner, ())

    def read_elsewhere(self, enterprise: str) -> set[str]:
        """The PBXs of an enterprise that others read, as of the last beat."""
        return self._elsewhere.get(enterprise, set())

    @property
    def is_sure(self) -> bool:
        """Whether the database still counts this process among the living: it took a write lately, so it is there and its disk is not full."""
        return time.monotonic() - self._renewed_at <= self._ttl_s - SAFETY_S

    async def take(self, key: PbxKey) -> bool:
        """Tries to become the reader of a PBX, whoever's part it is."""
        taken = await self._take({key}, fair=False)
        self._epochs |= taken
        return key in taken

    async def take_part(self, keys: Collection[PbxKey]) -> dict[PbxKey, int]:
        """Takes what is free of these, this process' fair part of them at most; gives the epochs of what it got. Nothing can be written with them
        before `begin`. All keys that are wanted must be named each time."""
        taken = await self._take(keys, fair=True)
        if taken:  # from a daemon that died, perhaps: as long as it is counted here, its part would be given away again
            await self.beat()
        return taken

    def begin(self, key: PbxKey, epoch: int) -> None:
        """From here on this PBX is written with this epoch: what was known of it under another one is gone."""
        self._epochs[key] = epoch

    async def _take(self, keys: Collection[PbxKey], *, fair: bool) -> dict[PbxKey, int]:
        rows = await self._db.fetch(
            "select * from take_leases($1, $2, $3, $4, $5, $6)",
            self.owner, self._ttl_s, [key[0] for key in keys], [key[1] for key in keys], fair, PATIENCE_S,
        )  # fmt: skip
        return _epochs(rows)

    async def drop(self, key: PbxKey) -> None:
        """Gives one lease back."""
        if self._epochs.pop(key, None) is not None:
            await self._db.fetch("select drop_lease($1, $2, $3)", self.owner, *key)

    def epoch(self, key: PbxKey) -> int:
        """The epoch to write with. Raises LeaseLost when there is none, or it may have run out."""
        if key not in self._epochs or not self.is_sure:
            raise LeaseLost("/".join(key))
        return self._epochs[key]

    def holds(self, key: PbxKey) -> bool:
        """Whether this process surely reads the PBX, and nobody else."""
        return key in self._epochs and self.is_sure

    @property
    def held(self) -> set[PbxKey]:
        return set(self._epochs)

    def beat_soon(self) -> None:
        """Something changed that the others are to know, or that they told."""
        self._soon.set()

    async def run(self) -> None:
        """Says that this process lives and renews; what could not be renewed is gone."""
        while not self._is_over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S):
                    await self._soon.wait()
            self._soon.clear()
            try:
                async with asyncio.timeout(RENEW_S * 2):
                    await self.beat()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("leases could not be renewed", error=str(error))

    async def beat(self) -> None:
        """Once. Raises what asyncpg raises when the database is away."""
        async with self._beating:
            if self._is_over:
                return
            started, before = time.monotonic(), dict(self._epochs)
            rows = await self._db.fetch("select * from beat($1, $2, $3, $4)", self.owner, node_of(self.owner), self._ttl_s, dict(self.told()))
            nodes = await self._db.fetch("select * from living_nodes()")
            others = await self._db.fetch("select * from read_by_others($1)", self.owner) if len(nodes) > 1 else []
        renewed = _epochs(rows)
        self._renewed_at = started
        self.nodes = tuple(Node(row["owner"], row["node"], row["started_at"].timestamp(), row["told"], row["pbxs"]) for row in nodes)
        self._read_by, self._elsewhere = {}, {}
        for row in others:
            self._read_by.setdefault(row["owner"], set()).add((row["enterprise_number"], row["pbx"]))
            self._elsewhere.setdefault(row["enterprise_number"], set()).add(row["pbx"])
        lost = [key for key, epoch in before.items() if self._epochs.get(key) == epoch != renewed.get(key)]
        for key in lost:
            log.error("lease lost", enterprise=key[0], pbx=key[1])
            metrics.LEASES_LOST.inc()
            del self._epochs[key]
        metrics.NODES.set(len(self.nodes))
        metrics.LEASES.set(len(self._epochs))
        for listener in (*self.on_beat, *(self.on_lost if lost else ())):
            listener()
        await self._give_back_astray(renewed.keys() - self._epochs.keys())

    async def _give_back_astray(self, unknown: Collection[PbxKey]) -> None:
        """Nobody reads these PBXs, and as long as they are renewed nobody will. What was taken a moment ago is begun meanwhile."""
        now = time.monotonic()
        self._astray = {key: self._astray.get(key, now) for key in unknown}
        for key in [key for key, since in self._astray.items() if now - since >= ASTRAY_S]:
            log.warning("lease given back that was taken without knowing", enterprise=key[0], pbx=key[1])
            del self._astray[key]
            await self._db.fetch("select drop_lease($1, $2, $3)", self.owner, *key)

    async def reader(self, key: PbxKey) -> str | None:
        """The other process that reads a PBX at this moment; None when there is none."""
        owner: str | None = await self._db.fetchval("select reader_of($1, $2)", *key)
        return owner if owner != self.owner else None

    async def drop_all(self) -> None:
        """On an orderly stop: another process may take over at once, and this one is counted no more."""
        self._epochs.clear()
        self._is_over = True
        async with asyncio.timeout(DROP_DEADLINE_S), self._beating:
            await self._db.fetch("select drop_leases($1)", self.owner)


def node_of(owner: str) -> str:
    """The node's name without the random part."""
    return owner.rpartition("-")[0] or owner


def _epochs(rows: list[asyncpg.Record]) -> dict[PbxKey, int]:
    return {(row["enterprise_number"], row["pbx"]): int(row["epoch"]) for row in rows}
