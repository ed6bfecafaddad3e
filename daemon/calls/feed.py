"""One PBX at work: link events into the model, the model's changes to the recorder. Thin shell.

Reader, model and writer are separate: the reader never waits. Changes wait for their commit in a queue; beyond
MAX_WAITING_CALLS it is thinned out to the newest record of each call with all its signals, and if these are still more, the
oldest are given up, each with a line in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

import asyncpg
import structlog

from daemon.ami.actions import BridgeList, CoreShowChannels, CoreStatus
from daemon.ami.link import ActionTimeout, Link, LinkDown
from daemon.ami.masking import Masker
from daemon.ami.wire import Frame, Skipped
from daemon.calls.clock import CallClock
from daemon.calls.correlator import Correlator
from daemon.calls.recorder import Recorder
from daemon.calls.resync import Left, astray, judge, sort_out
from daemon.calls.snapshot import Snapshot, events_of, is_heard_of, read_channels, read_snapshot
from daemon.calls.tracer import MAX_INBOX, Part, Trace, Tracer, pack
from daemon.calls.view import PbxView
from daemon.model.phone import masked
from daemon.model.signal import CallChange
from daemon.store.leases import LeaseLost
from daemon.supervisor import Supervisor
from daemon.telemetry import metrics

TICK_S = 0.5
TRACE_S = 2.0
TOLD_OF_CALLS = b"niqueid: "  # Uniqueid, DestUniqueid, BridgeUniqueid, …: what has none belongs to no call's story
SORTED_AT_ONCE = 500  # events of traces; the loop does what else there is in between
SORT_REST_S = 0.01
MAX_UNSTORED_BYTES = 4 * 1024 * 1024  # of traces, packed, while the database is away
QUIET_S = 0.03  # how long a change that nobody is told of may wait for company
STOP_DEADLINE_S = 5.0
RETRY_S = 0.5
MAX_RETRY_S = 5.0
MAX_BATCH = 200
MAX_BUFFERED_EVENTS = 50_000  # while the snapshot is read; more, and the resync begins again
MAX_WAITING_CALLS = 20_000
SWEEP_S = 60.0  # how often the PBX is asked what lives; what it does not know twice in a row ended unseen
UNNOTICED_S = 30.0  # a line may have been dead this long before it was found to be
GIVE_UP_S = 3_600.0  # a PBX that is away longer than this: its calls are closed as they were last seen

log = structlog.get_logger()


class PbxFeed:
    """The handler of one link. `on_stored(enterprise, changes, integrations)` is called after every commit; `watchers`, by an event's name,
    hear it before the model does."""

    def __init__(
        self,
        view: PbxView,
        recorder: Recorder,
        on_stored: Callable[[str, list[CallChange], set[str]], None],
        on_state: Callable[[str, str, str, str], None],
        watchers: Mapping[str, Callable[[tuple[str, str], Frame, float], None]] | None = None,
        on_gap: Callable[[str, str, float, float], None] = lambda *_: None,
        sweep_s: float = SWEEP_S,
        tracer: Tracer | None = None,
        masker: Masker | None = None,
    ) -> None:
        self._model = Correlator(view)
        self._clock = CallClock(time.time(), time.monotonic())
        self._recorder = recorder
        self._on_stored = on_stored
        self._on_state = on_state
        self._watchers = watchers if watchers is not None else {}
        self._on_gap = on_gap
        self._sweep_s = sweep_s
        self._tracer = tracer
        self._masker = masker
        self._unpacked: list[Part] = []
        self._unstored: list[Trace] = []
        self._waiting: deque[CallChange] = deque()
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        self._all_stored = asyncio.Event()
        self._all_stored.set()
        self._stirred = asyncio.Event()  # time matters: something was heard, calls live or the line is dead
        self._heard = asyncio.Event()  # there is something to be sorted into traces
        self._buffer: list[tuple[Frame, float]] | None = None
        self._resyncing: asyncio.Task[None] | None = None
        self._is_stale = False  # something was missed while the snapshot was read: it must be read again
        self._is_synced = False  # since the process began
        self._unseen_since: float | None = None
        self._astray: set[str] = set()
        self._supervisor = Supervisor(f"feed {view.enterprise}/{view.pbx}")
        self._events = metrics.AMI_EVENTS.labels(view.enterprise)
        self._uncounted = 0
        self._link: Link | None = None

    @property
    def view(self) -> PbxView:
        """The PBX as the model sees it now, with its boot."""
        return self._model.view

    @property
    def live_calls(self) -> int:
        return self._model.live_calls

    def start(self) -> None:
        """Starts the writer and the clock."""
        self._supervisor.serve("writer", self._write)
        self._supervisor.serve("clock", self._tick)
        self._supervisor.serve("sweeper", self._sweep)
        if self._tracer is not None:
            self._supervisor.serve("traces", self._keep_traces)

    async def stop(self) -> None:
        """Gives what waits a last chance to be stored, then stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_stored.wait(), STOP_DEADLINE_S)
        if self._link is not None:
            await self._note_seen()
        await self._supervisor.stop()
        await self._put_away(last=True)

    async def abandon(self) -> None:
        """Another process reads this PBX, or did meanwhile: what waits to be stored is told by it, and nothing more is written from here."""
        if self._waiting:
            log.warning("changes given up: another daemon has read this pbx", pbx=self._name, changes=len(self._waiting))
        self._waiting.clear()
        await self._supervisor.stop()

    def set_view(self, view: PbxView) -> None:
        """New settings of the same PBX; calls in progress go on under them."""
        if view != self._model.view:
            self._model.view = replace(view, boot=self._model.view.boot)

    # -- the link's side -----------------------------------------------------------------------------------------------

    def on_ready(self, link: Link) -> None:
        self._link = link
        self._resync_soon(link)

    def on_event(self, frame: Frame, at: float) -> None:
        self._uncounted += 1
        if self._uncounted == 1:  # the first for a while
            self._follow_clock()
            self._stirred.set()
        at = self._now()  # not the link's: a clock that is set in mid-call must not stretch it
        if (watcher := self._watchers.get(frame.event)) is not None:
            watcher((self._model.view.enterprise, self._model.view.pbx), frame, at)
        if self._tracer is not None and TOLD_OF_CALLS in frame.raw:
            if not self._tracer.inbox:
                self._heard.set()
            self._tracer.inbox.append((frame, at))
        if self._buffer is None:
            self._take(self._model.feed(frame, at))
        elif len(self._buffer) < MAX_BUFFERED_EVENTS:
            self._buffer.append((frame, at))
        else:
            log.error("too many events while the snapshot was read: it is read again", pbx=self._name)
            self._buffer.clear()
            self._is_stale = True
            self._model.mark_gap()

    def on_unseen(self, skipped: Skipped) -> None:
        view = self._model.view
        metrics.AMI_UNSEEN.labels(view.enterprise, skipped.reason).inc()
        log.warning("ami frame skipped", pbx=self._name, reason=skipped.reason, size_bytes=skipped.size_bytes)
        self._model.mark_gap()
        if self._buffer is not None:
            self._is_stale = True
        elif self._link is not None:  # what was missed may be a hangup: look again
            self._resync_soon(self._link)

    def on_down(self, reason: str) -> None:
        self._link = None
        self._stirred.set()
        if self._resyncing is not None:
            self._resyncing.cancel()
        if self._unseen_since is None:
            self._unseen_since = self._now() - UNNOTICED_S
        self._model.mark_gap()
        buffered, self._buffer = self._buffer or [], None
        if self._is_synced:  # else it is not known which boot they belong to: CDR tells of them
            self._feed(buffered)
        self._on_state(self._model.view.enterprise, self._model.view.pbx, "down", reason)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        """Unix time, steady as long as calls live."""
        return self._clock.at(time.monotonic())

    @property
    def _name(self) -> str:
        return f"{self._model.view.enterprise}/{self._model.view.pbx}"

    def _resync_soon(self, link: Link) -> None:
        if self._buffer is None:
            self._buffer = []
        if self._resyncing is not None:
            self._resyncing.cancel()
        self._resyncing = self._supervisor.job("resync", self._resync(link))

    async def _resync(self, link: Link) -> None:
        """Until it succeeds or the link is gone; meanwhile events wait, for without it they would begin calls that are there already."""
        delay_s = RETRY_S
        while True:
            try:
                self._is_stale = False
                left = Left() if self._is_synced else await self._recorder.left(self._model.view.enterprise, self._model.view.pbx)
                snapshot = await _look(link, self._now)
                if not self._is_stale:
                    break
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, LinkDown) as error:
                if isinstance(error, LinkDown) and not isinstance(error, ActionTimeout):
                    return
                log.warning("resync failed, tried again", pbx=self._name, error=str(error)[:200], retry_in_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(MAX_RETRY_S, delay_s * 2)
        self._reconcile(left, snapshot)
        await self._note_seen()

    def _reconcile(self, left: Left, snapshot: Snapshot) -> None:
        """The model is made to agree with the snapshot, then hears what came meanwhile. In one go: nothing may come between."""
        view, now = self._model.view, self._now()
        buffered, self._buffer = self._buffer or [], None
        born = {frame.get("Uniqueid") or "" for frame, _ in buffered if frame.event == "Newchannel"}
        hung_up = {frame.get("Uniqueid") or "" for frame, _ in buffered if frame.event == "Hangup"}
        verdict = judge(snapshot, view.boot, self._model.present(), hung_up)
        familiar = self._model.knows() | born | (snapshot.channels or {}).keys()
        is_reused = verdict.rebooted or bool(verdict.gone & (snapshot.channels or {}).keys())
        if is_reused:  # what has their names now is something else
            self._take(self._model.lose(verdict.gone, now, reused=True))
        boot, living = verdict.boot, 0
        if not self._is_synced:
            is_same, adopted, ends = sort_out(left, snapshot)
            boot, living = (left.boot or snapshot.boot) if is_same else snapshot.boot, len(adopted)
            self._model.adopt(adopted)
            self._take(ends)
        self._model.view = replace(self._model.view, boot=boot)
        self._is_synced = True
        self._astray = set()
        self._stirred.set()
        self._take(self._model.take_in(events_of(snapshot, self._model.present(), born), snapshot.at))
        if not is_reused:  # only now: what is left of their calls has to be found together with them
            self._take(self._model.lose(verdict.gone, now))
        self._feed([one for one in buffered if snapshot.channels is None or is_heard_of(one[0], familiar)])
        log.info(
            "resynced", pbx=self._name, rebooted=verdict.rebooted, channels=None if snapshot.channels is None else len(snapshot.channels),
            ended_unseen=len(verdict.gone), left_open=len(left.calls), going_on=living, buffered=len(buffered),
        )  # fmt: skip
        since, self._unseen_since = self._unseen_since if self._unseen_since is not None else left.seen_at, None
        if since is not None:
            self._on_gap(view.enterprise, view.pbx, since, now)
        self._on_state(view.enterprise, view.pbx, "up", "")

    def _feed(self, events: list[tuple[Frame, float]]) -> None:
        for frame, at in events:
            self._take(self._model.feed(frame, at))

    async def _sweep(self) -> None:
        """What the PBX and the model do not agree about twice in a row was not seen: look again."""
        while True:
            await asyncio.sleep(self._sweep_s * random.uniform(0.8, 1.2))  # not all PBXs at once
            link = self._link
            if link is None or self._buffer is not None or not self._is_synced:
                continue
            try:
                channels = read_channels(await link.request(CoreShowChannels()))
            except LinkDown:
                continue
            if channels is not None and self._buffer is None:
                before, self._astray = self._astray, astray(channels, self._model.knows())
                if still := before & self._astray:
                    log.warning("channels out of step with the pbx", pbx=self._name, channels=len(still))
                    self._resync_soon(link)
                    continue
            await self._note_seen()

    async def _keep_traces(self) -> None:
        assert self._tracer is not None
        while True:
            await self._heard.wait()
            await asyncio.sleep(TRACE_S)
            await self._put_away()
            if self._tracer.is_empty and not self._unpacked and not self._unstored:
                self._heard.clear()

    async def _put_away(self, *, last: bool = False) -> None:
        """Stores what is new of all calls' traces. While the database is away they wait; what is too much is let go, the oldest first."""
        if self._tracer is None:
            return
        is_away = bool(self._unstored)
        for _ in range(MAX_INBOX // SORTED_AT_ONCE):
            if not self._tracer.sort(SORTED_AT_ONCE):
                break
            await asyncio.sleep(SORT_REST_S)
        self._unpacked += self._tracer.parts(self._now(), last=last)
        if self._unpacked:
            parts = list(self._unpacked)
            self._unstored += await asyncio.to_thread(lambda: [pack(part, self._masker) for part in parts])
            del self._unpacked[: len(parts)]
        if not self._unstored:
            return
        try:
            await self._recorder.keep_traces(self._model.view.enterprise, self._model.view.pbx, self._unstored)
            self._unstored = []
        except LeaseLost:  # whoever reads the PBX now tells its story
            self._unstored = []
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            lost = self._let_go()
            if lost or not is_away:
                log.warning("traces wait for the database", pbx=self._name, waiting=len(self._unstored), let_go=lost, error=str(error)[:200])

    def _let_go(self) -> int:
        """What is beyond MAX_UNSTORED_BYTES; gives how many parts that were."""
        size, keep = 0, 0
        for trace in reversed(self._unstored):
            size += len(trace.raw) + len(trace.chunks) + len(trace.changes)
            if size > MAX_UNSTORED_BYTES:
                break
            keep += 1
        lost = len(self._unstored) - keep
        del self._unstored[:lost]
        return lost

    async def _note_seen(self) -> None:
        """Up to here nothing was missed: what a next process needs to know."""
        view = self._model.view
        with contextlib.suppress(LeaseLost, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            await self._recorder.note_seen(view.enterprise, view.pbx, view.boot, self._now())

    async def _tick(self) -> None:
        """Time passes only where it matters: a thousand still PBXs must cost nothing."""
        while True:
            await self._stirred.wait()
            await asyncio.sleep(TICK_S)
            self._events.inc(self._uncounted)
            self._uncounted = 0
            self._follow_clock()
            now = self._now()
            self._take(self._model.tick(now))
            if self._link is not None and not self._model.live_calls:
                self._stirred.clear()
            if self._unseen_since is not None and self._link is None and now - self._unseen_since > GIVE_UP_S:
                self._take(self._model.lose(self._model.knows(), now))

    def _follow_clock(self) -> None:
        step_s = self._clock.look(time.time(), time.monotonic(), is_idle=not self._model.live_calls)
        if step_s:
            log.warning("the clock was set, calls are dated by it from now on", pbx=self._name, step_s=round(step_s, 1))
            if self._unseen_since is not None:
                self._unseen_since += step_s

    def _take(self, changes: list[CallChange]) -> None:
        if not changes:
            return
        if self._tracer is not None:
            self._tracer.changed(changes)
            self._heard.set()
        for change in changes:
            if change.call.ended_at is not None and change.call.result is not None:
                metrics.CALLS.labels(str(change.call.direction), str(change.call.result)).inc()
        self._waiting.extend(changes)
        if len(self._waiting) > MAX_WAITING_CALLS:
            self._thin_out()
        metrics.WRITER_WAITING.set(len(self._waiting))
        self._all_stored.clear()
        self._news.set()
        if any(change.signals for change in changes):
            self._urgent.set()

    def _thin_out(self) -> None:
        """The database has been away for long: of each call only the newest record stays, with every signal of its changes."""
        newest: dict[str, CallChange] = {}
        for change in self._waiting:
            former = newest.pop(change.call.id, None)
            signals = (former.signals if former else ()) + change.signals
            newest[change.call.id] = CallChange(change.call, signals, change.at)
        lost = max(0, len(newest) - MAX_WAITING_CALLS)
        for call_id in list(newest)[:lost]:
            log.error("call given up: the database has been away too long", pbx=self._name, call=call_id)
            del newest[call_id]
        self._waiting = deque(newest.values())

    async def _write(self) -> None:
        delay_s = RETRY_S
        while True:
            await self._news.wait()
            # A call that merely began is written together with what follows at once: then the phone's ringing need not wait for it.
            if not self._urgent.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._urgent.wait(), QUIET_S)
            self._news.clear()
            self._urgent.clear()
            while self._waiting:
                batch = [self._waiting[i] for i in range(min(MAX_BATCH, len(self._waiting)))]
                try:
                    await self._store(batch)
                    delay_s = RETRY_S
                except LeaseLost:
                    log.error("not written: another daemon may read this pbx", pbx=self._name, changes=len(batch))
                    await asyncio.sleep(RETRY_S)
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                    log.error("database is away, changes wait", pbx=self._name, waiting=len(self._waiting), error=str(error)[:200])
                    await asyncio.sleep(delay_s)
                    delay_s = min(MAX_RETRY_S, delay_s * 2)
            self._all_stored.set()

    async def _store(self, batch: list[CallChange]) -> None:
        view = self._model.view
        integrations = await self._recorder.record(view.enterprise, view.pbx, batch)
        for _ in batch:
            self._waiting.popleft()
        metrics.WRITER_WAITING.set(len(self._waiting))
        metrics.RECORD_SECONDS.observe(max(0.0, self._now() - batch[-1].at))
        self._on_stored(view.enterprise, batch, integrations)
        for change in batch:
            if change.call.ended_at is not None:
                call = change.call
                log.info(
                    "call", enterprise=call.enterprise, call=call.id, direction=str(call.direction), result=str(call.result),
                    customer=masked(call.customer_number), answered_by=call.answered_by, talk_s=round(call.talk_seconds, 1), gap=call.gap,
                )  # fmt: skip


async def _look(link: Link, now: Callable[[], float]) -> Snapshot:
    """Asks the PBX what it is and what lives. Raises LinkDown, ActionTimeout.

    The bridges are asked for last: Asterisk hands out the events that wait before it takes the next action (main/manager.c), so what is
    older than the list of channels has come by then.
    """
    status = await link.request(CoreStatus())
    shown = await link.request(CoreShowChannels())
    at = now()
    return read_snapshot(status, shown, await link.request(BridgeList()), at)
