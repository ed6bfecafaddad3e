"""The fleet as the documents want it: links, feeds and leases."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import asyncpg
import structlog

from daemon.ami.fleet import Fleet
from daemon.ami.link import Link, LinkHandler, LinkTarget
from daemon.ami.watch import DeviceWatch, Together
from daemon.ami.wire import Frame
from daemon.calls.feed import PbxFeed
from daemon.calls.recorder import Recorder
from daemon.calls.view import PbxView
from daemon.delivery.dispatcher import Dispatcher
from daemon.live import Live
from daemon.model.call import Call
from daemon.model.signal import CallChange
from daemon.nodes.share import to_give
from daemon.store.leases import Leases, PbxKey
from daemon.tenants.document import Pbx
from daemon.tenants.service import Tenants
from daemon.wiring.afterwards import Afterwards

LOOK_S = 1.0
_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)

log = structlog.get_logger()


class Pbxs:
    """Keeps the fleet equal to what the tenants' documents say, for every PBX whose lease this process holds.

    watchers: by an event's name, who else hears it; on_stored: who hears of changes once they are durable; on_up: who hears that a PBX is
    connected and its calls are known. All are called synchronously and return at once.
    """

    def __init__(
        self, tenants: Tenants, leases: Leases, recorder: Recorder, dispatcher: Dispatcher, live: Live, afterwards: Afterwards, ended: Callable[[Call], None]
    ) -> None:
        self._tenants = tenants
        self._leases = leases
        self._recorder = recorder
        self._dispatcher = dispatcher
        self._live = live
        self._ended = ended
        self._afterwards = afterwards
        self._feeds: dict[PbxKey, PbxFeed] = {}
        self._read_at: dict[PbxKey, int] = {}  # the epoch of what each feed knows
        self.watches: dict[PbxKey, DeviceWatch] = {}
        self._changed = asyncio.Event()
        self.watchers: dict[str, Callable[[PbxKey, Frame, float], None]] = {}
        self.on_stored: list[Callable[[str, list[CallChange]], None]] = []
        self.on_up: list[Callable[[PbxKey], None]] = []
        self.on_given: list[Callable[[], None]] = []  # PBXs are free for the other daemons
        self.fleet = Fleet(self._handler)
        tenants.on_change(lambda _: self._changed.set())
        leases.on_lost.append(self.look_soon)

    def look_soon(self) -> None:
        """PBXs may be free, or no longer ours."""
        self._changed.set()

    def link(self, key: PbxKey) -> Link | None:
        """The link of a PBX that this process surely reads: what acts on a PBX goes through here."""
        return self.fleet.links.get(key) if self._leases.holds(key) else None

    @property
    def feeds(self) -> Mapping[PbxKey, PbxFeed]:
        return self._feeds

    async def run(self) -> None:
        """Follows the documents, takes what nobody reads, and gives away what is more than this process' part."""
        self._changed.set()
        while True:
            try:
                await self._look()
            except _AWAY as error:
                log.warning("the database is away, PBXs stay as they are", error=str(error)[:200])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()

    async def _look(self) -> None:
        wanted = self._wanted()
        taken = await self._take(sorted(wanted))
        if taken or self._changed.is_set() or self._leases.held != self._feeds.keys() or self._surplus(wanted):
            self._changed.clear()
            await self._reconcile(wanted)

    def _wanted(self) -> dict[PbxKey, Pbx]:
        return {(n, pbx.name): pbx for n, t in self._tenants.all().items() if not t.enterprise.paused for pbx in t.enterprise.pbxs if pbx.secret}

    def _surplus(self, wanted: Mapping[PbxKey, Pbx]) -> list[PbxKey]:
        return to_give(len(wanted), self._leases.held & wanted.keys(), len(self._leases.nodes), self._is_idle)

    async def stop(self) -> None:
        """Logs off everywhere, stores what waits, and hands all PBXs over: another process reads them from this moment on."""
        await self.fleet.stop()
        await asyncio.gather(*(feed.stop() for feed in self._feeds.values()), *(watch.stop() for watch in self.watches.values()))
        self._feeds.clear()
        self.watches.clear()
        try:
            count = len(self._leases.held)
            await self._leases.drop_all()
            log.info("pbxs handed over", count=count)
        except _AWAY as error:
            log.warning("pbxs could not be handed over, their leases run out", error=str(error)[:200])
        self._given()

    async def _reconcile(self, wanted: dict[PbxKey, Pbx]) -> None:
        for key in self._surplus(wanted):
            del wanted[key]
        targets = {key: _target(pbx) for key, pbx in wanted.items() if key in self._leases.held}
        for key in self._feeds.keys() & targets.keys():
            view = self._view(key)
            self._feeds[key].set_view(view)
            self.watches[key].devices.context = view.internal_context or ""
        await self.fleet.set(targets)
        for key in [key for key in self._feeds if key not in targets]:
            await self._end(key, is_ours=key in self._leases.held)
        if given := self._leases.held - wanted.keys():
            for key in given:
                await self._leases.drop(key)
            self._given()

    async def _take(self, wanted: list[PbxKey]) -> bool:
        """What nobody reads. A feed whose lease ran out goes on when nobody had it meanwhile; else what it knows is old, and it begins anew."""
        taken = await self._leases.take_part(wanted) if not set(wanted) <= self._leases.held else {}
        for key, epoch in taken.items():
            if key in self._feeds and epoch != self._read_at[key] + 1:
                await self.fleet.remove(key)
                await self._end(key, is_ours=False)
            self._read_at[key] = epoch
            self._leases.begin(key, epoch)
        return bool(taken)

    async def _end(self, key: PbxKey, *, is_ours: bool) -> None:
        feed = self._feeds.pop(key)
        await (feed.stop() if is_ours else feed.abandon())
        await self.watches.pop(key).stop()

    def _is_idle(self, key: PbxKey) -> bool:
        return key not in self._feeds or self._feeds[key].live_calls == 0

    def _given(self) -> None:
        for listener in self.on_given:
            listener()

    def _handler(self, key: PbxKey) -> LinkHandler:
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = PbxFeed(
                self._view(key), self._recorder, self.stored, self._state, self.watchers, on_gap=self._afterwards.gap,
                tracer=self._afterwards.tracer(), masker=self._afterwards.masker,
            )  # fmt: skip
            feed.start()
            watch = self.watches[key] = DeviceWatch("/".join(key), self._view(key).internal_context or "")
            watch.start()
        return Together(feed, self.watches[key])

    def _view(self, key: PbxKey) -> PbxView:
        tenancy = self._tenants.get(key[0])
        assert tenancy is not None
        pbx = next(pbx for pbx in tenancy.enterprise.pbxs if pbx.name == key[1])
        return tenancy.enterprise.view(pbx)

    async def record(self, key: PbxKey, change: CallChange) -> None:
        """Stores and tells a change that is not the call model's. Raises what Recorder.record does."""
        self.stored(key[0], [change], await self._recorder.record(*key, [change]))

    def stored(self, enterprise: str, changes: list[CallChange], integrations: set[str]) -> None:
        """What follows the commit of changes: deliveries wake, who listens hears of it."""
        for listener in self.on_stored:
            listener(enterprise, changes)
        for integration in integrations:
            self._dispatcher.wake(enterprise, integration)
        for change in changes:
            if change.call.recordings and change.call.ended_at is not None:
                self._ended(change.call)
        if self._live.has_watchers(enterprise):
            for change in changes:
                self._live.tell(enterprise, "call", change.call.to_json())

    def _state(self, enterprise: str, pbx: str, state: str, reason: str) -> None:
        if state == "up":
            for listener in self.on_up:
                listener((enterprise, pbx))
        self._live.tell(enterprise, "pbx", {"id": pbx, "state": state, "reason": reason})


def _target(pbx: Pbx) -> LinkTarget:
    assert pbx.secret is not None
    return LinkTarget(pbx.host, pbx.port, pbx.username, pbx.secret.get_secret_value(), pbx.tls, pbx.tls_fingerprint)
