"""What is live: calls, PBXs, integrations and deliveries, told to whoever watches a tenant. Bounded per watcher."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

MAX_WAITING = 500


@dataclass(frozen=True, slots=True)
class News:
    """One thing that changed. `topic`: call, pbx, integration or delivery; `data` has an `id`."""

    topic: str
    data: dict[str, Any]


class Live:
    """Fans news out. A watcher that does not read loses the oldest."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[asyncio.Queue[News]]] = {}

    def tell(self, enterprise: str, topic: str, data: dict[str, Any]) -> None:
        """Passes news to all who watch this enterprise."""
        for queue in self._watchers.get(enterprise, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(News(topic, data))

    def has_watchers(self, enterprise: str) -> bool:
        return bool(self._watchers.get(enterprise))

    @contextmanager
    def watch(self, enterprise: str) -> Iterator[asyncio.Queue[News]]:
        """A queue of this enterprise's news for as long as the context lasts."""
        queue: asyncio.Queue[News] = asyncio.Queue(MAX_WAITING)
        self._watchers.setdefault(enterprise, set()).add(queue)
        try:
            yield queue
        finally:
            self._watchers[enterprise].discard(queue)
