"""One reading for all who ask at the same time. Thin shell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakSet

from daemon.supervisor import Supervisor

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Shared(Generic[K, V]):
    """`read` runs once at a time for a key; its answer is good for `fresh_s` seconds, unless it is forgotten before.

    Who asks while it runs shares the next run: no answer is older than `fresh_s` before its question.
    """

    def __init__(self, read: Callable[[K], Awaitable[V]], supervisor: Supervisor, fresh_s: float = 0.0) -> None:
        self._read = read
        self._supervisor = supervisor
        self._fresh_s = fresh_s
        self._kept: dict[K, tuple[float, V]] = {}
        self._running: dict[K, asyncio.Task[V]] = {}
        self._next: dict[K, asyncio.Task[V]] = {}
        self._outdated: WeakSet[asyncio.Task[V]] = WeakSet()

    async def get(self, key: K) -> V:
        """What `read` gives or raises. Whoever gives up waiting takes nobody along."""
        if (kept := self._kept.get(key)) is not None and time.monotonic() < kept[0]:
            return kept[1]
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = self._supervisor.job("shared reading", self._run(key, self._running.get(key)))
        return await asyncio.shield(task)

    def forget(self, key: K) -> None:
        """What is kept, or being read now, is old."""
        self._kept.pop(key, None)
        if (task := self._running.pop(key, None)) is not None:
            self._outdated.add(task)

    async def _run(self, key: K, before: asyncio.Task[V] | None) -> V:
        if before is not None:
            await asyncio.wait({before})
        task = self._running[key] = self._next.pop(key)
        try:
            asked_at = time.monotonic()
            found = await self._read(key)
        finally:
            if self._running.get(key) is task:
                del self._running[key]
        if task not in self._outdated:
            self._kept[key] = (asked_at + self._fresh_s, found)
        return found
