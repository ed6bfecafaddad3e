"""Runs the benchmarks and prints one page."""

from __future__ import annotations

import argparse
import os
import platform

import asyncpg

from benchmarks import bitrix24, call_model, downloads, settings_cache
from benchmarks.click_to_originate import measure_clicks
from benchmarks.event_to_popup import measure
from benchmarks.fastagi import measure as measure_fastagi
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
    _clicks(chosen.runs)


def _clicks(runs: int) -> None:
    """Concurrency is limited to a thousand open calls by click, so a run has at most 950."""
    print("\nClick (HTTP in) -> Originate bytes on the PBX's socket, durable reservation between; 50 clicks/s, 18 s a run\n")
    print(f"{'run':>5} {'clicks':>7} {'p50, ms':>9} {'p90, ms':>9} {'p99, ms':>9} {'max, ms':>9} {'failed':>6} {'answer p50':>11}")
    for number in range(1, runs + 1):
        found = run_async(measure_clicks(50, 18))
        values = found.originate_ms or [float("nan")]
        p50, p90, p99 = (values[int(len(values) * share)] for share in (0.5, 0.9, 0.99))
        answer = found.answer_ms[len(found.answer_ms) // 2]
        print(f"{number:>5} {len(values):>7} {p50:>9.2f} {p90:>9.2f} {p99:>9.2f} {values[-1]:>9.2f} {found.failed:>6} {answer:>11.2f}", flush=True)
    _settings_cache()
    _downloads()


def _settings_cache() -> None:
    print(f"\nSettings of {settings_cache.ENTERPRISES} enterprises in memory")
    result = run_async(settings_cache.measure())
    print(f"a read: {result.hit_us[0]:.2f} us at best, {result.hit_us[1]:.2f} us in the middle")
    fresh = ", ".join(f"{s * 1000:.0f}" for s in result.fresh_s)
    print(f"one UPDATE of all, until all are fresh on {settings_cache.NODES} nodes: {fresh} ms", flush=True)


def _downloads() -> None:
    print("\nRecordings from the directory source, 200 players at once, files of 4 MB, 10 s; daemon, players and database on the same cores")
    own, bare = run_async(downloads.measure(200, 10, 4))
    print(f"{'':>22} {'MB/s':>8} {'p50, ms':>9} {'p90, ms':>9} {'p99, ms':>9}   first byte")
    for name, result in (("vochid", own), ("bare sendfile server", bare)):
        print(f"{name:>22} {result.mb_per_s:>8.0f} {result.first(0.5):>9.1f} {result.first(0.9):>9.1f} {result.first(0.99):>9.1f}")
    print(f"memory of the daemon: {own.rss_before_mb:.0f} MB before, {own.rss_highest_mb:.0f} MB at its highest", flush=True)

    _bitrix24()

    print("\nFastAGI: connect -> last variable set, as the dialplan waits")
    print(f"{'':<34} {'p50, ms':>9} {'p99, ms':>9} {'max, ms':>9}   dialogues by VOCHI_STATUS")
    for line in run_async(measure_fastagi()):
        print(line, flush=True)


def _bitrix24() -> None:
    print("\nBitrix24: HTTP requests to the portal per telephone call, recording and cards included")
    costs = run_async(bitrix24.measure_requests())
    print(f"ring group {costs.ring_group:.2f}, one phone {costs.one_phone:.2f}, missed by a group {costs.missed:.2f}, after an outage {costs.backlog:.2f}")
    found, refused = run_async(bitrix24.measure_popups())
    print("Popup -> answered by the portal, while ends fill its bucket of 50 that drains 2 a second; 40 popups, one a second")
    print(
        f"p50 {found[len(found) // 2]:.1f} ms, p90 {found[int(len(found) * 0.9)]:.1f} ms, max {found[-1]:.1f} ms; {refused} requests refused by the portal",
        flush=True,
    )


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
