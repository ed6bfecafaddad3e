"""How long pages take: `python -m benchmarks.pages --data-dir DIR` on a database that `lab.seed` filled, or with --calls N on a new one.

A browser's session asks for every page again and again, of the largest enterprise and of others by turns; what is measured is from the
request to the last byte, over loopback, one at a time and eight at once. Beside it the event loop's lag, as the daemon itself measures it.
"""

from __future__ import annotations

import argparse
import asyncio
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
    "reports, 30 days": "/e/{n}/reports?days=30", "status": "/e/{n}/status", "enterprises": "/enterprises",
}  # fmt: skip
PASSWORD = "a long pass phrase 42"  # noqa: S105
LARGEST = "0001"


@dataclass
class Timing:
    """Milliseconds of one page's requests."""

    took_ms: list[float] = field(default_factory=list)
    bytes: int = 0

    def at(self, share: float) -> float:
        values = sorted(self.took_ms)
        return values[max(0, math.ceil(len(values) * share) - 1)]


async def measure(data_dir: Path, rounds: int) -> None:
    """Prints a line per page."""
    daemon = DaemonProcess(data_dir)
    await daemon.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://{daemon.http}", trust_env=False, timeout=60) as browser:
            await _log_in(daemon, browser)
            numbers = [row["number"] for row in (await _api(daemon, "/api/enterprises"))["items"]]
            print(f"{len(numbers)} enterprises; milliseconds from the request to the last byte\n")
            print(f"{'page':<24} {'largest p50':>11} {'p95':>7} {'max':>7} {'others p50':>11} {'p95':>7} {'max':>7} {'kB':>6}")
            for name, path in PATHS.items():
                mine = await _timed(daemon, browser, path, [LARGEST], rounds)
                others = await _timed(daemon, browser, path, [n for n in numbers if n != LARGEST], rounds)
                print(
                    f"{name:<24} {mine.at(0.5):>11.1f} {mine.at(0.95):>7.1f} {mine.at(1):>7.1f} {others.at(0.5):>11.1f} {others.at(0.95):>7.1f} "
                    f"{others.at(1):>7.1f} {mine.bytes / 1000:>6.1f}",
                    flush=True,
                )
            together = await _together(daemon, browser, numbers, rounds)
            print(f"\n8 at once, all pages mixed: p50 {together.at(0.5):.1f}, p95 {together.at(0.95):.1f}, max {together.at(1):.1f} ms")
            print(await _lag(daemon))
    finally:
        await daemon.stop(keep=True)


async def _log_in(daemon: DaemonProcess, browser: httpx.AsyncClient) -> None:
    login = f"bench-{int(time.time())}"
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "daemon", "user", "add", login, env=daemon.environment, stdout=asyncio.subprocess.PIPE)
    link = (await process.communicate())[0].decode().split()[-1]
    answer = await browser.post(link, data={"login": login, "password": PASSWORD})
    if answer.status_code != 303:
        raise RuntimeError(f"nobody gets in: {answer.status_code} {answer.text[:300]}")


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
    timing = Timing()
    for turn in range(rounds):
        address = await _address(daemon, path, numbers[turn * 7 % len(numbers)])
        started = time.perf_counter()
        answer = await browser.get(address)
        timing.took_ms.append((time.perf_counter() - started) * 1000)
        timing.bytes = max(timing.bytes, len(answer.content))
        if answer.status_code != 200:
            raise RuntimeError(f"{address}: {answer.status_code}")
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


async def _lag(daemon: DaemonProcess) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://{daemon.metrics}/metrics")).text
    found = {match[1]: float(match[2]) for match in re.finditer(r'loop_lag\w*_bucket{le="([^"]+)"} (\S+)', text)}
    return "event loop's lag, s (probes not above): " + ", ".join(f"{le}: {count:.0f}" for le, count in found.items())


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
