"""Requests that are not over yet: what the PBX answers and the call model hears moves them on. Thin shell.

Costs nothing per event when nothing is open. All hooks return at once; what must be written is written by jobs, and a state that
arrives late changes nothing (states.py), so their order does not matter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import asyncpg
import structlog

from daemon.ami.actions import CoreShowChannels
from daemon.ami.link import Link, LinkDown
from daemon.ami.wire import Frame
from daemon.errors import NotFound
from daemon.model.call import Call
from daemon.model.signal import CallChange
from daemon.originate.states import COMES_FROM, OPEN, Progress, State, moves, of_call, of_response
from daemon.store.calls import CallRepository
from daemon.store.leases import LeaseLost, PbxKey
from daemon.store.originates import OriginateRepository, OriginateRequest
from daemon.supervisor import Supervisor
from daemon.telemetry import metrics

ANSWER_TIMEOUT_S = 30.0  # how long the manager's phone rings
GRACE_S = 15.0  # after that time the PBX has told what became of it, or never will
NO_CALL_AFTER_S = 3.0  # a failure of which the model has heard nothing by then had no channel at all
NEVER_SENT = "pbx_link_down"  # the one failure of which surely nothing reached the PBX: no call came of it
SWEEP_S = 5.0
FORGET_AFTER_S = 60.0
LONGEST_S = 24 * 3_600.0
WRITE_RETRY_S = 0.5
WRITE_FOR_S = 60.0

_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)
_SILENT = Progress(State.UNKNOWN, "no_news", "the PBX never told what became of it")
_GONE = Progress(State.UNKNOWN, "not_seen", "it was asked for while the PBX's link went down and is not there now: it may have rung meanwhile")
_ENDED_UNSEEN = Progress(State.ENDED, "interrupted", "its end was not seen")

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Watched:
    """One open request, where it stands, and what is known of its call. `sending`: the job that waits for the PBX's answer, begun at `sent_at`."""

    request: OriginateRequest
    state: State
    progress: Progress
    call_id: str | None = None
    call_ended: bool = False
    settled_at: float | None = None
    sending: asyncio.Task[None] | None = None
    sent_at: float = 0.0
    writing: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False, compare=False)  # states are stored in the order in which they came

    @property
    def key(self) -> PbxKey:
        return self.request.enterprise, self.request.pbx


class Follower:
    """All open requests of the PBXs that this process reads.

    links: the PBX's link, or None when another process reads it. record: stores and tells the call of a request that never got a channel.
    """

    def __init__(
        self,
        repository: OriginateRepository,
        calls: CallRepository,
        links: Callable[[PbxKey], Link | None],
        record: Callable[[OriginateRequest, Progress], Awaitable[None]],
        *,
        no_call_after_s: float = NO_CALL_AFTER_S,
    ) -> None:
        self._repository = repository
        self._calls = calls
        self._links = links
        self._record = record
        self._no_call_after_s = no_call_after_s
        self._open: dict[PbxKey, dict[str, Watched]] = {}
        self._supervisor = Supervisor("originate")

    async def run(self) -> None:
        """Looks now and then for what nothing is heard of any more."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep(time.time())

    async def stop(self) -> None:
        await self._supervisor.stop()

    # -- what the service tells ----------------------------------------------------------------------------------------------

    def watch(self, request: OriginateRequest) -> Watched:
        """Follows a request from here on; the same one when it is followed already."""
        of_pbx = self._open.setdefault((request.enterprise, request.pbx), {})
        watched = of_pbx.get(request.channel_id)
        if watched is None:
            state = State(request.state)
            watched = of_pbx[request.channel_id] = Watched(request, state, Progress(state, request.code, request.reason), request.call_id)
        return watched

    def find(self, request: OriginateRequest) -> Watched | None:
        """The request's entry while it is open here."""
        return self._open.get((request.enterprise, request.pbx), {}).get(request.channel_id)

    def send(self, watched: Watched, work: Awaitable[None]) -> asyncio.Task[None]:
        """Runs the one sending of a request, whoever waits for it."""

        async def run() -> None:
            await work

        watched.sent_at = time.time()
        watched.sending = self._supervisor.job(f"send {watched.request.id}", run())
        return watched.sending

    def move(self, watched: Watched, progress: Progress) -> None:
        """Notes news of a request, unless it is past that; a failure that had no channel is told as a call of its own."""
        if not moves(watched.state, progress.state):
            return
        watched.state, watched.progress = progress.state, progress
        metrics.ORIGINATES.labels(watched.request.source, str(progress.state)).inc()
        if progress.state not in OPEN:
            watched.settled_at = time.time()
        self._supervisor.job(f"write {watched.request.id}", self._write(watched, progress))
        if progress.state is State.FAILED and watched.call_id is None and progress.code != NEVER_SENT:
            self._supervisor.job(f"record {watched.request.id}", self._record_if_unheard(watched, progress))

    # -- what is heard -----------------------------------------------------------------------------------------------------------

    def responded(self, key: PbxKey, event: Frame, at: float) -> None:
        """An OriginateResponse; ours is known by its ActionID, for its Uniqueid may be another's or missing."""
        watched = self._open.get(key, {}).get(event.get("ActionID") or "")
        if watched is not None:
            self.move(watched, of_response(event.get("Response") == "Success", event.get("Reason")))

    def stored(self, enterprise: str, changes: Sequence[CallChange]) -> None:
        """Changes of calls that are stored; ours are those whose Linkedid is our channel's id."""
        if not self._open:
            return
        for change in changes:
            watched = self._open.get((enterprise, change.call.pbx), {}).get(change.call.linkedid)
            if watched is not None:
                self._heard(watched, change.call)

    def _heard(self, watched: Watched, call: Call) -> None:
        is_new = watched.call_id is None
        watched.call_id = call.id
        watched.call_ended = watched.call_ended or call.ended_at is not None
        progress = of_call(call)
        if moves(watched.state, progress.state):
            self.move(watched, progress)
        elif is_new:
            self._supervisor.job(f"link {watched.request.id}", self._write(watched, watched.progress))

    def link_up(self, key: PbxKey) -> None:
        """A PBX is connected and its calls are known: finds out about what is open in the table, also of a former process."""
        self._supervisor.job(f"reconcile {'/'.join(key)}", self._reconcile(key))

    async def _reconcile(self, key: PbxKey) -> None:
        link = self._links(key)
        try:
            rows = await self._repository.open(*key, OPEN)
            for request, call in rows:
                watched = self.watch(request)
                if call is not None:
                    await self._take_call(watched, str(call["id"]))
            if link is None or not rows:
                return
            shown = await link.request(CoreShowChannels())
        except (LinkDown, *_AWAY) as error:
            log.warning("open click-to-call requests could not be looked for", pbx="/".join(key), error=str(error)[:200])
            return
        if not shown.ok:
            return
        up = {uniqueid: item.get("ChannelState") for item in shown.items if (uniqueid := item.get("Uniqueid"))}
        for request, _ in rows:
            self._take_snapshot(self.watch(request), up, link.status.since)

    async def _take_call(self, watched: Watched, call_id: str) -> None:
        try:
            self._heard(watched, Call.from_json(await self._calls.get(watched.request.enterprise, call_id)))
        except NotFound:
            return

    def _take_snapshot(self, watched: Watched, up: dict[str, str | None], since: float) -> None:
        """`up`: channel state by Uniqueid, of a link that is up since then. What is being sent at this moment may not be there yet, nor what was
        sent over this very link: its news will come."""
        if watched.sending is not None and not watched.sending.done():
            return
        ours = watched.request.channel_id, watched.request.other_channel_id
        if any(channel in up for channel in ours):
            self.move(watched, Progress(State.MANAGER_ANSWERED if up.get(ours[0]) == "6" else State.SENT))
        elif watched.call_id is None and watched.sent_at < since:
            self.move(watched, _GONE)

    # -- housekeeping --------------------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Forgets what is over and what another process follows; gives up on what nothing is heard of."""
        for key in list(self._open):
            if self._links(key) is None:
                del self._open[key]
                continue
            for channel_id, watched in list(self._open[key].items()):
                if self._is_over(watched, now):
                    del self._open[key][channel_id]
            if not self._open[key]:
                del self._open[key]

    def _is_over(self, watched: Watched, now: float) -> bool:
        age_s = now - watched.request.created_at.timestamp()
        if watched.settled_at is not None:
            return watched.call_ended or now - watched.settled_at > FORGET_AFTER_S
        if watched.call_id is None and watched.state in (State.SENT, State.UNKNOWN, State.RESERVED) and age_s > ANSWER_TIMEOUT_S + GRACE_S:
            self.move(watched, _SILENT)
            return age_s > ANSWER_TIMEOUT_S + GRACE_S + FORGET_AFTER_S
        if age_s > LONGEST_S:
            self.move(watched, _ENDED_UNSEEN)
        return False

    async def _record_if_unheard(self, watched: Watched, progress: Progress) -> None:
        await asyncio.sleep(self._no_call_after_s)
        if watched.call_id is not None:
            return
        try:
            await self._record(watched.request, progress)
        except (LeaseLost, *_AWAY) as error:
            log.error("a call that could not be placed was not recorded", request=watched.request.id, error=str(error)[:200])

    async def _write(self, watched: Watched, progress: Progress) -> None:
        """Writes a state and, when it says how the request went, a line in the log. Tries again for a minute."""
        request, until = watched.request, time.monotonic() + WRITE_FOR_S
        async with watched.writing:
            while True:
                try:
                    moved = await self._repository.advance(
                        request, progress.state, COMES_FROM[progress.state], code=progress.code, reason=progress.reason, call_id=watched.call_id
                    )
                    if moved and progress.state in (State.ENDED, State.FAILED, State.UNKNOWN):
                        await self._log(watched, progress)
                    return
                except _AWAY as error:
                    if time.monotonic() > until:
                        log.error("a click-to-call request's state was not written", request=request.id, state=str(progress.state), error=str(error)[:200])
                        return
                    await asyncio.sleep(WRITE_RETRY_S)

    async def _log(self, watched: Watched, progress: Progress) -> None:
        request = watched.request
        asked = {"extension": request.extension, "phone": request.phone, "request": request.id}
        came = {"state": str(progress.state), "code": progress.code, "reason": progress.reason, "call": watched.call_id}
        error = None if progress.state is State.ENDED else progress.reason or str(progress.state)
        await self._repository.log(request.enterprise, request.source, asked, came, error)
