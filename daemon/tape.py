"""Records a PBX's raw AMI stream as a TRACE, over a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import secrets
from pathlib import Path

from daemon.ami.link import Link, LinkState, LinkTarget
from daemon.ami.wire import Frame, FrameReader, Skipped
from daemon.errors import VochidError
from daemon.supervisor import Supervisor
from daemon.tenants.document import Pbx

LOGIN_DEADLINE_S = 15.0
_NUMBER = re.compile(rb"(?<![\d.])\+?\d{9,15}(?![\d.])")
_NAME = re.compile(rb"(?m)^((?:[A-Za-z]*CallerIDName|[A-Za-z]*ConnectedLineName): )([^\r\n]+)")


class Masker:
    """Changes outside numbers and all names, the same one always in the same way within one recording."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)

    def mask(self, data: bytes) -> bytes:
        """Numbers keep their length and their beginning; Uniqueids (`seconds.number`) are left alone."""
        return _NAME.sub(lambda m: m[1] + (m[2] if m[2] == b"<unknown>" else b"Name-" + self._code(m[2])[:4]), _NUMBER.sub(self._number, data))

    def _number(self, match: re.Match[bytes]) -> bytes:
        number = match[0]
        digits = str(int(self._code(number.lstrip(b"+")), 16)).encode()
        return number[:-6] + digits[-6:]

    def _code(self, value: bytes) -> bytes:
        return hashlib.sha256(self._salt + value).hexdigest()[:16].encode()


class _Recorder:
    """The link's handler: whole frames into the file, their times into the sidecar."""

    def __init__(self, masker: Masker | None) -> None:
        self.data = bytearray()
        self.chunks: list[tuple[int, float]] = []
        self.ready = asyncio.Event()
        self._masker = masker
        self._reader = FrameReader()

    def on_ready(self, link: Link) -> None:
        self.ready.set()

    def on_event(self, frame: Frame, at: float) -> None: ...

    def on_unseen(self, skipped: Skipped) -> None: ...

    def on_down(self, reason: str) -> None: ...

    def on_bytes(self, data: bytes, at: float) -> None:
        if self._masker is not None:
            data = b"".join(self._masker.mask(f.raw) + b"\r\n\r\n" for f in self._reader.feed(data) if isinstance(f, Frame))
        if data:
            self.chunks.append((len(self.data), at))
            self.data += data


async def record(pbx: Pbx, file: Path, *, mask: bool, seconds: float | None) -> int:
    """Records until `seconds` are over or the task is cancelled; gives the bytes written. Raises VochidError without a login."""
    assert pbx.secret is not None
    recorder, supervisor = _Recorder(Masker() if mask else None), Supervisor("trace")
    target = LinkTarget(pbx.host, pbx.port, pbx.username, pbx.secret.get_secret_value(), pbx.tls, pbx.tls_fingerprint)
    link = Link(pbx.name, target, recorder, asyncio.Semaphore(1))
    supervisor.serve("link", link.run)
    try:
        try:
            await asyncio.wait_for(recorder.ready.wait(), LOGIN_DEADLINE_S)
        except TimeoutError:
            state = link.status
            reason = state.reason or ("still connecting" if state.state is LinkState.CONNECTING else str(state.state))
            raise VochidError(f"cannot log in to {pbx.name} at {pbx.host}:{pbx.port}: {reason}") from None
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(seconds if seconds is not None else 10 * 365 * 86_400)
    finally:
        await supervisor.stop()
        file.write_bytes(recorder.data)
        file.with_name(file.name + ".json").write_text(json.dumps({"chunks": [[o, round(t, 4)] for o, t in recorder.chunks]}))
    return len(recorder.data)
