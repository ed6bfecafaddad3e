"""Starts a whole daemon as its own process, for the demo, the end-to-end tests and the benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from lab.office import free_port
from lab.patient import VARIABLE

READY_DEADLINE_S = 60.0


def short_directory(prefix: str) -> Path:
    """A new directory with a short path that the database's user may enter."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    path.chmod(0o755)
    return path


@dataclass
class DaemonProcess:
    """`vochid run` with a data directory, ports and an admin token of its own. `patience`: which of its deadlines are long (lab/patient.py)."""

    data_dir: Path
    http: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    metrics: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    fastagi: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    admin_token: str = field(default_factory=lambda: secrets.token_hex(16))
    extra: dict[str, str] = field(default_factory=dict)
    patience: frozenset[str] = field(default_factory=lambda: frozenset(filter(None, os.environ.get(VARIABLE, "").split(","))))
    process: asyncio.subprocess.Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What the process and commands beside it need to be set."""
        return {
            **os.environ,
            "VOCHID_DATA_DIR": str(self.data_dir),
            "VOCHID_HTTP": self.http,
            "VOCHID_METRICS": self.metrics,
            "VOCHID_FASTAGI": self.fastagi,
            "VOCHID_ADMIN_TOKEN": self.admin_token,
            "VOCHID_EGRESS_ALLOW": "127.0.0.0/8",
            "VOCHID_LOG_FORMAT": "json",
            **({VARIABLE: ",".join(sorted(self.patience))} if self.patience else {}),
            **self.extra,
        }

    @property
    def program(self) -> list[str]:
        """What a command begins with."""
        return [sys.executable, "-m", "lab.patient" if self.patience else "daemon"]

    @property
    def log(self) -> Path:
        return self.data_dir / "vochid.log"

    @property
    def first_link(self) -> str:
        """The one-time link of the first person, as the daemon printed it at its first start."""
        events = (json.loads(line) for line in self.log.read_text(errors="replace").splitlines() if line.startswith("{"))
        return str(next(event["link"] for event in events if "link" in event))

    async def start(self) -> None:
        """Starts it and waits until it is ready; RuntimeError with the log's end when it is not."""
        self.process = await self._spawn()
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(int(READY_DEADLINE_S * 10)):
                if self.process.returncode is not None:
                    break
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"http://{self.metrics}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.1)
        raise RuntimeError(f"the daemon did not get ready: {self.log.read_text(errors='replace')[-1500:]}")

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.program, "run", env=self.environment, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
            )

    def client(self) -> httpx.AsyncClient:
        """An API client with the super-admin's token."""
        return httpx.AsyncClient(base_url=f"http://{self.http}", headers={"Authorization": f"Bearer {self.admin_token}"}, trust_env=False, timeout=60)

    async def put(self, document: dict[str, Any]) -> None:
        """Stores an enterprise document."""
        async with self.client() as client:
            answer = await client.put(f"/api/enterprises/{document['number']}", json=document)
            if answer.status_code not in (200, 201):
                raise RuntimeError(f"the document was refused: {answer.text}")

    async def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self, *, keep: bool = False) -> None:
        """Ends it in an orderly way and removes its data."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), 45)
            except TimeoutError:
                await self.kill()
        if not keep:
            shutil.rmtree(self.data_dir, ignore_errors=True)
