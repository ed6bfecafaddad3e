"""The only place that creates tasks. Every task has a name, an owner and a health record."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

RESTART_FIRST_S = 0.5
RESTART_MAX_S = 30.0
CANCEL_AGAIN_S = 5.0  # asyncio.wait_for before Python 3.12 swallows a cancellation that comes together with what it waits for
QUIET_AFTER_S = 60.0  # a run this long counts as healthy: the delay starts anew

log = structlog.get_logger()
T = TypeVar("T")


@dataclass(slots=True)
class Health:
    """What became of one supervised task."""

    state: str = "running"
    restarts: int = 0
    last_error: str | None = None
    since: float = field(default_factory=time.time)


class Supervisor:
    """Owns a set of tasks: keeps services running, holds on to one-shot jobs, stops all of them.

    A service that ends with an exception is logged and started again after a growing, jittered delay; it never
    takes its siblings with it. Cancellation is passed on untouched.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._services: dict[str, asyncio.Task[None]] = {}
        self._jobs: set[asyncio.Task[Any]] = set()
        self.health: dict[str, Health] = {}

    def serve(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Starts `run` as a service called `name`; it is restarted until it returns or is stopped."""
        if name in self._services and not self._services[name].done():
            raise RuntimeError(f"{self._name}: {name} is running already")
        self.health[name] = Health()
        self._services[name] = asyncio.create_task(self._keep(name, run), name=f"{self._name}:{name}")

    def job(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs `work` once; a failure that nobody awaits is logged, never lost."""
        task = asyncio.create_task(work, name=f"{self._name}:{name}")
        self._jobs.add(task)
        task.add_done_callback(self._job_done)
        return task

    async def stop(self, *names: str) -> None:
        """Stops the named services, or everything, and waits until they are gone."""
        chosen = names or tuple(self._services)
        tasks: list[asyncio.Task[Any]] = [self._services.pop(name) for name in chosen if name in self._services]
        for name in chosen:
            self.health.pop(name, None)
        if not names:
            tasks.extend(self._jobs)
        left = set(tasks)
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        delay_s = RESTART_FIRST_S
        health = self.health[name]
        while True:
            started = time.monotonic()
            try:
                await run()
                health.state = "ended"
                return
            except asyncio.CancelledError:
                raise
            except Exception as error:  # the one place where any failure of a service is survived
                health.restarts += 1
                health.last_error = f"{type(error).__name__}: {error}"[:200]
                log.error("service failed, restarting", service=f"{self._name}:{name}", exc_info=True)
            if time.monotonic() - started > QUIET_AFTER_S:
                delay_s = RESTART_FIRST_S
            await asyncio.sleep(delay_s * (0.5 + random.random()))
            delay_s = min(RESTART_MAX_S, delay_s * 2)

    def _job_done(self, task: asyncio.Task[Any]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("job failed", job=task.get_name(), error=f"{type(error).__name__}: {error}"[:200])
