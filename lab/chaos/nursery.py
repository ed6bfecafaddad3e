"""Daemons that need not be read anew: a process that has imported all of it forks one for every start, which is `vochid run` from there on.

Of a start's 2.5 s of a core two are imports; a hundred deaths in a row are then minutes and not an hour.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path

from lab.run import DaemonProcess


class Newborn:
    """A process that is somebody else's child, with what is used of asyncio's own. returncode: that it is over, not how."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._over = asyncio.Event()
        self._watched = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._watched, self._ended)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._watched)
        os.close(self._watched)
        self.returncode = -1
        self._over.set()

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            signal.pidfd_send_signal(self._watched, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        await self._over.wait()
        return -1


class Nursery:
    """The process that forks."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def bear(self, environment: dict[str, str], log: Path) -> Newborn:
        """A daemon with this environment, which writes to `log`."""
        if self._process is None:
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(sys.executable, "-m", "lab.chaos.nursery", stdin=pipe, stdout=pipe)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([environment, str(log)]).encode() + b"\n")
        return Newborn(int(await asyncio.wait_for(self._process.stdout.readline(), 60)))

    async def stop(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()


class NursedDaemon(DaemonProcess):
    """As DaemonProcess; starts are forks."""

    nursery: Nursery | None = None

    async def _spawn(self) -> asyncio.subprocess.Process:
        self.nursery = self.nursery or Nursery()
        return await self.nursery.bear(self.environment, self.log)  # type: ignore[return-value]

    async def stop(self, *, keep: bool = False) -> None:
        await super().stop(keep=keep)
        if self.nursery is not None:
            await self.nursery.stop()
            self.nursery = None


def main() -> None:
    """Reads an environment and a log's path per line, forks, and tells the child's number."""
    import daemon.app
    import daemon.cli
    import daemon.lifecycle

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the number is free as soon as they are over
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            _become(*json.loads(line))
            daemon.cli.main()
            return
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _become(environment: dict[str, str], log: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, path, mode in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)):
        opened = os.open(path, mode, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(environment)
    random.seed()  # else all of them would wait for the same "random" times
    sys.argv = ["vochid", "run"]


if __name__ == "__main__":
    main()
