"""Tests whose time is not this machine's: it passes at once when there is nothing to do but wait, and not otherwise."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any


class _Hasty(selectors.DefaultSelector):
    """Where the loop would wait for its next timer, that time has passed."""

    now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select()
        found = super().select(0)
        self.now += timeout if not found else 0.0
        return found


class _TimelessLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._hasty = _Hasty()
        super().__init__(self._hasty)

    def time(self) -> float:
        return self._hasty.now


# Instead of the module `time` in what is tested.
LOOP_TIME = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())


def timeless(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs the test on such a loop. For what speaks with nobody: a socket's other end needs real time."""

    @functools.wraps(test)
    def run(*arguments: Any, **more: Any) -> None:
        with asyncio.Runner(loop_factory=_TimelessLoop) as runner:
            runner.run(test(*arguments, **more))

    return run
