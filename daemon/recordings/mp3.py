"""MP3 for CRMs that play nothing else: made once by an external program (ffmpeg or lame), kept within a bound of bytes.

The program gets the open file as its input and never a name, so that nothing a PBX calls a file reaches a command line.
Without a program, or when it fails, the original is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from daemon.recordings.directory import OpenFile
from daemon.recordings.names import ending_of
from daemon.recordings.ranges import Version

ENCODE_S = 120.0
AT_ONCE = 2
MAX_WAITING = 64
CACHE_BYTES = 2 * 1024**3

log = structlog.get_logger()
Command = Callable[[str, str], Sequence[str]]


def find_encoder() -> Command | None:
    """A program of this host: (input's ending, output path) -> command reading stdin."""
    if ffmpeg := shutil.which("ffmpeg"):
        return lambda ending, out: [
            ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "error", *(["-f", "gsm"] if ending == ".gsm" else []), "-i", "pipe:0",
            "-vn", "-map_metadata", "-1", "-codec:a", "libmp3lame", "-b:a", "32k", "-f", "mp3", "-y", out,
        ]  # fmt: skip
    if lame := shutil.which("lame"):
        return lambda _, out: [lame, "--quiet", "-m", "m", "-b", "32", "-", out]
    return None


class Mp3Cache:
    """Finished files under `directory`, the longest unused go first when there are more than `max_bytes`."""

    def __init__(self, directory: Path, encoder: Command | None, *, max_bytes: int = CACHE_BYTES, encode_s: float = ENCODE_S) -> None:
        self._directory = directory
        self._encoder = encoder
        self._max_bytes = max_bytes
        self._encode_s = encode_s
        self._room = asyncio.Semaphore(AT_ONCE)
        self._making: dict[str, asyncio.Lock] = {}

    async def get(self, key: str, original: OpenFile) -> OpenFile | None:
        """The MP3 of `original` (which stays open), or None where the original must do. One program per file, however many ask."""
        if ending_of(original.name) == ".mp3" or self._encoder is None:
            return None
        name = hashlib.sha256(f"{key}/{original.version.etag}".encode()).hexdigest()[:40] + ".mp3"
        if (kept := await asyncio.to_thread(self._open, name)) is not None:
            return kept
        if len(self._making) >= MAX_WAITING and name not in self._making:
            return None
        lock = self._making.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                kept = await asyncio.to_thread(self._open, name)
                return kept if kept is not None else await self._make(name, original)
        finally:
            if not lock.locked():
                self._making.pop(name, None)

    def forget(self) -> None:
        """Deletes every copy; those in use are read to their end, and one is made again when it is asked for. Blocking."""
        if self._directory.is_dir():
            for entry in self._directory.glob("*.mp3"):
                entry.unlink(missing_ok=True)

    async def _make(self, name: str, original: OpenFile) -> OpenFile | None:
        assert self._encoder is not None
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self._directory / f"{secrets.token_hex(8)}.part"
        async with self._room:
            try:
                await self._encode(self._encoder(ending_of(original.name), str(part)), original.fd)
                part.rename(self._directory / name)
            except (OSError, TimeoutError, RuntimeError) as error:
                log.warning("a recording could not be made into mp3, the original is served", error=f"{type(error).__name__}: {error}"[:300])
                return None
            finally:
                part.unlink(missing_ok=True)
        await asyncio.to_thread(self._keep_bound)
        return await asyncio.to_thread(self._open, name)

    async def _encode(self, command: Sequence[str], fd: int) -> None:
        source = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)  # an offset of its own
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=source, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True
            )
        finally:
            os.close(source)
        try:
            async with asyncio.timeout(self._encode_s):
                assert process.stderr is not None
                said = await process.stderr.read(2_000)
                while await process.stderr.read(65_536):
                    pass
                status = await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if status != 0:
            raise RuntimeError(f"{Path(command[0]).name} ended with {status}: {said.decode('utf-8', 'replace').strip()[:200]}")

    def _open(self, name: str) -> OpenFile | None:
        path = self._directory / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        about = os.fstat(fd)
        with contextlib.suppress(OSError):  # used now; the content's time stays, it makes the ETag
            os.utime(fd, ns=(time.time_ns(), about.st_mtime_ns))
        return OpenFile(fd, name, Version(about.st_size, about.st_mtime_ns))

    def _keep_bound(self) -> None:
        files = []
        for entry in os.scandir(self._directory):
            if entry.name.endswith(".mp3"):
                with contextlib.suppress(FileNotFoundError):
                    about = entry.stat()
                    files.append((about.st_atime_ns, about.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files)[:-1]:
            if total <= self._max_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
