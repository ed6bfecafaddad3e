"""Runs the benchmarks and prints one page."""

from __future__ import annotations

import argparse
import os
import platform

import asyncpg

from benchmarks.event_to_popup import measure
from benchmarks.fastagi import measure as measure_fastagi
from daemon.lifecycle import run_async


def main() -> None:
    """`python -m benchmarks [--rate N] [--seconds N] [--runs N]`."""
    options = argparse.ArgumentParser(prog="make bench", description=__doc__)
    options.add_argument("--rate", type=int, default=50, help="calls per second")
    options.add_argument("--seconds", type=int, default=20, help="length of a run")
    options.add_argument("--runs", type=int, default=3)
    chosen = options.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, asyncpg {asyncpg.__version__}\n")
    print("Event bytes on the socket -> popup request at the CRM, durable commit between")
    print(f"{chosen.rate} calls/s over 10 enterprises, {chosen.seconds} s a run; daemon, its PostgreSQL, PBXs and CRMs on the same cores\n")
    print(f"{'run':>5} {'calls':>7} {'p50, ms':>9} {'p90, ms':>9} {'p99, ms':>9} {'max, ms':>9} {'lost':>5}")
    for number in range(1, chosen.runs + 1):
        result = run_async(measure(chosen.rate, chosen.seconds))
        p50, p90, p99, worst = result.percentiles
        print(f"{number:>5} {result.calls:>7} {p50:>9.2f} {p90:>9.2f} {p99:>9.2f} {worst:>9.2f} {result.lost:>5}", flush=True)

    print("\nFastAGI: connect -> last variable set, as the dialplan waits")
    print(f"{'':<34} {'p50, ms':>9} {'p99, ms':>9} {'max, ms':>9}   dialogues by VOCHI_STATUS")
    for line in run_async(measure_fastagi()):
        print(line, flush=True)


main()
