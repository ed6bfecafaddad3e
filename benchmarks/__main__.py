"""Runs the benchmarks and prints one page."""

from __future__ import annotations

import argparse
import os
import platform

import asyncpg

from benchmarks import call_model
from benchmarks.event_to_popup import measure
from daemon.lifecycle import run_async


def main() -> None:
    """`python -m benchmarks [--rate N] [--seconds N] [--runs N]`."""
    options = argparse.ArgumentParser(prog="make bench", description=__doc__)
    options.add_argument("--rate", type=int, default=50, help="calls per second")
    options.add_argument("--seconds", type=int, default=20, help="length of a run")
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--only-model", action="store_true", help="only the call model")
    chosen = options.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, asyncpg {asyncpg.__version__}\n")
    _call_model()
    if chosen.only_model:
        return
    print("Event bytes on the socket -> popup request at the CRM, durable commit between")
    print(f"{chosen.rate} calls/s over 10 enterprises, {chosen.seconds} s a run; daemon, its PostgreSQL, PBXs and CRMs on the same cores\n")
    print(f"{'run':>5} {'calls':>7} {'p50, ms':>9} {'p90, ms':>9} {'p99, ms':>9} {'max, ms':>9} {'lost':>5}")
    for number in range(1, chosen.runs + 1):
        result = run_async(measure(chosen.rate, chosen.seconds))
        p50, p90, p99, worst = result.percentiles
        print(f"{number:>5} {result.calls:>7} {p50:>9.2f} {p90:>9.2f} {p99:>9.2f} {worst:>9.2f} {result.lost:>5}", flush=True)


def _call_model() -> None:
    print("The call model alone, on recorded calls (CPU time of one core)")
    print(f"{'':>12} {'events/s':>10} {'µs beside 10 live calls':>24} {'beside 10,000':>14}")
    for name, make in (("vochid", call_model.ours), ("cacofonisk", call_model.peer())):
        if make is None:
            print(f"{name:>12} not installed")
            continue
        figures = call_model.measure(make)
        print(f"{name:>12} {figures.events_per_s:>10,.0f} {figures.us_at_10:>24.1f} {figures.us_at_10_000:>14.1f}", flush=True)
    print()


main()
