"""Files to sockets with sendfile(2), on threads of its own: the event loop is not on the way, and no byte is held in memory.

uvloop has no sendfile, and 200 streams on the event loop would delay every event of every PBX behind them. A thread waits with epoll for
sockets that take more, and gives each in its turn a slice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
import time
from collections import deque
from dataclasses import dataclass, field

SLICE_BYTES = 512 * 1024
STALLED_S = 30.0
THREADS = 2
_TICK_S = 1.0


class Stalled(ConnectionError):
    """The receiver took nothing for STALLED_S."""


@dataclass(eq=False, slots=True)
class _Job:
    """One file on its way; both descriptors are the thread's own copies."""

    sock: int
    file: int
    offset: int
    left: int
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]
    moved_at: float = field(default_factory=time.monotonic)
    cancelled: bool = False


class Sender:
    """Sends parts of files to connected, non-blocking sockets."""

    def __init__(self) -> None:
        self._lanes = [_Lane(f"recordings-{n}") for n in range(THREADS)]
        self._next = 0

    def stop(self) -> None:
        """Ends the threads; what is on its way fails."""
        for lane in self._lanes:
            lane.stop()

    async def send(self, sock: int, file: int, offset: int, count: int) -> None:
        """Returns when `count` bytes are with the kernel. Raises ConnectionError when the receiver left or stalled, or the file shrank."""
        self._next = (self._next + 1) % THREADS
        loop = asyncio.get_running_loop()
        job = _Job(os.dup(sock), os.dup(file), offset, count, loop, loop.create_future())
        self._lanes[self._next].add(job)
        try:
            await job.done
        except asyncio.CancelledError:
            job.cancelled = True
            raise


class _Lane:
    """One thread with its epoll."""

    def __init__(self, name: str) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._new: deque[_Job] = deque()
        self._jobs: dict[int, _Job] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, job: _Job) -> None:
        self._new.append(job)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(5)

    def _run(self) -> None:
        checked = time.monotonic()
        while not self._stopping:
            for fd, _ in self._epoll.poll(_TICK_S):
                if fd == self._wake:
                    os.eventfd_read(self._wake)
                elif fd in self._jobs:
                    self._push(self._jobs[fd])
            while self._new:
                self._begin(self._new.popleft())
            if (now := time.monotonic()) - checked >= _TICK_S:
                checked = now
                self._look_for_stalled(now)
        for job in [*self._jobs.values(), *self._new]:
            self._end(job, ConnectionError("the daemon stops"))
        self._epoll.close()
        os.close(self._wake)

    def _begin(self, job: _Job) -> None:
        self._jobs[job.sock] = job
        try:
            self._epoll.register(job.sock, select.EPOLLOUT)
        except OSError as error:
            self._end(job, error)

    def _push(self, job: _Job) -> None:
        if job.cancelled:
            self._end(job, None)
            return
        try:
            sent = os.sendfile(job.sock, job.file, job.offset, min(job.left, SLICE_BYTES)) if job.left else 0
        except BlockingIOError:
            return
        except OSError as error:
            self._end(job, ConnectionResetError(*error.args[:2]))
            return
        if sent == 0 and job.left:
            self._end(job, ConnectionError("the file became shorter while it was sent"))
            return
        job.offset, job.left, job.moved_at = job.offset + sent, job.left - sent, time.monotonic()
        if not job.left:
            self._end(job, None)

    def _look_for_stalled(self, now: float) -> None:
        for job in list(self._jobs.values()):
            if job.cancelled or now - job.moved_at > STALLED_S:
                self._end(job, Stalled(f"the receiver took nothing for {STALLED_S:.0f} s"))

    def _end(self, job: _Job, error: Exception | None) -> None:
        self._jobs.pop(job.sock, None)
        with contextlib.suppress(OSError):
            self._epoll.unregister(job.sock)
        os.close(job.sock)
        os.close(job.file)
        with contextlib.suppress(RuntimeError):  # the loop is gone already
            job.loop.call_soon_threadsafe(_settle, job.done, error)


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
