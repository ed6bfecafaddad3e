"""Plays scenarios on a real PBX and records the AMI stream of each: `python -m lab.record DIR [--asterisk 16] [NAME …]`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from daemon.ami.link import Link, LinkTarget
from daemon.supervisor import Supervisor
from daemon.tape import Tape
from lab.asterisk import ensure_root
from lab.office import Office
from lab.phones import Phones
from lab.scenarios import SCENARIOS, Scenario, Stage
from lab.softphone import Softphones

SETTLED_S = 0.2  # so long nothing more is told after a scenario's last hangup: it is over
SETTLE_DEADLINE_S = 30.0


@asynccontextmanager
async def stage(office: Office) -> AsyncIterator[tuple[Stage, Tape]]:
    """A stage on a running office, with a tape of what the PBX tells vochid's manager user."""
    tape, supervisor = Tape(), Supervisor("record")
    link = Link("pbx", LinkTarget("127.0.0.1", office.ports.pbx_ami, "vochid", office.secret), tape, asyncio.Semaphore(1))
    supervisor.serve("pbx", link.run)
    try:
        await asyncio.wait_for(tape.ready.wait(), 60)
        async with Phones(office) as phones, Softphones(office.ports.soft_sip, office.ports.pbx_sip) as soft:
            yield Stage(phones, link, soft), tape
    finally:
        await supervisor.stop()


async def play(scenario: Scenario, on: Stage, tape: Tape) -> tuple[bytes, bytes]:
    """Plays one scenario; gives its trace and sidecar."""
    tape.clear()
    await scenario.play(on)
    with contextlib.suppress(TimeoutError):  # a channel that stays up shows in the record
        async with asyncio.timeout(SETTLE_DEADLINE_S):
            await _settled(tape)
    return bytes(tape.data), tape.sidecar()


async def _settled(tape: Tape) -> None:
    """Waits until every channel is hung up and the PBX has nothing to add."""
    told = -1
    while told != len(tape.data) or tape.data.count(b"Event: Newchannel\r\n") > tape.data.count(b"Event: Hangup\r\n"):
        told = len(tape.data)
        await asyncio.sleep(SETTLED_S)


async def record(directory: Path, version: int, names: list[str]) -> None:
    """Records the named scenarios (all by default) into `directory`."""
    office = await Office.start(ensure_root(version))
    try:
        async with stage(office) as (on, tape):
            for name in names or list(SCENARIOS):
                data, sidecar = await play(SCENARIOS[name], on, tape)
                folder = directory / name
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"asterisk-{version}.ami").write_bytes(data)
                (folder / f"asterisk-{version}.ami.json").write_bytes(sidecar)
                about = {"says": SCENARIOS[name].says, "expect": SCENARIOS[name].expect, "recorded": str(datetime.now(UTC).date())}
                (folder / "scenario.json").write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n")
                print(f"{name}: {len(data)} bytes", file=sys.stderr, flush=True)
    finally:
        await office.stop()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("names", nargs="*")
    arguments.add_argument("--asterisk", type=int, default=22)
    parsed = arguments.parse_intermixed_args()
    asyncio.run(record(parsed.directory, parsed.asterisk, parsed.names))
