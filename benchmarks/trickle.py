"""Many links with little on each: a thousand connections, one event per segment, as a fleet of PBXs is most of the day. CPU per event.

The sender is a process of its own (`python -m benchmarks.trickle LINKS EVENTS-PER-S`), for it costs more than the reader. Read by our links, with a
handler that looks at one header and nothing else, and by panoramisk's managers with such a callback; both on uvloop, and panoramisk also on
the loop that its own users have. In turns, each for a few seconds; ours also with the call model and the traces behind the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
import uvloop

from benchmarks.call_model import GOLDEN, NAMES, VIEW
from daemon.ami.link import Link, LinkTarget
from daemon.ami.wire import Frame, Skipped
from daemon.calls.correlator import Correlator
from daemon.calls.tracer import Tracer
from daemon.supervisor import Supervisor
from lab.fakepbx import FakePbx

LINKS, PER_S = 1_000, 5_000
READY_DEADLINE_S = 60.0
SECRET = "bench"  # noqa: S105

Heard = list[int]  # one number: events so far


class _Looks:
    """A handler that reads one header."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard

    def on_ready(self, link: Link) -> None: ...

    def on_event(self, frame: Frame, at: float) -> None:
        frame.get("Uniqueid")
        self._heard[0] += 1

    def on_unseen(self, skipped: Skipped) -> None: ...

    def on_down(self, reason: str) -> None: ...


class _Models(_Looks):
    """A handler with a call model and traces of its own, as a PBX of the daemon has them; nothing is stored."""

    def __init__(self, heard: Heard) -> None:
        super().__init__(heard)
        self._model, self._tracer = Correlator(VIEW), Tracer()

    def on_event(self, frame: Frame, at: float) -> None:
        self._heard[0] += 1
        self._tracer.inbox.append((frame, at))
        self._model.feed(frame, at)


async def _ours(port: int, count: int, heard: Heard, handler: type[_Looks]) -> Callable[[], Any]:
    supervisor, gate = Supervisor("bench"), asyncio.Semaphore(20)
    links = [Link(str(n), LinkTarget("127.0.0.1", port, "vochid", SECRET), handler(heard), gate) for n in range(count)]
    for link in links:
        supervisor.serve(link.name, link.run)
    await _until(lambda: all(link.is_ready for link in links))
    return supervisor.stop


async def _panoramisk(port: int, count: int, heard: Heard) -> Callable[[], Any]:
    from panoramisk import Manager

    log = logging.getLogger("panoramisk")
    log.setLevel(logging.CRITICAL)

    def look(_: object, event: Any) -> None:
        event.get("Uniqueid")
        heard[0] += 1

    managers = []
    for _ in range(count):
        manager = Manager(host="127.0.0.1", port=port, username="vochid", secret=SECRET, log=log, ping_delay=3_600)
        manager.register_event("*", look)
        await manager.connect()
        managers.append(manager)

    async def close() -> None:
        for manager in managers:
            manager.close()

    return close


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(READY_DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@asynccontextmanager
async def _sender(count: int, per_s: int) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    command = [sys.executable, "-m", "benchmarks.trickle", str(count), str(per_s)]
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(await asyncio.wait_for(process.stdout.readline(), READY_DEADLINE_S)), process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _measure(who: str, count: int, per_s: int, seconds: float) -> tuple[float, float]:
    heard: Heard = [0]
    async with _sender(count, per_s) as (port, process):
        if who == "panoramisk":
            close = await _panoramisk(port, count, heard)
        else:
            close = await _ours(port, count, heard, _Models if who == "vochid, with its model" else _Looks)
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        await _until(lambda: heard[0] > 0)
        began, cpu, before = time.perf_counter(), time.process_time(), heard[0]
        await asyncio.sleep(seconds)
        read, took, cpu = heard[0] - before, time.perf_counter() - began, time.process_time() - cpu
        await close()
    return cpu / max(1, read) * 1e6, read / took


READERS: dict[str, tuple[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "vochid": ("vochid", uvloop.new_event_loop),
    "vochid, with its model": ("vochid, with its model", uvloop.new_event_loop),
    "panoramisk on uvloop": ("panoramisk", uvloop.new_event_loop),
    "panoramisk": ("panoramisk", asyncio.new_event_loop),
}


def measure(count: int = LINKS, per_s: int = PER_S, seconds: float = 5.0) -> dict[str, tuple[float, float]]:
    """By reader: microseconds of CPU per event, and events per second that it was given."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    found = {}
    for name, (who, loop) in READERS.items():
        with asyncio.Runner(loop_factory=loop) as runner:
            found[name] = runner.run(_measure(who, count, per_s, seconds))
    return found


# -- the sender ------------------------------------------------------------------------------------------------------------


async def _send(count: int, per_s: int) -> None:
    pbx = FakePbx(secret=SECRET)
    await pbx.start()
    print(pbx.port, flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.readline)
    events = [raw + b"\r\n\r\n" for name in NAMES for raw in (GOLDEN / name / "asterisk-22.ami").read_bytes().split(b"\r\n\r\n") if raw.startswith(b"Event: ")]
    await _until(lambda: len(pbx._writers) == count)
    writers, began, sent = list(pbx._writers), time.perf_counter(), 0
    while len(pbx._writers) == count:  # until the first reader leaves
        while sent < (time.perf_counter() - began) * per_s:
            writers[sent % count].write(events[(sent // count * 7 + sent) % len(events)])
            sent += 1
        await asyncio.sleep(0.001)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_send(int(sys.argv[1]), int(sys.argv[2])))
