"""The process's life: signals, systemd's notifications, the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import signal
import socket
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from daemon.app import App
from daemon.settings import Settings

WATCHDOG_S = 5.0
NOTIFY_DEADLINE_S = 0.2  # a service manager that does not read must not hold the event loop
T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Runs to the end on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def serve(settings: Settings) -> None:
    """The daemon, until SIGTERM or SIGINT; a second signal ends it at once. SIGHUP reads every enterprise's settings anew."""
    faulthandler.enable()  # systemd's watchdog ends a loop that stands still by SIGABRT: the log then shows where it stood
    app, stopping, reloading = App(settings), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            os._exit(1)
        stopping.set()
        reloading.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reloading.set)
    try:
        await app.start()
        gc.freeze()  # what lives as long as the process is not looked through again and again
        gc.set_threshold(20_000, 20, 20)  # a call makes thousands of short-lived objects and no cycles
        notify("READY=1")
        while not stopping.is_set():
            notify("WATCHDOG=1")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reloading.wait(), WATCHDOG_S)
                reloading.clear()
                if not stopping.is_set():
                    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1_000}")
                    await app.reload()
                    notify("READY=1")
    finally:
        notify("STOPPING=1")
        await app.stop()


def notify(message: str) -> None:
    """One datagram to systemd, when it listens (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(NOTIFY_DEADLINE_S)
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.sendall(message.encode())
