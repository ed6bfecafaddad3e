"""Recordings at work: where a link's file lies, whether it is whole, what CRMs are given, names that come later."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import aiohttp
import structlog

from daemon.calls.plan import Planner
from daemon.calls.recorder import record_recording
from daemon.delivery.outbox import Outbox
from daemon.errors import NotFound, VochidError
from daemon.model.call import Call
from daemon.recordings.directory import OpenFile, look_below, open_below
from daemon.recordings.links import Claims, RecordingLinks
from daemon.recordings.look import STABLE_S, UNKNOWN, WAIT_S, Look, State, Watch, is_whole
from daemon.recordings.mp3 import Mp3Cache
from daemon.recordings.names import MAX_NAME_BYTES, candidates, content_type, parts_of
from daemon.recordings.ranges import Version
from daemon.recordings.remote import RemoteFiles, chunks
from daemon.recordings.sender import Sender
from daemon.store.calls import CallRepository
from daemon.store.pool import Database
from daemon.supervisor import Supervisor
from daemon.tenants.document import DirectoryRecordings, HttpRecordings
from daemon.tenants.service import Tenants

LOOK_EVERY_S = 0.5
FILE_DEADLINE_S = 5.0
LINKS_DEADLINE_S = 3.0
EMPTY_FOR_S = 5.0  # an empty file that stays so this long after the end stays so for good
RETRY_AFTER_S = 2
MAX_WAITING = 2_000
MAX_DOWNLOADS = 256  # at once, per enterprise
THREADS = 8
DAY_S = 86_400

Source = DirectoryRecordings | HttpRecordings
log = structlog.get_logger()
T = TypeVar("T")


class NotReady(VochidError):
    """The file is not whole yet: 404 with Retry-After."""

    code = "not_ready"


class Busy(VochidError):
    """Too many downloads at once, or the source does not answer: 503 with Retry-After."""

    code = "busy"


@dataclass(frozen=True, slots=True)
class Found:
    """What a link opens. Times in Unix seconds."""

    claims: Claims
    name: str
    source: Source
    parts: tuple[str, ...]
    ended_at: float | None


class Recordings:
    """The room's one service. `wake(enterprise, integration)` tells the dispatcher; `base_url` stands before links for CRMs."""

    def __init__(
        self,
        db: Database,
        tenants: Tenants,
        outbox: Outbox,
        planner: Planner,
        wake: Callable[[str, str], None],
        links: RecordingLinks,
        remote: RemoteFiles,
        mp3: Mp3Cache,
        base_url: str,
    ) -> None:
        self._db = db
        self._calls = CallRepository(db)
        self._tenants = tenants
        self._outbox = outbox
        self._planner = planner
        self._wake = wake
        self.links = links
        self.remote = remote
        self.sender = Sender()
        self._mp3 = mp3
        self._base_url = base_url
        self._threads = ThreadPoolExecutor(THREADS, "recordings")
        self._supervisor = Supervisor("recordings")
        self._expected: set[str] = set()
        self._downloads: Counter[str] = Counter()

    async def stop(self) -> None:
        """Lets go of everything; journals that still wait are due by their own time."""
        await self._supervisor.stop()
        self.sender.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self.remote.close()

    # -- for CRMs ----------------------------------------------------------------------------------------------------------

    def has_source(self, enterprise: str, pbx: str) -> bool:
        """Whether recordings of this PBX can be had."""
        return self._source(enterprise, pbx) is not None

    def expect(self, call: Call) -> None:
        """A call ended: releases what waits for its recordings as soon as they are whole; WAIT_S later it goes by itself."""
        if call.id in self._expected or len(self._expected) >= MAX_WAITING or not call.recordings:
            return
        if (source := self._source(call.enterprise, call.pbx)) is not None:
            self._expected.add(call.id)
            self._supervisor.job(f"recordings of {call.id}", self._wait(call, source))

    async def for_crm(self, call: Call, *, mp3: bool) -> tuple[str, ...]:
        """Links for a CRM, good as long as recordings are kept, the largest file first.

        An empty file gets none, nor does a missing one of a call nobody answered; whatever else is unclear gets its link, because the
        file may come.
        """
        source = self._source(call.enterprise, call.pbx)
        if source is None:
            return ()
        looks = await asyncio.gather(*(self._look_in_time(source, name) for name in call.recordings))
        worth = [
            (-look.size, index)
            for index, look in enumerate(looks)
            if not look.is_empty and not (look.state is State.MISSING and call.answered_at is None) and parts_of(call.recordings[index], source.pbx_path)
        ]
        lives_s = (call.ended_at or call.started_at) + source.retention_days * DAY_S - time.time()
        link = self.links.link
        return tuple(self._base_url + link(call.enterprise, call.id, i, lives_s, name=call.recordings[i], mp3=mp3) for _, i in sorted(worth))

    async def attach(self, enterprise: str, call_id: str, name: str) -> bool:
        """A recording whose name comes after the call: stored with it, told to CRMs without a popup. False when the call has it already.

        Raises NotFound for an unknown call, VochidError for a name that is none.
        """
        if not name or len(name) > MAX_NAME_BYTES or not name.isprintable():
            raise VochidError("a recording's name is printable and at most 1,024 characters long", code="bad_recording", field="recording")
        call = Call.from_json(await self._calls.get(enterprise, call_id))
        if name in call.recordings:
            return False
        call = replace(call, recordings=(*call.recordings, name))
        integrations = await record_recording(self._db, self._planner, call)
        if integrations is None:
            return False
        self.expect(call)
        for integration in integrations:
            self._wake(enterprise, integration)
        return True

    async def revoke(self, enterprise: str) -> None:
        """Ends every link of an enterprise that was ever given away. Raises NotFound."""
        if await self._db.fetchval("select revoke_recording_links($1)", enterprise) is None:
            raise NotFound(f"there is no enterprise {enterprise}")
        await self._tenants.refresh(enterprise)

    async def _wait(self, call: Call, source: Source) -> None:
        try:
            await self._until_whole(call, source)
            for integration in await self._outbox.release(call.enterprise, call.id):
                self._wake(call.enterprise, integration)
        finally:
            self._expected.discard(call.id)

    async def _until_whole(self, call: Call, source: Source) -> None:
        began = time.monotonic()
        open_: dict[str, Watch] = {name: Watch() for name in call.recordings}
        while open_ and (now := time.monotonic()) - began < WAIT_S:
            for name, watch in list(open_.items()):
                look = await self._look_in_time(source, name)
                if watch.is_stable(look, time.monotonic()) or (look.is_empty and now - began > EMPTY_FOR_S):
                    del open_[name]
            if open_:
                await asyncio.sleep(LOOK_EVERY_S)

    # -- for players -------------------------------------------------------------------------------------------------------

    async def find(self, signed: str) -> Found:
        """What a link opens. Raises NotFound for anything that is not, or no longer, a good link; all alike."""
        claims = self.links.read(signed)
        rows = await self._db.fetch("select * from find_recording($1, $2::text::uuid)", claims.enterprise, claims.call_id) if claims else []
        if claims is None or not rows or rows[0]["epoch"] != claims.epoch or claims.index >= len(rows[0]["recordings"]):
            raise NotFound("there is no such recording")
        row = rows[0]
        source = self._source(claims.enterprise, row["pbx"])
        ended_at = row["ended_at"].timestamp() if row["ended_at"] else None
        name = row["recordings"][claims.index]
        parts = parts_of(name, source.pbx_path) if source else None
        if source is None or parts is None or row["started_at"].timestamp() + (source.retention_days + 1) * DAY_S < time.time():
            raise NotFound("there is no such recording")
        return Found(claims, name, source, parts, ended_at)

    @contextmanager
    def download(self, enterprise: str) -> Iterator[None]:
        """A place among an enterprise's downloads. Raises Busy when all are taken."""
        if self._downloads[enterprise] >= MAX_DOWNLOADS:
            raise Busy(f"{MAX_DOWNLOADS} downloads of this enterprise are under way")
        self._downloads[enterprise] += 1
        try:
            yield
        finally:
            self._downloads[enterprise] -= 1
            if not self._downloads[enterprise]:
                del self._downloads[enterprise]

    @asynccontextmanager
    async def opened(self, found: Found) -> AsyncIterator[OpenFile | None]:
        """The file to send, whole; None when it is to be passed through from its HTTP source. Raises NotFound, NotReady, Busy."""
        async with contextlib.AsyncExitStack() as stack:
            if isinstance(found.source, DirectoryRecordings):
                file = await self._in_thread(open_below, found.source.path, found.parts)
                if file is None:
                    raise _absent(found)
                stack.callback(os.close, file.fd)
                await self._must_be_whole(found, Look(State.THERE, file.version.size, file.version.changed_ns / 1e9))
            else:
                await self._must_be_whole(found, None)
                if not found.claims.mp3:
                    yield None
                    return
                file = await self._fetched(found, found.source)
                stack.callback(os.close, file.fd)
            if found.claims.mp3:
                claims = found.claims
                made = await self._mp3.get(f"{claims.enterprise}/{claims.call_id}/{claims.index}", file)
                if made is not None:
                    stack.callback(os.close, made.fd)
                    file = made
            yield file

    def forget_copies(self) -> None:
        """Somebody's recordings were erased: no copy of any recording stays."""
        self._supervisor.job("copies", self._in_thread(self._mp3.forget))

    async def _must_be_whole(self, found: Found, look: Look | None) -> None:
        """Looks a second time where one look does not tell."""
        now = time.time()
        if look is None:
            if found.ended_at is not None and now - found.ended_at >= WAIT_S:
                return
            look = await self._look(found.source, found.parts)
            if look.state is State.UNKNOWN:
                raise Busy("the recordings' source does not answer")
            if look.state is State.MISSING:
                raise _absent(found)
        whole = is_whole(look, found.ended_at, now)
        if whole is None:
            await asyncio.sleep(STABLE_S)
            whole = look == await self._look(found.source, found.parts)
        if not whole:
            raise NotReady("the recording is not complete yet")

    async def _fetched(self, found: Found, source: HttpRecordings) -> OpenFile:
        """A copy of a remote file, without a name on any disk."""
        for parts in candidates(found.parts):
            async with self._answered(source, parts) as answer:
                if answer.status in (404, 410):
                    continue
                if answer.status != 200:
                    raise Busy("the recordings' source does not answer")
                fd, path = tempfile.mkstemp(prefix="vochid-recording-")
                os.unlink(path)
                try:
                    async for chunk in chunks(answer):
                        await self._in_thread(os.write, fd, chunk)
                except BaseException:
                    os.close(fd)
                    raise
                size = os.fstat(fd).st_size
                return OpenFile(fd, parts[-1], Version(size, 0))
        raise _absent(found)

    @asynccontextmanager
    async def _answered(self, source: HttpRecordings, parts: tuple[str, ...]) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self.remote.open(source, parts, {}) as answer:
                yield answer
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise Busy("the recordings' source does not answer") from None

    # -- inside ------------------------------------------------------------------------------------------------------------

    async def one_for_crm(self, call: Call, index: int) -> tuple[str, str, int] | None:
        """One recording's link as in for_crm, its type, and its size as far as it is known; None when there is nothing to play."""
        source = self._source(call.enterprise, call.pbx)
        if source is None or index >= len(call.recordings) or parts_of(name := call.recordings[index], source.pbx_path) is None:
            return None
        look = await self._look_in_time(source, name)
        lives_s = (call.ended_at or call.started_at) + source.retention_days * DAY_S - time.time()
        link = self._base_url + self.links.link(call.enterprise, call.id, index, lives_s, name=name)
        return None if look.is_empty else (link, content_type(name), look.size)

    def _source(self, enterprise: str, pbx: str) -> Source | None:
        tenancy = self._tenants.get(enterprise)
        found = next((p.recordings for p in tenancy.enterprise.pbxs if p.name == pbx), None) if tenancy else None
        return found if isinstance(found, DirectoryRecordings | HttpRecordings) else None

    async def _look_in_time(self, source: Source, name: str) -> Look:
        parts = parts_of(name, source.pbx_path)
        if parts is None:
            return UNKNOWN
        with contextlib.suppress(TimeoutError, Busy):
            async with asyncio.timeout(LINKS_DEADLINE_S):
                return await self._look(source, parts)
        return UNKNOWN

    async def _look(self, source: Source, parts: tuple[str, ...]) -> Look:
        if isinstance(source, DirectoryRecordings):
            return await self._in_thread(look_below, source.path, parts)
        for other in candidates(parts):
            look = await self.remote.look(source, other)
            if look.state is not State.MISSING:
                return look
        return look

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Blocking file work. Raises Busy when the disk or file server does not answer."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        try:
            return await asyncio.wait_for(running, FILE_DEADLINE_S)
        except (TimeoutError, OSError) as error:
            log.warning("recordings cannot be read", error=f"{type(error).__name__}: {error}"[:200])
            raise Busy("the recordings' directory cannot be read") from None


def _absent(found: Found) -> VochidError:
    """Within WAIT_S of the call's end a file may still come."""
    if found.ended_at is None or time.time() - found.ended_at < WAIT_S:
        return NotReady("the recording is not there yet")
    return NotFound("there is no such recording")
