"""A PBX's raw AMI stream as a TRACE: what `trace record`, the lab and the tests record with."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from daemon.ami.link import Link, LinkState, LinkTarget
from daemon.ami.masking import Masker
from daemon.ami.wire import Frame, FrameReader, Skipped
from daemon.errors import VochidError
from daemon.supervisor import Supervisor
from daemon.tenants.document import Pbx

LOGIN_DEADLINE_S = 15.0
FOREVER_S = 10 * 365 * 86_400.0


def sidecar_of(chunks: Iterable[tuple[int, float]]) -> bytes:
    """The times of a TRACE as its sidecar has them."""
    return json.dumps({"chunks": [[offset, round(at, 4)] for offset, at in chunks]}).encode()


class Tape:
    """A link's handler that keeps the stream and the times of its chunks, in memory or in `file` as it comes; masked if wished."""

    def __init__(self, masker: Masker | None = None, file: BinaryIO | None = None) -> None:
        self.data = bytearray()
        self.chunks: list[tuple[int, float]] = []
        self.size_bytes = 0
        self.ready = asyncio.Event()
        self._masker = masker
        self._file = file
        self._reader = FrameReader()

    def clear(self) -> None:
        """An empty tape again."""
        self.data.clear()
        self.chunks.clear()
        self.size_bytes = 0

    def sidecar(self) -> bytes:
        """The sidecar of what is on the tape."""
        return sidecar_of(self.chunks)

    def on_ready(self, link: Link) -> None:
        self.ready.set()

    def on_event(self, frame: Frame, at: float) -> None: ...

    def on_unseen(self, skipped: Skipped) -> None: ...

    def on_down(self, reason: str) -> None: ...

    def on_bytes(self, data: bytes, at: float) -> None:
        if self._masker is not None:  # whole frames only: half a number cannot be masked
            data = b"".join(self._masker.mask(f.raw) + b"\r\n\r\n" for f in self._reader.feed(data) if isinstance(f, Frame))
        if not data:
            return
        self.chunks.append((self.size_bytes, at))
        self.size_bytes += len(data)
        if self._file is None:
            self.data += data
        else:
            self._file.write(data)


async def record(pbx: Pbx, file: Path, *, mask: bool, seconds: float | None) -> int:
    """Records over a connection of its own until `seconds` are over or the task is cancelled; gives the bytes written.

    Raises VochidError without a login.
    """
    assert pbx.secret is not None
    target = LinkTarget(pbx.host, pbx.port, pbx.username, pbx.secret.get_secret_value(), pbx.tls, pbx.tls_fingerprint)
    supervisor = Supervisor("trace")
    with file.open("wb") as stream:
        tape = Tape(Masker() if mask else None, stream)
        link = Link(pbx.name, target, tape, asyncio.Semaphore(1))
        supervisor.serve("link", link.run)
        try:
            try:
                await asyncio.wait_for(tape.ready.wait(), LOGIN_DEADLINE_S)
            except TimeoutError:
                state = link.status
                reason = state.reason or ("still connecting" if state.state is LinkState.CONNECTING else str(state.state))
                raise VochidError(f"cannot log in to {pbx.name} at {pbx.host}:{pbx.port}: {reason}") from None
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(seconds if seconds is not None else FOREVER_S)
        finally:
            await supervisor.stop()
            file.with_name(file.name + ".json").write_bytes(tape.sidecar())
    return tape.size_bytes
