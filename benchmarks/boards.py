"""How soon live boards hear of a call: `python -m benchmarks.boards [--boards N] [--calls N]`.

A PBX's bytes leave a socket; N boards hold the stream of events open, as browsers do. What is measured is from the bytes that make a phone
ring to the event at each board; the call is committed in between. Sender and boards are one process and one clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import time

from benchmarks.event_to_popup import TRACE, _Call, _document
from daemon.lifecycle import run_async
from lab.fakepbx import FakePbx
from lab.run import DaemonProcess, short_directory

NUMBER = "0001"
SETTLE_S = 3.0


async def measure(boards: int, calls: int) -> list[float]:
    """Milliseconds, sorted: one per board and call."""
    daemon, pbx = DaemonProcess(short_directory("vochid-bench-")), FakePbx()
    await pbx.start()
    heard: dict[str, list[float]] = {}
    sent: dict[str, float] = {}
    try:
        await daemon.start()
        document = _document(NUMBER, pbx, 9)
        await daemon.put({**document, "integrations": {}})
        await asyncio.wait_for(pbx.connected.wait(), 20)
        opened = [asyncio.Event() for _ in range(boards)]
        watching = [asyncio.ensure_future(_watch(daemon, heard, one)) for one in opened]
        await asyncio.gather(*(asyncio.wait_for(one.wait(), 30) for one in opened))
        await asyncio.sleep(1)
        call = _Call.read(TRACE)
        for n in range(calls):
            phone, before, after = call.numbered(n)
            cut = before.rindex(b"\r\n\r\n", 0, len(before) - 4) + 4  # the last event is the one that rings
            pbx.send(before[:cut])
            await asyncio.sleep(0.2)
            sent[phone] = time.perf_counter()
            pbx.send(before[cut:])
            await asyncio.sleep(0.3)
            pbx.send(after)
        await asyncio.sleep(SETTLE_S)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    finally:
        await daemon.stop()
        await pbx.stop()
        shutil.rmtree(daemon.data_dir, ignore_errors=True)
    return sorted((at - sent[phone]) * 1000 for phone, times in heard.items() for at in times)


async def _watch(daemon: DaemonProcess, heard: dict[str, list[float]], opened: asyncio.Event) -> None:
    """One board: notes when it first hears that a customer's call rings."""
    mine: set[str] = set()
    async with daemon.client() as client, client.stream("GET", f"/api/enterprises/{NUMBER}/live", timeout=None) as stream:
        opened.set()
        async for line in stream.aiter_lines():
            if not line.startswith("data: "):
                continue
            at = time.perf_counter()
            call = json.loads(line[6:])
            phone = (call.get("customer_number") or "").removeprefix("+")
            if call.get("rang") and phone not in mine:
                mine.add(phone)
                heard.setdefault(phone, []).append(at)


def main() -> None:
    """Command line."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.boards", description=__doc__)
    options.add_argument("--boards", type=int, default=100)
    options.add_argument("--calls", type=int, default=20)
    chosen = options.parse_args()
    took = run_async(measure(chosen.boards, chosen.calls))
    print(f"{chosen.boards} boards, {chosen.calls} calls: {len(took)} of {chosen.boards * chosen.calls} heard")
    if took:
        print(f"p50 {took[len(took) // 2]:.1f}, p95 {took[int(len(took) * 0.95)]:.1f}, max {took[-1]:.1f} ms from the ringing event to the board")


if __name__ == "__main__":
    main()
