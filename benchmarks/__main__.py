"""Runs the benchmarks and prints one page: every section, or those that are named."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import asyncpg

from benchmarks import (
    ami_ingest,
    bitrix24,
    boards,
    call_model,
    click_to_originate,
    downloads,
    drain,
    event_to_popup,
    fastagi,
    over_sockets,
    pages,
    ratios,
    settings_cache,
    trickle,
    waiting,
    wide,
)
from daemon.compiled import runs_compiled
from daemon.lifecycle import run_async
from lab.run import short_directory

LATENCIES = ("p50, ms", "p90, ms", "p99, ms", "max, ms")
PAGE_CALLS, PAGE_ENTERPRISES, PAGE_ROUNDS = 20_000, 50, 10


def main() -> None:
    """`python -m benchmarks [--only NAME ...] [--runs N] [--rate N] [--seconds N]`."""
    options = argparse.ArgumentParser(prog="make bench", description=__doc__)
    options.add_argument("--only", choices=SECTIONS, nargs="+", default=list(SECTIONS), help="sections to run")
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--rate", type=int, default=50, help="calls, and clicks, per second")
    options.add_argument("--seconds", type=int, default=20, help="length of a run of popups")
    options.add_argument("--quick", action="store_true", help="one run of everything, shorter and smaller: whether it runs, not what it says")
    options.add_argument("--check", action="store_true", help="only compares the ratios to the floor with those that are stored")
    options.add_argument("--store", action="store_true", help="with --check: stores this run's ratios instead")
    chosen = options.parse_args()
    if chosen.check:
        sys.exit(ratios.check(store=chosen.store))
    if chosen.quick:
        chosen.runs, chosen.seconds = 1, 5
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    print(f"{platform.platform()}, {os.cpu_count()} cores, {memory_gb:.0f} GB; Python {platform.python_version()}, asyncpg {asyncpg.__version__}")
    print("Everything runs on these cores at once: daemon, PostgreSQL, PBXs, CRMs and players.")
    for name in chosen.only:
        began = time.monotonic()
        load = os.getloadavg()[0]
        print(f"\n## {name}: {SECTIONS[name].__doc__}", flush=True)
        SECTIONS[name](chosen)
        print(f"({time.monotonic() - began:.0f} s; load before it {load:.1f})", flush=True)


def _table(heads: Sequence[str], measure: Callable[[], Sequence[float]], runs: int) -> None:
    """A line per run, then the median of the runs and their spread, column by column."""
    print(f"{'run':>7}" + "".join(f"{head:>11}" for head in heads), flush=True)
    rows = []
    for number in range(1, runs + 1):
        rows.append(measure())
        print(f"{number:>7}" + "".join(f"{value:>11.2f}" for value in rows[-1]), flush=True)
    if runs > 1:
        columns = list(zip(*rows, strict=True))
        print(f"{'median':>7}" + "".join(f"{statistics.median(column):>11.2f}" for column in columns))
        print(f"{'spread':>7}" + "".join(f"{max(column) - min(column):>11.2f}" for column in columns), flush=True)


def _percentiles(values: Sequence[float]) -> tuple[float, ...]:
    """p50, p90, p99 and the highest of sorted values."""
    known = values or [float("nan")]
    return (*(known[int(len(known) * share)] for share in (0.5, 0.9, 0.99)), known[-1])


def _model(_: argparse.Namespace) -> None:
    """the call model alone, on recorded calls (user CPU time of one core, models in turns)."""
    print(f"it runs {'compiled' if runs_compiled() else 'as it is written'}")
    print(f"{'':>12} {'events/s':>10} {'µs beside 10 live calls':>24} {'beside 10,000':>14}")
    makes = {"vochid": call_model.ours}
    if (peer := call_model.peer()) is not None:
        makes["cacofonisk"] = peer
    found = call_model.measure(makes)
    for name, figures in found.items():
        print(f"{name:>12} {figures.events_per_s:>10,.0f} {figures.us_at_10:>24.1f} {figures.us_at_10_000:>14.1f}", flush=True)
    if peer is None:
        print(f"{'cacofonisk':>12} not installed")
    else:
        print(f"{'ratio':>12} {found['vochid'].events_per_s / found['cacofonisk'].events_per_s:>10.2f}")


def _ingest(chosen: argparse.Namespace) -> None:
    """AMI's bytes -> events, and -> finished calls, beside the peers; every class of events on (CPU time of one core)."""
    runs = chosen.runs if chosen.quick else max(chosen.runs, 5)
    kinds = {
        "events/s, all asked for": ami_ingest.ingest(),
        "noise that is only skipped": ami_ingest.skipping(),
        "events/s into finished calls": ami_ingest.finished_calls(),
    }
    for title, readers in kinds.items():
        print(f"{title:>30} {'median':>10} {'lowest':>10} {'highest':>10}")
        for name, rate in ami_ingest.measure(readers, runs).items():
            print(f"{name:>30} {rate.median:>10,.0f} {rate.lowest:>10,.0f} {rate.highest:>10,.0f}", flush=True)


def _popups(chosen: argparse.Namespace) -> None:
    """event bytes on the PBX's socket -> popup request at the CRM, durable commit between; over 10 enterprises."""

    def run() -> Sequence[float]:
        result = run_async(event_to_popup.measure(chosen.rate, chosen.seconds))
        return (*_percentiles(result.latencies_ms), result.calls, result.lost)

    _table((*LATENCIES, "calls", "lost"), run, chosen.runs)


def _clicks(chosen: argparse.Namespace) -> None:
    """click (HTTP in) -> Originate bytes on the PBX's socket, durable reservation between."""
    seconds = 900 // chosen.rate  # at most a thousand calls by click may be open

    def run() -> Sequence[float]:
        found = run_async(click_to_originate.measure_clicks(chosen.rate, seconds))
        return (*_percentiles(found.originate_ms), len(found.originate_ms), found.failed, _percentiles(found.answer_ms)[0])

    _table((*LATENCIES, "clicks", "failed", "answer p50"), run, chosen.runs)


def _settings(_: argparse.Namespace) -> None:
    """settings of 500 enterprises in memory: a read, and one UPDATE of all of them."""
    result = run_async(settings_cache.measure())
    print(f"a read: {result.hit_us[0]:.2f} us at best, {result.hit_us[1]:.2f} us in the middle")
    fresh = ", ".join(f"{s * 1000:.0f}" for s in result.fresh_s)
    print(f"one UPDATE of all, until all are fresh on {settings_cache.NODES} nodes: {fresh} ms", flush=True)


def _downloads(_: argparse.Namespace) -> None:
    """recordings from the directory source, files of 4 MB, beside the smallest sendfile server; first byte."""
    print(f"{'':>34} {'MB/s':>8}" + "".join(f"{head:>11}" for head in LATENCIES))
    for players, pause_s in ((200, 0.0), (20, 0.5)):
        own, bare = run_async(downloads.measure(players, 10, 4, pause_s))
        how = f"{players} players, {'a pause between' if pause_s else 'without a pause'}"
        for name, result in (("vochid", own), ("bare", bare)):
            print(f"{f'{how}, {name}':>34} {result.mb_per_s:>8.0f}" + "".join(f"{value:>11.1f}" for value in _percentiles(result.first_ms)), flush=True)
        print(f"{'':>34} memory of the daemon: {own.rss_before_mb:.0f} MB before, {own.rss_highest_mb:.0f} MB at its highest", flush=True)


def _fastagi(_: argparse.Namespace) -> None:
    """connect -> last variable set, as the dialplan waits."""
    print(f"{'':<34} {'p50, ms':>9} {'p99, ms':>9} {'max, ms':>9}   dialogues by VOCHI_STATUS")
    for line in run_async(fastagi.measure()):
        print(line, flush=True)


def _bitrix24(_: argparse.Namespace) -> None:
    """HTTP requests to the portal per telephone call, cards and recordings included; popups while ends fill its bucket."""
    costs = run_async(bitrix24.measure_requests())
    print(f"ring group {costs.ring_group:.2f}, one phone {costs.one_phone:.2f}, missed by a group {costs.missed:.2f}, after an outage {costs.backlog:.2f}")
    found, refused = run_async(bitrix24.measure_popups())
    popups = ", ".join(f"{head} {value:.1f}" for head, value in zip(LATENCIES, _percentiles(found), strict=True))
    print(f"40 popups, one a second, beside a bucket of 50 that drains 2 a second: {popups}; {refused} requests refused", flush=True)


def _boards(_: argparse.Namespace) -> None:
    """the event that makes a phone ring -> 100 live boards."""
    took = run_async(boards.measure(100, 20))
    print(f"{len(took)} of 2000 heard: " + ", ".join(f"{head} {value:.1f}" for head, value in zip(LATENCIES, _percentiles(took), strict=True)))


def _pages(_: argparse.Namespace) -> None:
    """the admin's pages on a small history, the largest enterprise and the others."""
    data_dir = short_directory("vochid-bench-")
    try:
        run_async(pages.fill(data_dir, PAGE_CALLS, PAGE_ENTERPRISES))
        print(f"{PAGE_CALLS} calls")
        run_async(pages.measure(data_dir, PAGE_ROUNDS))
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


def _peers(chosen: argparse.Namespace) -> None:
    """AMI over a socket -> events, each reader a process of its own, clients for node too (CPU time of the reader)."""
    if (why := over_sockets.npm_is_missing()) is not None:
        print(f"without the peers from npm: {why}")
    print(f"{'':>24} {'median':>10} {'lowest':>10} {'highest':>10} {'read':>6}")
    for name, (rate, share) in run_async(over_sockets.measure(chosen.runs)).items():
        print(f"{name:>24} {rate.median:>10,.0f} {rate.lowest:>10,.0f} {rate.highest:>10,.0f} {share:>6.0%}", flush=True)


def _trickle(chosen: argparse.Namespace) -> None:
    """one event per segment on many links, 5 a second on each: CPU per event, in us."""
    print(f"{'links':>7} {'events/s':>9}" + "".join(f"{name:>24}" for name in trickle.READERS))
    for links in (10, 100) if chosen.quick else (10, 100, trickle.LINKS):
        found = trickle.measure(links, links * 5, 2.0 if chosen.quick else 3.0)
        print(f"{links:>7} {links * 5:>9}" + "".join(f"{found[name][0]:>24.1f}" for name in trickle.READERS), flush=True)


def _wide(chosen: argparse.Namespace) -> None:
    """many PBXs, an enterprise each: start, connecting, idling, memory, popups alone and beside one PBX that floods (5,000 events/s), stop."""
    heads = ("ready, s", "connected", "at once", "idle, %", "memory, kB", "p50 alone", "p99", "p50 beside", "p99", "lost", "stop, s")
    print(f"{'PBXs':>10}" + "".join(f"{head:>11}" for head in heads))
    base: tuple[int, int] | None = None
    for count, tls in ((10, False), (50, True)) if chosen.quick else ((10, False), (100, False), (1_000, False), (1_000, True)):
        calls_s = 3 if chosen.quick else 10 if count == 1_000 and not tls else 0
        found = run_async(wide.measure(count, tls=tls, idle_s=5 if chosen.quick else 20, calls_s=calls_s))
        alone, beside = _percentiles(found.alone_ms), _percentiles(found.beside_ms)
        values = (found.ready_s, found.connected_s, found.at_once, found.idle_percent, found.memory_kb, alone[0], alone[2], beside[0], beside[2])
        print(f"{f'{count} TLS' if tls else count:>10}" + "".join(f"{value:>11.1f}" for value in (*values, found.lost, found.stop_s)), flush=True)
        base = base or (count, found.memory_kb)
        if count > base[0]:
            print(f"{'':>10}  {(found.memory_kb - base[1]) / (count - base[0]):.0f} kB for each PBX more, its enterprise's settings included", flush=True)


def _start(chosen: argparse.Namespace) -> None:
    """start to ready, and stop, by how many enterprises there are; their PBXs and CRMs are there."""
    print(f"{'enterprises':>12} {'ready, s':>10} {'stop, s':>10}")
    for count in (5, 50) if chosen.quick else (5, 50, 500):
        found = run_async(wide.measure(count, tls=False, idle_s=0, calls_s=0))
        print(f"{count:>12} {found.ready_s:>10.2f} {found.stop_s:>10.2f}", flush=True)


def _durable(chosen: argparse.Namespace) -> None:
    """event -> CRM, durable, at rising rates: 60 events a call over 50 accounts; the daemon's CPU per call."""
    print(f"{'calls/s':>8}" + "".join(f"{head:>11}" for head in (*LATENCIES, "calls", "lost", "CPU ms/call")))
    for rate in (5, 50) if chosen.quick else (5, 50, 200, 500):
        result = run_async(event_to_popup.measure(rate, 5 if chosen.quick else 10, 50))
        values = (*_percentiles(result.latencies_ms), result.calls, result.lost, result.cpu_ms_per_call)
        print(f"{rate:>8}" + "".join(f"{value:>11.2f}" for value in values), flush=True)


def _drain(chosen: argparse.Namespace) -> None:
    """deliveries/s to CRMs that answer at once, from a full outbox."""
    print(f"{'deliveries':>11} {'per second':>11} {'CPU ms each':>12} {'lost':>6}")
    for count in (100, 1_000) if chosen.quick else (100, 1_000, 10_000):
        found = run_async(drain.measure(count))
        print(f"{count:>11} {found.per_s:>11.0f} {found.cpu_ms_each:>12.2f} {found.lost:>6}", flush=True)


def _waiting(chosen: argparse.Namespace) -> None:
    """statements on an outbox in which so many deliveries wait: p50 and p99 in ms, round trip included."""
    for costs in run_async(waiting.measure((1_000, 10_000) if chosen.quick else waiting.SIZES, 50 if chosen.quick else waiting.CLAIMS)):
        told = ", ".join(f"{name} {found[0]:.1f}/{found[2]:.1f}" for name, values in costs.took_ms.items() for found in [_percentiles(values)])
        print(f"{costs.waiting:>9,} {'over 500 connections' if costs.shape == 'even' else 'in one connection'}: {told}", flush=True)


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "model": _model, "ingest": _ingest, "popups": _popups, "clicks": _clicks, "settings": _settings,
    "downloads": _downloads, "fastagi": _fastagi, "bitrix24": _bitrix24, "boards": _boards, "pages": _pages,
    "peers": _peers, "trickle": _trickle, "wide": _wide,
    "start": _start, "durable": _durable, "drain": _drain, "waiting": _waiting,
}  # fmt: skip

if __name__ == "__main__":
    main()
