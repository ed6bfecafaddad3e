"""Long and even traffic: memory, descriptors and tasks of the daemon stay flat, and every call is accounted for.

python -m lab.chaos.soak --minutes 30
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import time
from dataclasses import dataclass

from lab.chaos.account import Account
from lab.chaos.rows import both
from lab.chaos.world import World, world

SAMPLES = 60
LIMITS = {"memory_mb": 16.0, "descriptors": 8.0, "tasks": 20.0}  # more than so much between the second fifth of the run and the last is growth
_METRICS = {"memory_mb": "process_resident_memory_bytes", "descriptors": "process_open_fds", "tasks": "vochid_tasks"}


@dataclass
class Soak:
    """What was measured: by name, one value per sample; and the account."""

    found: dict[str, list[float]]
    account: Account

    def growth(self) -> dict[str, tuple[float, float]]:
        """By name the medians of the second and of the last fifth."""
        fifth = max(1, len(next(iter(self.found.values()))) // 5)
        return {name: (statistics.median(values[fifth : 2 * fifth]), statistics.median(values[-fifth:])) for name, values in self.found.items()}

    @property
    def is_flat(self) -> bool:
        return all(last - early <= LIMITS[name] for name, (early, last) in self.growth().items())


async def soak(seconds: float, rate: float, seed: int) -> Soak:
    """Runs it."""
    async with world(both()) as place:
        place.start_traffic(rate, seed)
        found: dict[str, list[float]] = {name: [] for name in LIMITS}
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(seconds / SAMPLES)
            for name, value in (await _sample(place)).items():
                found[name].append(value)
            print(", ".join(f"{name} {values[-1]:.0f}" for name, values in found.items()), file=sys.stderr, flush=True)
        await place.stop_traffic()
        await place.settled()
        return Soak(found, await place.account())


async def _sample(place: World) -> dict[str, float]:
    text = await place.metrics()
    values = {}
    for name, metric in _METRICS.items():
        found = re.search(rf"^{metric} ([0-9.e+]+)$", text, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"/metrics does not tell {metric}")
        values[name] = float(found[1]) / (1e6 if name == "memory_mb" else 1)
    return values


def main() -> int:
    """From the command line; exits 1 when something grew, was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=0.7, help="calls a second of each of two PBXs")
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    done = asyncio.run(soak(chosen.minutes * 60, chosen.rate, chosen.seed))
    for name, (early, last) in done.growth().items():
        print(f"{name}: {early:.1f} early, {last:.1f} at the end; allowed {LIMITS[name]:.0f} more")
    account = done.account
    print(f"{account.made} calls in {chosen.minutes:g} min: lost {account.lost}, doubled {account.doubled}, out of order {account.disordered}")
    print("\n".join(account.wrong[:20]))
    return 0 if done.is_flat and account.is_clean and not account.unseen else 1


if __name__ == "__main__":
    sys.exit(main())
