"""What is live: calls, PBXs, integrations and deliveries, told to whoever watches a tenant. Bounded per watcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

MAX_WAITING = 500


@dataclass(frozen=True, slots=True)
class News:
    """One thing that changed. `topic`: call, pbx, integration or delivery; `data` has an `id`."""

    topic: str
    data: dict[str, Any]


class Abroad(Protocol):
    """The watchers of the other daemons."""

    def has_watchers(self, enterprise: str) -> bool: ...

    def tell(self, enterprise: str, topic: str, data: dict[str, Any]) -> None: ...


class Live:
    """Fans news out. A watcher that does not read loses the oldest. `on_watched`: called when another enterprise is watched, or one no more."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[asyncio.Queue[News | None]]] = {}
        self.abroad: Abroad | None = None
        self.on_watched: list[Callable[[], None]] = []

    def tell(self, enterprise: str, topic: str, data: dict[str, Any]) -> None:
        """Passes news to all who watch this enterprise, on whichever daemon."""
        self.tell_here(enterprise, topic, data)
        if self.abroad is not None and self.abroad.has_watchers(enterprise):
            self.abroad.tell(enterprise, topic, data)

    def tell_here(self, enterprise: str, topic: str, data: dict[str, Any]) -> None:
        """Passes news to those who watch through this daemon."""
        for queue in self._watchers.get(enterprise, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(News(topic, data))

    def has_watchers(self, enterprise: str) -> bool:
        """Whether anybody watches this enterprise, on whichever daemon."""
        return bool(self._watchers.get(enterprise)) or (self.abroad is not None and self.abroad.has_watchers(enterprise))

    @property
    def watched(self) -> list[str]:
        """The enterprises that are watched through this daemon."""
        return sorted(self._watchers)

    def close(self) -> None:
        """Ends every stream: None is the last of its news. Browsers come back, to whichever daemon is there."""
        for queues in self._watchers.values():
            for queue in queues:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(None)

    @contextmanager
    def watch(self, enterprise: str) -> Iterator[asyncio.Queue[News | None]]:
        """A queue of this enterprise's news for as long as the context lasts; after None nothing comes."""
        queue: asyncio.Queue[News | None] = asyncio.Queue(MAX_WAITING)
        is_new = enterprise not in self._watchers
        self._watchers.setdefault(enterprise, set()).add(queue)
        if is_new:
            self._tell_watched()
        try:
            yield queue
        finally:
            self._watchers[enterprise].discard(queue)
            if not self._watchers[enterprise]:
                del self._watchers[enterprise]
                self._tell_watched()

    def _tell_watched(self) -> None:
        for listener in self.on_watched:
            listener()
