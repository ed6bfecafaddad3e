"""What must not get slower: ratios to the floor of the same run, beside those that are stored. Never times: those belong to a machine.

The floor is splitting the same bytes at their ends of frames; it is done by the interpreter's own C, so that what slows the machine down slows
both. The best of several interleaved runs of each is taken: what else the machine does only ever takes away.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import ami_ingest
from benchmarks.ami_ingest import Read
from daemon.compiled import runs_compiled

STORED = Path(__file__).parent / "ratios.json"
TOLERANCE = 0.2
RUNS = 9
AGAIN = 2  # a ratio below its bound is taken anew so often before it counts
FLOOR = "floor: split"


def _readers() -> dict[str, Callable[[], Read]]:
    return {
        FLOOR: ami_ingest.ingest()[FLOOR],
        "bytes to events": ami_ingest.ingest()["vochid"],
        "bytes to nothing: noise that is only skipped": ami_ingest.skipping()["vochid"],
        "bytes to finished calls": ami_ingest.finished_calls()["vochid"],
    }


def measure(runs: int = RUNS) -> dict[str, float]:
    """By path, its events per second as a share of the floor's."""
    rates = {name: rate.highest for name, rate in ami_ingest.measure(_readers(), runs).items()}
    floor = rates.pop(FLOOR)
    return {name: rate / floor for name, rate in rates.items()}


def regressions(stored: dict[str, float], found: dict[str, float]) -> dict[str, float]:
    """The paths that lost more than TOLERANCE of their ratio, and what is left of it; one that is gone or not stored has lost all."""
    left = {name: found.get(name, 0.0) / stored[name] if stored.get(name) else 0.0 for name in stored.keys() | found.keys()}
    return {name: share for name, share in left.items() if share < 1 - TOLERANCE}


def check(*, store: bool) -> int:
    """Prints each ratio beside the stored one; 1 when one has regressed, 2 when the comparison would mean nothing."""
    found = measure()
    if store:
        STORED.write_text(json.dumps({"taken": _where(), "ratios": {name: round(ratio, 4) for name, ratio in found.items()}}, indent=2) + "\n")
        print(f"stored in {STORED.name}")
        return 0
    kept: dict[str, Any] = json.loads(STORED.read_text())
    if kept["taken"]["compiled"] != runs_compiled():
        print(f"stored ratios are of modules {'compiled' if kept['taken']['compiled'] else 'as they are written'}, these are not: nothing to compare")
        return 2
    for _ in range(AGAIN):
        if not regressions(kept["ratios"], found):
            break
        found = {name: max(ratio, found[name]) for name, ratio in measure().items()}
    slower = regressions(kept["ratios"], found)
    for name, ratio in found.items():
        print(f"{name:>46} {ratio:>8.3f} of the floor, stored {kept['ratios'].get(name, 0.0):.3f}{'   SLOWER' if name in slower else ''}")
    return 1 if slower else 0


def _where() -> dict[str, Any]:
    """The machine and what ran on it."""
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version(), "compiled": runs_compiled(),
        "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
