"""Deliveries a second to CRMs that answer at once: the outbox is filled, then the daemon starts, and what arrives is counted.

Every delivery is a request of its own, in a lane of its own. The accounts' rate limit (40 a second each) lies above what the daemon can do.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.event_to_popup import _Crm
from benchmarks.waiting import CALL
from daemon.store.embedded import EmbeddedPostgres
from daemon.store.pool import dump_json
from lab.fleet import Usage, fill
from lab.office import free_port
from lab.run import DaemonProcess, short_directory

ACCOUNTS = 100
DEADLINE_S = 180.0

_FILL = """
insert into deliveries (enterprise_number, integration, call_id, kind, key, priority, payload)
select to_char(n % $2, 'FM0000'), 'retailcrm', md5(n::text)::uuid, 'hangup', 'bench:' || n, 0,
  jsonb_build_object('type', 'hangup', 'codes', jsonb_build_array('150'), 'hangupStatus', 'no answered',
    'call', $3::jsonb || jsonb_build_object('id', md5(n::text)::uuid, 'enterprise', to_char(n % $2, 'FM0000')))
from generate_series(0, $1 - 1) n
"""


@dataclass(frozen=True)
class Drained:
    """How many arrived in a second, from the first to the last; the daemon's CPU for each in ms; how many never arrived."""

    per_s: float
    cpu_ms_each: float
    lost: int


class _Counting(_Crm):
    def __init__(self, arrived: list[float]) -> None:
        super().__init__({})
        self._arrived = arrived

    def _note(self, body: bytes, at: float) -> None:
        self._arrived.append(at)


async def measure(deliveries: int, accounts: int = ACCOUNTS) -> Drained:
    """Starts everything anew."""
    directory, arrived = short_directory("vochid-bench-"), list[float]()
    daemon = DaemonProcess(directory)
    port = free_port()  # the same on every address: an account is a host
    server = await asyncio.get_running_loop().create_server(lambda: _Counting(arrived), [f"127.0.0.{n + 1}" for n in range(accounts)], port)
    try:
        await fill(directory, [_document(f"{n:04d}", f"http://127.0.0.{n + 1}:{port}") for n in range(accounts)])
        await _insert(directory, deliveries, accounts)
        await daemon.start()
        assert daemon.process is not None
        used, before = Usage.of(daemon.process.pid).cpu_s, len(arrived)  # without the start itself
        deadline = time.monotonic() + DEADLINE_S
        while len(arrived) < deliveries and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        used = Usage.of(daemon.process.pid).cpu_s - used
        took = arrived[-1] - arrived[0] if len(arrived) > 1 else float("nan")
        return Drained(len(arrived) / took, used / max(1, len(arrived) - before) * 1000, deliveries - len(arrived))
    finally:
        await daemon.stop()
        server.close()
        shutil.rmtree(directory, ignore_errors=True)


async def _insert(directory: Path, deliveries: int, accounts: int) -> None:
    postgres = EmbeddedPostgres(directory)
    await postgres.start(own=True)
    try:
        owner = await asyncpg.connect(postgres.url)
        await owner.execute(_FILL, deliveries, accounts, dump_json(CALL.to_json()))
        await owner.execute("vacuum analyze deliveries")
        await owner.close()
    finally:
        await postgres.stop()


def _document(number: str, url: str) -> dict[str, Any]:
    return {"number": number, "name": "Bench", "pbxs": [], "integrations": {"retailcrm": {"domain": url, "api_key": "bench-key-0123456789"}}}
