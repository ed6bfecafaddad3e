"""AMI's bytes over a real socket to events in the hands of a program: ours beside clients of other languages. CPU time of the reader alone.

Each reader is a process of its own that logs in to the same port, is sent the recorded mix at once, looks at one header of every event and
tells what CPU it took. `python -m benchmarks.over_sockets NAME PORT SECRET` is such a process; those for node are benchmarks/node/reader.js.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import structlog
import uvloop

from benchmarks.ami_ingest import Spread, corpus
from daemon.ami.link import Link, LinkTarget
from daemon.ami.wire import Frame, Skipped
from daemon.supervisor import Supervisor
from lab.fakepbx import FakePbx

NODE = Path(__file__).parent / "node"
NPM_PEERS = ("asterisk-manager", "asterisk-ami-client")
OURS = ("vochid", "panoramisk on uvloop")
DEADLINE_S = 120.0
REPEATS = 2  # of the corpus
EDGE = b"Event: %s\r\nPrivilege: system,all\r\n\r\n"


class _Sender(FakePbx):
    """Sends the whole mix to whoever logs in, as fast as it is read."""

    async def _answer(self, frame: Frame, writer: asyncio.StreamWriter, challenge: str) -> bool:
        if frame.get("Action") == "login":  # Asterisk reads actions in any case
            return await self._login(frame, writer, challenge, frame.get("ActionID") or "")
        return await super()._answer(frame, writer, challenge)

    async def _login(self, frame: Frame, writer: asyncio.StreamWriter, challenge: str, action_id: str) -> bool:
        taken = await super()._login(frame, writer, challenge, action_id)
        if taken:
            asyncio.get_running_loop().call_later(0.5, lambda: self._sending.append(asyncio.ensure_future(self._mix(writer))))
        return taken

    async def _mix(self, writer: asyncio.StreamWriter) -> None:
        writer.write(EDGE % b"BenchBegin")
        for chunk in corpus() * REPEATS:
            writer.write(chunk)
            await writer.drain()
        writer.write(EDGE % b"BenchEnd")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sending: list[asyncio.Future[None]] = []


def npm_is_missing() -> str | None:
    """Why the peers for node cannot run, or None."""
    if shutil.which("node") is None:
        return "node is not installed"
    missing = [name for name in NPM_PEERS if not (NODE / "node_modules" / name).is_dir()]
    return f"{', '.join(missing)} not installed: `make bench` installs them where npm is" if missing else None


async def measure(runs: int) -> dict[str, tuple[Spread, float]]:
    """By reader: events per second of CPU, and the share of the events that it read (one that loses some is not stopped for it)."""
    peers = () if npm_is_missing() else NPM_PEERS
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in (*OURS, *peers)}
    for _ in range(runs):
        for name in found:
            pbx = _Sender()
            await pbx.start()
            try:
                found[name].append(await _read_by(name, pbx))
            finally:
                await pbx.stop()
    most = max(events for told in found.values() for _, events in told)
    return {name: (_spread([rate for rate, _ in told]), min(events for _, events in told) / most) for name, told in found.items()}


def _spread(rates: list[float]) -> Spread:
    return Spread(statistics.median(rates), min(rates), max(rates))


async def _read_by(name: str, pbx: FakePbx) -> tuple[float, int]:
    """Events per second of CPU, and how many events."""
    command = ["node", str(NODE / "reader.js")] if name in NPM_PEERS else [sys.executable, "-m", "benchmarks.over_sockets"]
    process = await asyncio.create_subprocess_exec(*command, name, str(pbx.port), pbx.secret, stdout=asyncio.subprocess.PIPE)
    try:
        said, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    told = json.loads(said)
    return told["events"] / told["cpu_us"] * 1e6, told["events"]


# -- a reader ----------------------------------------------------------------------------------------------------------------


class _Count:
    """Counts as reader.js does."""

    def __init__(self) -> None:
        self.events, self.began, self.over = 0, 0.0, asyncio.Event()

    def heard(self, name: str, uniqueid: str | None) -> None:
        if name == "BenchBegin":
            self.began = time.process_time()
        if uniqueid is not None:
            self.events += 1
        if name == "BenchEnd":
            print(json.dumps({"events": self.events, "cpu_us": (time.process_time() - self.began) * 1e6}), flush=True)
            self.over.set()

    def on_ready(self, link: Link) -> None: ...

    def on_event(self, frame: Frame, at: float) -> None:
        self.heard(frame.event, frame.get("Uniqueid"))

    def on_unseen(self, skipped: Skipped) -> None: ...

    def on_down(self, reason: str) -> None: ...


async def _read(name: str, port: int, secret: str) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    count = _Count()
    if name == "vochid":
        supervisor = Supervisor("bench")
        supervisor.serve("link", Link("bench", LinkTarget("127.0.0.1", port, "vochid", secret), count, asyncio.Semaphore(1)).run)
        await count.over.wait()
        await supervisor.stop()
        return
    from panoramisk import Manager

    log = logging.getLogger("panoramisk")
    log.setLevel(logging.CRITICAL)
    manager = Manager(host="127.0.0.1", port=port, username="vochid", secret=secret, log=log, ping_delay=3_600)

    def heard(_: object, event: Any) -> None:
        count.heard(event.event, event.get("Uniqueid"))

    manager.register_event("*", heard)
    await manager.connect()
    await count.over.wait()
    manager.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_read(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
