"""One who asks a FastAGI server properly, in a process of its own: what others do to the server at the same time must not hold up the asker."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from lab.dialplan import ask

DEADLINE_S = 60.0


@asynccontextmanager
async def asker(address: str, enterprise: str) -> AsyncIterator[Callable[[], Awaitable[float]]]:
    """Gives what asks once: how long it took in s. Raises RuntimeError for an answer that is none."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "lab.chaos.asker", address, enterprise, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    asks, answers = process.stdin, process.stdout

    async def once() -> float:
        asks.write(b"\n")
        status, took_ms = json.loads(await asyncio.wait_for(answers.readline(), DEADLINE_S))
        if not status:
            raise RuntimeError("a proper question was not answered")
        return float(took_ms) / 1000

    try:
        yield once
    finally:
        asks.close()
        await process.wait()


async def _serve(address: str, enterprise: str) -> None:
    for number, _ in enumerate(sys.stdin):
        asked = await ask(address, enterprise, deadline_s=DEADLINE_S, uniqueid=f"1763701800.{number}")
        print(json.dumps([asked.variables.get("VOCHI_STATUS"), asked.took_ms]), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
