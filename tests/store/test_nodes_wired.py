"""Two daemons' rooms joined over one database: news of one are seen through the other, and what one was told the other heeds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from adapters.retailcrm.deliver import RetailCrm
from daemon.ami.devices import Devices
from daemon.ami.watch import DeviceWatch
from daemon.delivery.budgets import Budgets
from daemon.live import Live
from daemon.model.delivery import Rate
from daemon.model.device import DeviceState
from daemon.model.signal import Ended
from daemon.store.leases import Leases
from daemon.store.pool import Database
from daemon.supervisor import Supervisor
from daemon.wiring.elsewhere import Everywhere
from daemon.wiring.nodes import Nodes
from daemon.wiring.presence import PbxPresence
from tests.patience import PATIENCE_S
from tests.rig import NUMBER, WITHIN_S, a_call, rig
from tests.store.test_nodes import SETTINGS, daemon_called, until


@dataclass
class Heeded:
    """Instead of lookup and dispatcher: what they are told."""

    told: list[tuple[object, ...]] = field(default_factory=list)

    def forget(self, enterprise: str, source: str, numbers: Sequence[str] | None) -> None:
        self.told.append(("forget", enterprise, source, numbers))

    def settings_changed(self, enterprises: set[str]) -> None:
        self.told.append(("changed", *enterprises))

    def status_changed(self, enterprise: str, integration: str) -> None:
        self.told.append(("status", enterprise, integration))


@dataclass
class Side:
    """One daemon."""

    leases: Leases
    live: Live
    nodes: Nodes
    heeded: Heeded
    everywhere: Everywhere


@asynccontextmanager
async def sides(db: Database) -> AsyncIterator[tuple[Side, Side]]:
    running, built = list[Supervisor](), list[Side]()
    for name in ("one", "two"):
        leases, live, heeded = daemon_called(db, f"{name}-1"), Live(), Heeded()
        nodes = Nodes(db, leases, live)
        built.append(Side(leases, live, nodes, heeded, Everywhere(nodes, heeded, heeded)))  # type: ignore[arg-type]
        running.append(Supervisor(name))
        nodes.serve(running[-1])
    for side in built:
        await asyncio.wait_for(side.nodes.post.connected.wait(), WITHIN_S)
    for side in built:
        await side.nodes.join()
    try:
        await until(lambda: all(side.leases.others for side in built))
        yield built[0], built[1]
    finally:
        for side in built:
            await side.nodes.asks.stop()
        for services in running:
            await services.stop()


async def test_what_changes_on_one_daemon_is_shown_to_who_watches_through_the_other(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r, sides(db) as (one, two):
        call = a_call()
        await r.record(call, Ended(()), wake=False)
        assert not one.live.has_watchers(NUMBER)
        with two.live.watch(NUMBER) as queue:
            await until(lambda: one.live.has_watchers(NUMBER))
            one.live.tell(NUMBER, "pbx", {"id": "main", "state": "up"})
            news = await asyncio.wait_for(queue.get(), WITHIN_S)
            assert news is not None
            assert (news.topic, news.data) == ("pbx", {"id": "main", "state": "up"})
            one.live.tell(NUMBER, "call", {"id": "00000000-0000-0000-0000-000000000000"})  # it is gone meanwhile
            one.live.tell(NUMBER, "call", {**call.to_json(), "result": "what is told is read again"})
            news = await asyncio.wait_for(queue.get(), WITHIN_S)
            assert news is not None
            assert (news.topic, news.data["id"], news.data["result"]) == ("call", call.id, "answered")
            assert len(news.data["legs"]) == 1
            two.live.close()
            assert await asyncio.wait_for(queue.get(), WITHIN_S) is None
        await until(lambda: not one.live.has_watchers(NUMBER))


async def test_what_one_daemon_was_told_all_heed(db: Database) -> None:
    async with sides(db) as (one, two):
        one.everywhere.forget(NUMBER, "amocrm", ["+375291111111"])
        one.everywhere.forget(NUMBER, "amocrm", [str(n) for n in range(1000)])
        one.everywhere.forget(NUMBER, None, None)
        one.everywhere.status_changed(NUMBER, "retailcrm")
        one.everywhere.cured(NUMBER)
        await until(lambda: len(two.heeded.told) == 5)
    assert two.heeded.told == [
        ("forget", NUMBER, "amocrm", ["+375291111111"]), ("forget", NUMBER, "amocrm", None), ("changed", NUMBER), ("status", NUMBER, "retailcrm"),
        ("changed", NUMBER),
    ]  # fmt: skip
    assert [told[0] for told in one.heeded.told] == ["forget", "forget", "changed", "changed"], "here at once"


async def test_a_pause_of_one_daemon_holds_for_the_other(db: Database) -> None:
    async with sides(db) as (one, two):
        budgets = [Budgets(db, side.leases.owner, side.nodes.living, side.nodes.say_pause) for side in (one, two)]
        for side, budget in zip((one, two), budgets, strict=True):
            side.nodes.share(budget)
        mine, theirs = (budget.limiter("crm", {"all": Rate(40, 1.0)}) for budget in budgets)
        mine.pause("all", asyncio.get_running_loop().time() + 1000)
        now = asyncio.get_running_loop().time()
        await until(lambda: theirs.reserve("all", now) > 500)


class _Read:
    """One daemon's side of `wiring.presence.Elsewhere`, over the real messages."""

    def __init__(self, side: Side, elsewhere: set[str]) -> None:
        self._asks = side.nodes.asks
        self._elsewhere = elsewhere
        self.ask, self.answer = self._asks.ask, self._asks.answer

    def read_elsewhere(self, enterprise: str) -> set[str]:
        return self._elsewhere


async def test_phones_are_known_wherever_their_pbx_is_read_and_not_waited_for_when_nobody_tells(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for deadline in ("DEVICES_WITHIN_S", "CHANNEL_WITHIN_S"):
        monkeypatch.setattr(f"daemon.wiring.presence.{deadline}", PATIENCE_S)
    async with sides(db) as (one, two):
        watch = DeviceWatch("main", "inoffice")
        devices: Devices = watch.devices
        devices.feed(_Event("DeviceStateChange", {"Device": "PJSIP/150", "State": "NOT_INUSE"}))
        devices.feed(_Event("Newchannel", {"Channel": "PJSIP/provider-1", "Uniqueid": "8.1", "Linkedid": "8.0", "ChannelState": "4"}))
        devices.feed(_Event("Newchannel", {"Channel": "PJSIP/151-2", "Uniqueid": "8.2", "Linkedid": "8.0", "ChannelState": "5"}))
        PbxPresence({(NUMBER, "main"): watch}, _Read(one, set()))
        far = PbxPresence({}, _Read(two, {"main"}))
        around = await far.at(NUMBER, "", "", "150", PATIENCE_S)
        assert (around.conversation, around.state("150"), around.was_tried("150")) == (None, DeviceState.FREE, False)
        around = await far.at(NUMBER, "PJSIP/provider-1", "", "151", PATIENCE_S)
        assert (around.conversation, around.state("151"), around.was_tried("151")) == ("8.0", DeviceState.RINGING, True)
        assert await far.states(NUMBER, ["150", "151", "199"]) == {"150": DeviceState.FREE, "151": DeviceState.RINGING, "199": DeviceState.UNKNOWN}
        assert await far.pbx_with(NUMBER, "PJSIP/provider-1") == "main"
        monkeypatch.setattr("daemon.wiring.presence.CHANNEL_WITHIN_S", 0.05)
        assert await far.pbx_with(NUMBER, "PJSIP/provider-9") is None
        assert (await far.at("0400", "", "", "150", 0.05)).state("150") is DeviceState.UNKNOWN, "nobody tells: after a moment it is not known"
        assert (await far.at(NUMBER, "", "", "150", -1.0)).state("150") is DeviceState.UNKNOWN, "there is no time to ask"


@dataclass
class _Event:
    event: str
    headers: dict[str, str]

    def get(self, header: str, /) -> str | None:
        return self.headers.get(header)
