"""One PBX at work: link events into the model, the model's changes to the recorder. Thin shell.

Reader, model and writer are separate: the reader never waits. Changes wait for their commit in a queue; beyond
MAX_WAITING_CALLS it is thinned out to the newest record of each call with all its signals, and if these are still more, the
oldest are given up, each with a line in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

import asyncpg
import structlog

from daemon.ami.actions import CoreShowChannels, CoreStatus
from daemon.ami.link import Link, LinkDown
from daemon.ami.session import Answer
from daemon.ami.wire import Frame, Skipped
from daemon.calls.correlator import Correlator
from daemon.calls.recorder import Recorder
from daemon.calls.resync import boot_of, channels_of, sort_out
from daemon.calls.view import PbxView
from daemon.model.phone import masked
from daemon.model.signal import CallChange
from daemon.store.leases import LeaseLost
from daemon.supervisor import Supervisor
from daemon.telemetry import metrics

TICK_S = 0.5
QUIET_S = 0.03  # how long a change that nobody is told of may wait for company
STOP_DEADLINE_S = 5.0
RETRY_S = 0.5
MAX_RETRY_S = 5.0
MAX_BATCH = 200
MAX_BUFFERED_EVENTS = 50_000  # while the snapshot is read; more, and the resync begins again
MAX_WAITING_CALLS = 20_000

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
    ) -> None:
        self._model = Correlator(view)
        self._recorder = recorder
        self._on_stored = on_stored
        self._on_state = on_state
        self._watchers = watchers if watchers is not None else {}
        self._waiting: deque[CallChange] = deque()
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        self._all_stored = asyncio.Event()
        self._all_stored.set()
        self._buffer: list[tuple[Frame, float]] | None = None
        self._supervisor = Supervisor(f"feed {view.enterprise}/{view.pbx}")
        self._events = metrics.AMI_EVENTS.labels(view.enterprise)
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

    async def stop(self) -> None:
        """Gives what waits a last chance to be stored, then stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_stored.wait(), STOP_DEADLINE_S)
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
        self._events.inc()
        if (watcher := self._watchers.get(frame.event)) is not None:
            watcher((self._model.view.enterprise, self._model.view.pbx), frame, at)
        if self._buffer is None:
            self._take(self._model.feed(frame, at))
        elif len(self._buffer) < MAX_BUFFERED_EVENTS:
            self._buffer.append((frame, at))
        else:
            log.error("too many events while the snapshot was read", pbx=self._name)
            self._model.mark_gap()

    def on_unseen(self, skipped: Skipped) -> None:
        view = self._model.view
        metrics.AMI_UNSEEN.labels(view.enterprise, skipped.reason).inc()
        log.warning("ami frame skipped", pbx=self._name, reason=skipped.reason, size_bytes=skipped.size_bytes)
        self._model.mark_gap()
        if self._buffer is None and self._link is not None:  # what was missed may be a hangup: look again
            self._resync_soon(self._link)

    def on_down(self, reason: str) -> None:
        self._model.mark_gap()
        self._on_state(self._model.view.enterprise, self._model.view.pbx, "down", reason)

    def on_bytes(self, data: bytes, at: float) -> None: ...

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"{self._model.view.enterprise}/{self._model.view.pbx}"

    def _resync_soon(self, link: Link) -> None:
        if self._buffer is None:
            self._buffer = []
        self._supervisor.job("resync", self._resync(link))

    async def _resync(self, link: Link) -> None:
        """Which boot is this, what lives; then the events that came meanwhile, in order."""
        view = self._model.view
        try:
            boot = boot_of(await link.request(CoreStatus()))
            known = self._model.knows()  # before asking: what begins meanwhile is not in the answer
            shown = await link.request(CoreShowChannels())
            if not view.boot:
                await self._take_over(shown)
            alive = channels_of(shown)
            gone = known if boot != view.boot and view.boot else known - alive if alive is not None else set()
            self._take(self._model.lose(gone, time.time()))
            self._model.view = replace(self._model.view, boot=boot)
            self._on_state(view.enterprise, view.pbx, "up", "")
        except (LinkDown, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            log.warning("resync failed", pbx=self._name, error=str(error))
        finally:
            buffered, self._buffer = self._buffer or [], None
            for frame, at in buffered:
                self._take(self._model.feed(frame, at))

    async def _take_over(self, shown: Answer) -> None:
        """What a former process left open: the living go on under their id, the others are ended and told."""
        if not shown.ok:
            return
        view = self._model.view
        left = await self._recorder.left_open(view.enterprise, view.pbx)
        living, ends = sort_out(left, shown, time.time())
        self._model.adopt(living)
        self._take(ends)
        if left:
            log.info("calls of a former process", pbx=self._name, living=len(living), ended=len(ends))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._take(self._model.tick(time.time()))

    def _take(self, changes: list[CallChange]) -> None:
        if not changes:
            return
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
        metrics.RECORD_SECONDS.observe(max(0.0, time.time() - batch[-1].at))
        self._on_stored(view.enterprise, batch, integrations)
        for change in batch:
            if change.call.ended_at is not None:
                call = change.call
                log.info(
                    "call", enterprise=call.enterprise, call=call.id, direction=str(call.direction), result=str(call.result),
                    customer=masked(call.customer_number), answered_by=call.answered_by, talk_s=round(call.talk_seconds, 1), gap=call.gap,
                )  # fmt: skip
