"""All PBX links: added, changed and removed while running."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from daemon.ami.link import Link, LinkHandler, LinkTarget
from daemon.ami.pace import share
from daemon.supervisor import Supervisor

MAX_CONNECTING = 20  # a thousand TLS handshakes at once would cost 0.7 s of a core


class Fleet:
    """Keeps exactly the wanted links running. `K` is whatever identifies a PBX, here (enterprise, name)."""

    def __init__(self, make_handler: Callable[[tuple[str, str]], LinkHandler]) -> None:
        self._make_handler = make_handler
        self._links: dict[tuple[str, str], Link] = {}
        self._supervisor = Supervisor("pbx")
        self._gate = asyncio.Semaphore(MAX_CONNECTING)

    @property
    def links(self) -> Mapping[tuple[str, str], Link]:
        return self._links

    async def set(self, wanted: Mapping[tuple[str, str], LinkTarget]) -> None:
        """Makes the running links equal to `wanted`: a changed target is reconnected, an unchanged one untouched."""
        for key in [key for key, link in self._links.items() if wanted.get(key) != link.target]:
            await self.remove(key)
        for key, target in wanted.items():
            if key not in self._links:
                self._add(key, target)

    async def remove(self, key: tuple[str, str]) -> None:
        """Logs off and forgets one PBX."""
        self._links.pop(key)
        await self._supervisor.stop("/".join(key))

    async def stop(self) -> None:
        """Logs off everywhere."""
        self._links.clear()
        await self._supervisor.stop()

    def _add(self, key: tuple[str, str], target: LinkTarget) -> None:
        link = Link("/".join(key), target, self._make_handler(key), self._gate, lambda: share(len(self._links)))
        self._links[key] = link
        self._supervisor.serve(link.name, link.run)
