"""A bad line between two HTTP servers: resets, lost answers, silence, errors, duplicates at once and much later, reordering. By a seed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Mapping

import aiohttp
from aiohttp import web

# How often, of all requests; the rest passes untouched.
ROUGH = {"refuse": 0.06, "lost": 0.06, "hang": 0.004, "500": 0.03, "502-done": 0.03, "late": 0.10, "twice": 0.06, "again": 0.06}
LATE_S = (0.05, 0.8)
AGAIN_S = (0.5, 3.0)
HANG_S = 60.0
_PASSED = ("Authorization", "Content-Type", "Accept", "X-Ticket-Sequence")


class FaultProxy:
    """Stands before `target`. `told` counts what it did to requests."""

    def __init__(self, target: str, seed: int, faults: Mapping[str, float] = ROUGH) -> None:
        self.target = target
        self.told: Counter[str] = Counter()
        self.calm = False
        self.url = ""
        self._random = random.Random(seed)
        self._faults = faults
        self._later: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> str:
        """Listens on a free port; gives its address."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=20))
        return self.url

    async def stop(self) -> None:
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def quiet(self) -> None:
        """No more faults, and what was to come later has come."""
        self.calm = True
        await asyncio.gather(*self._later, return_exceptions=True)

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fate = self._fate()
        self.told[fate] += 1
        if fate == "refuse":
            return self._reset(request)
        if fate == "500":
            return web.Response(status=500, text="nothing was done")
        if fate == "late":
            await asyncio.sleep(self._random.uniform(*LATE_S))
        if fate == "twice":
            answers = await asyncio.gather(self._forward(request, body), self._forward(request, body))
            answer = answers[self._random.randrange(2)]
        else:
            answer = await self._forward(request, body)
        if fate == "again":
            task = asyncio.create_task(self._repeat(request, body, self._random.uniform(*AGAIN_S)))
            self._later.add(task)
            task.add_done_callback(self._later.discard)
        if fate == "hang":
            await asyncio.sleep(HANG_S)
        if fate == "502-done":
            return web.Response(status=502, text="the answer was lost on the way")
        return self._reset(request) if answer is None or fate in ("lost", "hang") else answer

    def _fate(self) -> str:
        roll = self._random.random()
        if self.calm:
            return "pass"
        for fate, share in self._faults.items():
            if roll < share:
                return fate
            roll -= share
        return "pass"

    async def _repeat(self, request: web.Request, body: bytes, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self._forward(request, body)

    async def _forward(self, request: web.Request, body: bytes) -> web.Response | None:
        """The target's answer; None when it gives none."""
        assert self._session is not None
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.request(request.method, f"{self.target}{request.path_qs}", data=body, headers=headers) as answer:
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
        return None

    def _reset(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)
