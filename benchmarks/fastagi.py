"""FastAGI over real sockets: how long the dialplan waits from connect to the last variable.

Cached at a steady rate; a CRM that stalls, with a number of its own for every call; a thousand dialogues at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from lab.crm.retailcrm import RetailCrmSandbox
from lab.dialplan import Asked, ask
from lab.fakepbx import FakePbx
from lab.run import DaemonProcess, short_directory

RATE, SECONDS = 200, 10
STALLED_RATE, STALLED_SECONDS = 20, 5
AT_ONCE = 1_000
KNOWN = "+375296254070"


@dataclass(frozen=True)
class Line:
    """One measurement: dialogues by VOCHI_STATUS (`failure`: refused; `stuck`: not ended in 10 s), times in ms."""

    what: str
    statuses: dict[str, int]
    times_ms: list[float]

    def __str__(self) -> str:
        times = self.times_ms or [float("nan")]
        p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
        told = ", ".join(f"{count} {status}" for status, count in sorted(self.statuses.items()))
        return f"{self.what:<34} {p50:>9.2f} {p99:>9.2f} {times[-1]:>9.2f}   {told}"


async def measure() -> list[Line]:
    """Starts a daemon, its PBX and its CRM, and asks."""
    crm, pbx, daemon = RetailCrmSandbox(codes=("150",)), FakePbx(devices={"PJSIP/150": "NOT_INUSE"}), DaemonProcess(short_directory("vochid-bench-"))
    try:
        await crm.start()
        await pbx.start()
        await daemon.start()
        crm.managers.add(KNOWN, 19, "150")
        await daemon.put({
            "number": "0367", "name": "June",
            "pbxs": [{"name": "main", "host": "127.0.0.1", "port": pbx.port, "secret": pbx.secret, "internal_number": "^1\\d\\d$"}],
            "integrations": {"retailcrm": {"domain": crm.url, "api_key": crm.api_key, "user_extensions": {"19": "150"}}},
        })  # fmt: skip
        await asyncio.wait_for(pbx.connected.wait(), 20)
        for n in range(100):  # until the device's state is known
            if (await ask(daemon.fastagi, "0367", KNOWN, uniqueid=f"warm.{n}")).variables.get("VOCHI_STATUS") == "found":
                break
            await asyncio.sleep(0.1)
        cached = await _steady(daemon.fastagi, RATE, SECONDS, lambda n: KNOWN)
        burst = await asyncio.gather(*(_one(daemon.fastagi, KNOWN, f"burst.{n}") for n in range(AT_ONCE)))
        crm.managers.stall_s = 30
        stalled = await _steady(daemon.fastagi, STALLED_RATE, STALLED_SECONDS, lambda n: f"+37529{n:07d}")
        return [
            _line(f"cached, {RATE}/s for {SECONDS} s", cached), _line(f"{AT_ONCE} at once, cached", burst),
            _line(f"CRM stalled, {STALLED_RATE}/s for {STALLED_SECONDS} s", stalled),
        ]  # fmt: skip
    finally:
        await daemon.stop()
        await pbx.stop()
        await crm.stop()


async def _steady(address: str, rate: int, seconds: int, phone: Callable[[int], str]) -> list[tuple[str, float]]:
    started = time.perf_counter()
    asking = []
    for n in range(rate * seconds):
        await asyncio.sleep(max(0.0, started + n / rate - time.perf_counter()))
        asking.append(asyncio.ensure_future(_one(address, phone(n), f"{rate}.{n}")))
    return await asyncio.gather(*asking)


async def _one(address: str, phone: str, uniqueid: str) -> tuple[str, float]:
    started = time.perf_counter()
    try:
        asked: Asked = await ask(address, "0367", phone, uniqueid=uniqueid)
    except TimeoutError:
        return "stuck", (time.perf_counter() - started) * 1000
    return asked.variables.get("VOCHI_STATUS", asked.agistatus.lower()), (time.perf_counter() - started) * 1000


def _line(what: str, asked: list[tuple[str, float]]) -> Line:
    statuses: dict[str, int] = {}
    for status, _ in asked:
        statuses[status] = statuses.get(status, 0) + 1
    return Line(what, statuses, sorted(took for _, took in asked))
