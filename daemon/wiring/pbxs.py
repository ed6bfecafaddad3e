"""The fleet as the documents want it: links, feeds and leases."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from daemon.ami.fleet import Fleet
from daemon.ami.link import LinkHandler, LinkTarget
from daemon.ami.watch import DeviceWatch, Together
from daemon.ami.wire import Frame
from daemon.calls.feed import PbxFeed
from daemon.calls.recorder import Recorder
from daemon.calls.view import PbxView
from daemon.delivery.dispatcher import Dispatcher
from daemon.live import Live
from daemon.model.call import Call
from daemon.model.signal import CallChange
from daemon.store.leases import Leases, PbxKey
from daemon.tenants.document import Pbx
from daemon.tenants.service import Tenants
from daemon.wiring.afterwards import Afterwards

LEASE_RETRY_S = 2.0


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
        self.watches: dict[PbxKey, DeviceWatch] = {}
        self._changed = asyncio.Event()
        self.watchers: dict[str, Callable[[PbxKey, Frame, float], None]] = {}
        self.on_stored: list[Callable[[str, list[CallChange]], None]] = []
        self.on_up: list[Callable[[PbxKey], None]] = []
        self.fleet = Fleet(self._handler)
        tenants.on_change(lambda _: self._changed.set())

    @property
    def feeds(self) -> Mapping[PbxKey, PbxFeed]:
        return self._feeds

    async def run(self) -> None:
        """Follows the documents, and tries again for PBXs that another process still holds."""
        is_news = True
        while True:
            self._changed.clear()
            await self._reconcile(is_news=is_news)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LEASE_RETRY_S)
            is_news = self._changed.is_set()

    async def stop(self) -> None:
        """Logs off everywhere and stores what waits."""
        await self.fleet.stop()
        await asyncio.gather(*(feed.stop() for feed in self._feeds.values()), *(watch.stop() for watch in self.watches.values()))
        self._feeds.clear()
        self.watches.clear()

    async def _reconcile(self, *, is_news: bool) -> None:
        """is_news: the documents changed; else only what other processes held, or lost, may be different."""
        wanted = {(n, pbx.name): pbx for n, t in self._tenants.all().items() if not t.enterprise.paused for pbx in t.enterprise.pbxs if pbx.secret}
        if missing := wanted.keys() - self._leases.held:
            await self._leases.take(missing)
        if not is_news and self._leases.held == self._feeds.keys() == wanted.keys():
            return
        targets = {key: _target(pbx) for key, pbx in wanted.items() if key in self._leases.held}
        for key in self._feeds.keys() & targets.keys():
            view = self._view(key)
            self._feeds[key].set_view(view)
            self.watches[key].devices.context = view.internal_context or ""
        await self.fleet.set(targets)
        for key in [key for key in self._feeds if key not in targets]:
            await self._feeds.pop(key).stop()
            await self.watches.pop(key).stop()
        for key in self._leases.held - wanted.keys():
            await self._leases.drop(key)

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
