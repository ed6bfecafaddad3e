"""The systemd unit: what systemd thinks of it, and what the daemon tells it from start to stop."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from lab.run import DaemonProcess, short_directory
from tests.conftest import fresh_database

UNIT = Path(__file__).parent.parent.parent / "systemd/vochid.service"


async def test_ready_watchdog_reload_and_stop_are_told(cluster: str) -> None:
    home = short_directory("vochid-unit-")
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(home / "notify"))
        os.chmod(home / "notify", 0o666)
        systemd.setblocking(False)

        async def until(said: str) -> None:
            async with asyncio.timeout(60):
                while said not in heard:
                    data = await asyncio.get_running_loop().sock_recv(systemd, 1_000)
                    heard.append(data.decode().splitlines()[0])

        async with fresh_database(cluster) as url:
            daemon = DaemonProcess(home, extra={"VOCHID_DATABASE_URL": url, "NOTIFY_SOCKET": str(home / "notify")})
            try:
                await daemon.start()
                assert daemon.process is not None
                await until("READY=1")
                await until("WATCHDOG=1")
                heard.clear()
                daemon.process.send_signal(signal.SIGHUP)
                await until("RELOADING=1")
                await until("READY=1")
                assert daemon.process.returncode is None
                daemon.process.send_signal(signal.SIGTERM)
                await until("STOPPING=1")
                assert await asyncio.wait_for(daemon.process.wait(), 60) == 0
            finally:
                await daemon.stop()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_finds_no_fault_with_the_unit_and_little_that_is_open(tmp_path: Path) -> None:
    installed = tmp_path / "vochid.service"
    installed.write_text(UNIT.read_text().replace("/opt/vochid/.venv/bin/vochid", "/bin/true").replace("file:///opt/vochid/README.md", "man:true(1)"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(installed)], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if "vochid.service" in line]
    assert complaints == [], done.stderr
    score = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(installed)], capture_output=True, text=True, timeout=60
    )
    assert score.returncode == 0, score.stdout[-300:] + score.stderr
