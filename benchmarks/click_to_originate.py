"""Latency of the way CRM -> PBX, over real sockets: a click's HTTP bytes leave the CRM, the Originate's bytes reach the PBX's socket.

The CRM keeps one connection open, as servers do; between the two lie the lookup of its clientId, the dial rules and a durable
reservation. Sender and receiver are one process and one clock.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import aiohttp

from lab.fakepbx import FakePbx
from lab.run import DaemonProcess, short_directory

PATH = "/retailcrm/api/retailcrm/make-call"
SECRET = "bench-secret-0123456789abcdef"  # noqa: S105
EXTENSIONS = 50
WARM_UP = 50


@dataclass(frozen=True)
class Clicks:
    """Latencies in ms, sorted: click to Originate, and click to the CRM's answer."""

    originate_ms: list[float]
    answer_ms: list[float]
    failed: int


async def measure_clicks(rate: int, seconds: int) -> Clicks:
    """`rate` clicks a second for `seconds`, one enterprise, fifty managers."""
    pbx, daemon = FakePbx(), DaemonProcess(short_directory("vochid-bench-"))
    try:
        await pbx.start()
        await daemon.start()
        await daemon.put(_document(pbx))
        await asyncio.wait_for(pbx.connected.wait(), 20)
        await asyncio.sleep(1)
        async with aiohttp.ClientSession(f"http://{daemon.http}", trust_env=False) as crm:
            for n in range(WARM_UP):
                await _click(crm, n)
            pbx.heard_at.clear()
            heard: list[float] = []
            answered: list[float] = []
            failed = 0
            began = time.perf_counter()
            for n in range(rate * seconds):
                await asyncio.sleep(max(0.0, began + n / rate - time.perf_counter()))
                sent = time.perf_counter()
                status = await _click(crm, WARM_UP + n)
                answered.append((time.perf_counter() - sent) * 1000)
                if status == 200 and len(pbx.heard_at) == len(heard) + 1:
                    heard.append((pbx.heard_at[-1] - sent) * 1000)
                else:
                    failed += 1
        return Clicks(sorted(heard), sorted(answered), failed)
    finally:
        await daemon.stop()
        await pbx.stop()


async def _click(crm: aiohttp.ClientSession, n: int) -> int:
    values = {"clientId": SECRET, "userId": str(n % EXTENSIONS), "phone": f"+37529{6_000_000 + n}"}
    async with crm.get(PATH, params=values) as answer:
        await answer.read()
        return answer.status


def _document(pbx: FakePbx) -> dict[str, object]:
    return {
        "number": "0367", "name": "Bench", "secret": SECRET,
        "pbxs": [{"name": "main", "host": "127.0.0.1", "port": pbx.port, "secret": pbx.secret}],
        "dial_rules": {"per_extension_per_minute": 1_000, "concurrent": 1_000, "per_day": 100_000},
        "integrations": {"retailcrm": {"domain": "http://127.0.0.1:9", "api_key": "bench-key-0123456789",
                                       "user_extensions": {str(n): str(100 + n) for n in range(EXTENSIONS)}}},
    }  # fmt: skip
