"""How long pages take: `python -m benchmarks.pages --data-dir DIR` on a database that `lab.seed` filled, or with --calls N on a new one.

A browser's session asks for every page again and again, of the largest enterprise and of others by turns, in each role; what is measured is
from the request to the last byte, over loopback, one at a time and eight at once, and the CPU time of the daemon and its database together,
which does not depend on what else the machine does. Beside it the event loop's lag, as the daemon itself measures it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import random
import re
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from daemon.lifecycle import run_async
from daemon.store.embedded import EmbeddedPostgres
from daemon.store.migrate import migrate
from daemon.store.pool import dump_json
from lab.fleet import Usage
from lab.run import DaemonProcess, short_directory
from lab.seed import Plan, document, seed

PATHS = {
    "history": "/e/{n}/calls", "history, second page": "/e/{n}/calls?cursor={cursor}",
    "search by number": "/e/{n}/calls?q={tail}", "search by name": "/e/{n}/calls?q=восток",
    "rare name": "/e/{n}/calls?q=o'neill", "missed, 30 days": "/e/{n}/calls?result=missed&period=30",
    "one extension": "/e/{n}/calls?extension=153",
    "unknown extension": "/e/{n}/calls?extension=999", "a call": "/e/{n}/calls/{call}",
    "live board": "/e/{n}/live", "its beginning": "/api/enterprises/{n}/live/now",
    "missed calls": "/e/{n}/missed", "deliveries": "/e/{n}/deliveries",
    "dead letters": "/e/{n}/deliveries?state=dead", "reports, 7 days": "/e/{n}/reports",
    "reports, 30 days": "/e/{n}/reports?days=30", "reports, 90 days": "/e/{n}/reports?days=90", "status": "/e/{n}/status", "enterprises": "/enterprises",
    "who need attention": "/enterprises?show=trouble", "an enterprise": "/e/{n}", "tickets": "/e/{n}/tickets", "records": "/e/{n}/records/users",
    "integrations": "/e/{n}/integrations", "phones": "/e/{n}/settings/numbers", "dial rules": "/e/{n}/settings/dial",
    "nodes": "/nodes", "people": "/people", "changes": "/audit",
}  # fmt: skip
ROLES = ("admin", "viewer")  # besides the super-admin, who sees everything
SHOWN_OF_A_ROLE = 4  # its slowest pages
PASSWORD = "a long pass phrase 42"  # noqa: S105
LARGEST = "0001"
QUIET_S, QUIET_SHARE = 3.0, 0.1


@dataclass
class Timing:
    """Milliseconds of one page's requests; the CPU time of one, daemon and database together."""

    took_ms: list[float] = field(default_factory=list)
    bytes: int = 0
    cpu_ms: float = 0.0

    def at(self, share: float) -> float:
        values = sorted(self.took_ms)
        return values[max(0, math.ceil(len(values) * share) - 1)]


async def measure(data_dir: Path, rounds: int) -> None:
    """Prints a line per page, then the slowest of each other role, eight at once, and how late the event loop was meanwhile."""
    daemon = DaemonProcess(data_dir)
    await daemon.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://{daemon.http}", trust_env=False, timeout=60) as browser:
            await _log_in(daemon, browser)
            numbers = [row["number"] for row in (await _api(daemon, "/api/enterprises"))["items"]]
            await _settle(daemon)
            before = await _lags(daemon)
            print(f"{len(numbers)} enterprises; milliseconds from the request to the last byte; CPU: of daemon and database for one\n")
            print(f"{'page':<24} {'largest p50':>11} {'p95':>7} {'max':>7} {'CPU':>7} {'others p50':>11} {'p95':>7} {'max':>7} {'CPU':>7} {'kB':>6}")
            for name, path in PATHS.items():
                mine = await _timed(daemon, browser, path, [LARGEST], rounds)
                others = await _timed(daemon, browser, path, [n for n in numbers if n != LARGEST], rounds)
                print(
                    f"{name:<24} {mine.at(0.5):>11.1f} {mine.at(0.95):>7.1f} {mine.at(1):>7.1f} {mine.cpu_ms:>7.1f} {others.at(0.5):>11.1f} "
                    f"{others.at(0.95):>7.1f} {others.at(1):>7.1f} {others.cpu_ms:>7.1f} {mine.bytes / 1000:>6.1f}",
                    flush=True,
                )
            for role in ROLES:
                await _as_another(daemon, role, rounds)
            print(f"one at a time: {_told(before, await _lags(daemon))}", flush=True)
            before = await _lags(daemon)
            together = await _together(daemon, browser, numbers, rounds)
            print(f"\n8 at once, all pages mixed: p50 {together.at(0.5):.1f}, p95 {together.at(0.95):.1f}, max {together.at(1):.1f} ms")
            print(_told(before, await _lags(daemon)))
    finally:
        await daemon.stop(keep=True)


async def _as_another(daemon: DaemonProcess, role: str, rounds: int) -> None:
    """The pages that this role may see of the largest enterprise."""
    found: dict[str, Timing] = {}
    async with httpx.AsyncClient(base_url=f"http://{daemon.http}", trust_env=False, timeout=60) as browser:
        await _log_in(daemon, browser, "--enterprise", LARGEST, "--role", role)
        for name, path in PATHS.items():
            if (await browser.get(await _address(daemon, path, LARGEST))).status_code == 200:
                found[name] = await _timed(daemon, browser, path, [LARGEST], rounds)
    slowest = sorted(found, key=lambda name: -found[name].at(0.95))[:SHOWN_OF_A_ROLE]
    told = ", ".join(f"{name} {found[name].at(0.95):.1f} (CPU {found[name].cpu_ms:.1f})" for name in slowest)
    print(f"as {role}, {len(found)} pages; p95 of the slowest: {told}", flush=True)


async def _log_in(daemon: DaemonProcess, browser: httpx.AsyncClient, *role: str) -> None:
    login = f"bench-{time.time_ns()}"
    command = (sys.executable, "-m", "daemon", "user", "add", login, *role)
    process = await asyncio.create_subprocess_exec(*command, env=daemon.environment, stdout=asyncio.subprocess.PIPE)
    link = (await process.communicate())[0].decode().split()[-1]
    answer = await browser.post(link, data={"login": login, "password": PASSWORD})
    if answer.status_code != 303:
        raise RuntimeError(f"nobody gets in: {answer.status_code} {answer.text[:300]}")


async def _settle(daemon: DaemonProcess) -> None:
    """Waits until what a start on a full database brings (days to sum) is done: the CPU time of pages is counted by difference."""
    while True:
        before = _cpu_s(daemon)
        await asyncio.sleep(QUIET_S)
        if _cpu_s(daemon) - before < QUIET_S * QUIET_SHARE:
            return


def _cpu_s(daemon: DaemonProcess) -> float:
    """CPU seconds of the daemon and of its database so far, of connections that are closed too (Linux, /proc)."""
    assert daemon.process is not None
    postmaster = int((daemon.data_dir / "postgresql/data/postmaster.pid").read_text().split()[0])
    total = Usage.of(daemon.process.pid).cpu_s + Usage.of(postmaster).with_children_s
    for child in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):  # it has just ended
            total += Usage.of(int(child)).cpu_s
    return total


async def _api(daemon: DaemonProcess, path: str) -> dict[str, Any]:
    async with daemon.client() as client:
        return (await client.get(path)).json()  # type: ignore[no-any-return]


async def _address(daemon: DaemonProcess, path: str, number: str) -> str:
    """The path with what it needs of this enterprise."""
    if "{cursor}" not in path and "{call}" not in path and "{tail}" not in path:
        return path.format(n=number)
    found = await _api(daemon, f"/api/enterprises/{number}/calls?limit=50&direction=in")
    items: list[dict[str, str]] = found["items"]
    call = next(item for item in items if item["customer_number"])
    return path.format(n=number, cursor=found["next"], call=call["id"], tail=call["customer_number"][-6:])


async def _timed(daemon: DaemonProcess, browser: httpx.AsyncClient, path: str, numbers: list[str], rounds: int) -> Timing:
    timing, cpu_s = Timing(), 0.0
    for turn in range(rounds):
        address = await _address(daemon, path, numbers[turn * 7 % len(numbers)])
        used, started = _cpu_s(daemon), time.perf_counter()
        answer = await browser.get(address)
        timing.took_ms.append((time.perf_counter() - started) * 1000)
        cpu_s += _cpu_s(daemon) - used
        timing.bytes = max(timing.bytes, len(answer.content))
        if answer.status_code != 200:
            raise RuntimeError(f"{address}: {answer.status_code}")
    timing.cpu_ms = cpu_s / rounds * 1000
    return timing


async def _together(daemon: DaemonProcess, browser: httpx.AsyncClient, numbers: list[str], rounds: int) -> Timing:
    timing, chance = Timing(), random.Random(1)
    paths = [path for path in PATHS.values() if not re.search(r"{(cursor|call|tail)}", path)]

    async def one() -> None:
        for _ in range(rounds):
            address = chance.choice(paths).format(n=chance.choice(numbers))
            started = time.perf_counter()
            await browser.get(address)
            timing.took_ms.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(one() for _ in range(8)))
    return timing


async def _lags(daemon: DaemonProcess) -> dict[str, float]:
    """How many probes of the event loop were not later than so many seconds, since the start."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://{daemon.metrics}/metrics")).text
    return {match[1]: float(match[2]) for match in re.finditer(r'loop_lag\w*_bucket{le="([^"]+)"} (\S+)', text)}


def _told(before: dict[str, float], after: dict[str, float]) -> str:
    return "event loop's lag, s (probes not above): " + ", ".join(f"{le}: {count - before[le]:.0f}" for le, count in after.items())


async def fill(data_dir: Path, calls: int, enterprises: int) -> None:
    """A new database with so many calls."""
    server = EmbeddedPostgres(data_dir)
    await server.start(own=True)
    try:
        await migrate(server.url)
        numbers = tuple(f"{n:04d}" for n in range(1, enterprises + 1))
        await seed(server.url, Plan(calls, numbers, deliveries=5, skewed=True))
        await found_enterprises(server.url, numbers)
    finally:
        await server.stop()


async def found_enterprises(url: str, numbers: tuple[str, ...]) -> None:
    """Rows for the enterprises whose calls are there."""
    connection = await asyncpg.connect(url)
    try:
        for number in numbers:
            whole = document(number, f"Предприятие {number}")
            settings = {name: value for name, value in whole.items() if name not in ("number", "name", "internal_phones")}
            await connection.execute(
                "insert into enterprises (number, name, settings) values ($1, $2, $3) on conflict do nothing", number, whole["name"], dump_json(settings)
            )
            phones: Any = whole["internal_phones"]
            for position, phone in enumerate(phones):
                await connection.execute(
                    "insert into user_internal_phones (enterprise_number, number, owner, position) values ($1, $2, $3, $4) on conflict do nothing",
                    number, phone["number"], phone["owner"], position,
                )  # fmt: skip
    finally:
        await connection.close()


def main() -> None:
    """Command line."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    options.add_argument("--data-dir", type=Path, help="a data directory that was filled before; kept")
    options.add_argument("--calls", type=int, default=100_000, help="without --data-dir: calls of a new database, thrown away afterwards")
    options.add_argument("--enterprises", type=int, default=500)
    options.add_argument("--rounds", type=int, default=30)
    chosen = options.parse_args()
    data_dir = chosen.data_dir or short_directory("vochid-bench-")
    try:
        if chosen.data_dir is None or not (data_dir / "postgresql").exists():
            data_dir.mkdir(exist_ok=True)
            run_async(fill(data_dir, chosen.calls, chosen.enterprises))
        run_async(measure(data_dir, chosen.rounds))
    finally:
        if chosen.data_dir is None:
            shutil.rmtree(data_dir, ignore_errors=True)


if __name__ == "__main__":
    main()
