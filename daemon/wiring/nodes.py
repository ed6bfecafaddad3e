"""This daemon among the others: it joins them, tells them what their pages and streams need, and hears of theirs."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import asyncpg
import structlog

from daemon.ami.link import LinkState, LinkStatus
from daemon.delivery.budgets import Budgets
from daemon.errors import NotFound
from daemon.live import Live
from daemon.nodes.asks import Asks
from daemon.nodes.post import Post
from daemon.store.calls import CallRepository
from daemon.store.leases import Leases, node_of
from daemon.store.pool import Database
from daemon.supervisor import Supervisor
from daemon.wiring.pbxs import Pbxs

MAX_WATCHED = 500  # enterprises in one message; more are told at the next beat
MAX_UNREAD = 2_000  # calls of which another daemon told and that are not read yet; the oldest are not shown
FRESH_S = 5.0  # what a message said counts beside what a beat says, which may be older

log = structlog.get_logger()


class Nodes:
    """`post` carries what is said, `asks` what is asked."""

    def __init__(self, db: Database, leases: Leases, live: Live) -> None:
        self._leases = leases
        self._live = live
        self._calls = CallRepository(db)
        self._pbxs: Pbxs | None = None
        self.post = Post(db, leases.owner)
        self.asks = Asks(db, self.post)
        self._said_watched: dict[str, tuple[float, frozenset[str]]] = {}
        self._watched: frozenset[str] = frozenset()
        self._unread: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._news = asyncio.Event()
        self.post.has_others = lambda: bool(leases.others)
        for kind, handler in {"hello": self._changed, "free": self._changed, "watch": self._watch, "call": self._call, "news": self._told_news}.items():
            self.post.on(kind, handler)
        leases.told, live.abroad = self._tell, self
        leases.on_beat.append(self._after_beat)
        live.on_watched.append(self._say_watched)

    def serve(self, supervisor: Supervisor) -> None:
        """Starts hearing and speaking."""
        for name, run in {"leases": self._leases.run, "nodes heard": self.post.listen, "nodes told": self.post.send, "calls elsewhere": self._show}.items():
            supervisor.serve(name, run)

    async def join(self) -> None:
        """Counts among the living from here on, and the others hear of it at once."""
        await self._leases.beat()
        self.post.say("hello", {})

    def look_after(self, pbxs: Pbxs) -> None:
        """The PBXs of this process, which the others want to know of; what it gives away is told."""
        self._pbxs = pbxs
        pbxs.on_given.append(lambda: self.post.say("free", {}))

    def living(self) -> int:
        """How many daemons live, this one among them."""
        return max(1, len(self._leases.nodes))

    def share(self, budgets: Budgets) -> None:
        """The limits of CRM accounts are divided among all that live, and a pause holds for all."""
        self._leases.on_beat.append(budgets.count)
        self.post.on("pause", lambda _, body: budgets.pause(str(body["account"]), str(body["bucket"]), float(body["for_s"])))

    def say_pause(self, account: str, bucket: str, for_s: float) -> None:
        """A CRM wants this kind of request to rest."""
        self.post.say("pause", {"account": account, "bucket": bucket, "for_s": for_s}, key=("pause", account, bucket))

    # -- what the others know ----------------------------------------------------------------------------------------------------

    def links(self, enterprise: str | None = None) -> dict[tuple[str, str], LinkStatus]:
        """Every link that some daemon keeps, of one enterprise or of all; what is read elsewhere as of the last beat, without version, and since
        when (0) while it is up."""
        found = {
            (number, pbx): _elsewhere(node.name, (node.told.get("links") or {}).get(f"{number}/{pbx}"))
            for node in self._leases.others
            for number, pbx in self._leases.read_by(node.owner)
            if enterprise in (None, number)
        }
        for key, link in self._pbxs.fleet.links.items() if self._pbxs is not None else ():
            if enterprise in (None, key[0]):
                found[key] = replace(link.status, node=node_of(self._leases.owner))
        return found

    def live_calls(self, enterprise: str) -> int:
        """How many live, on whichever daemon's PBXs."""
        here = sum(feed.live_calls for key, feed in self._pbxs.feeds.items() if key[0] == enterprise) if self._pbxs is not None else 0
        return here + sum(int((node.told.get("live") or {}).get(enterprise, 0)) for node in self._leases.others)

    # -- live.Abroad -----------------------------------------------------------------------------------------------------------

    def has_watchers(self, enterprise: str) -> bool:
        """Whether anybody watches through another daemon."""
        return enterprise in self._watched

    def tell(self, enterprise: str, topic: str, data: Mapping[str, Any]) -> None:
        """A call is told by its name, and read where it is watched: it may be longer than a message."""
        if topic == "call":
            self.post.say("call", {"enterprise": enterprise, "id": data["id"]}, key=("call", data["id"]))
        else:
            self.post.say("news", {"enterprise": enterprise, "topic": topic, "data": data})

    # -- inside ------------------------------------------------------------------------------------------------------------------

    def _tell(self) -> dict[str, Any]:
        """What stands in this process' row: small, for it is written at every beat."""
        live: dict[str, int] = {}
        links = {}
        if self._pbxs is not None:
            for (enterprise, _), feed in self._pbxs.feeds.items():
                if feed.live_calls:
                    live[enterprise] = live.get(enterprise, 0) + feed.live_calls
            links = {
                "/".join(key): [str(link.status.state), link.status.reason[:200], link.status.since]
                for key, link in self._pbxs.fleet.links.items()
                if link.status.state is not LinkState.READY
            }
        return {"watches": self._live.watched, "live": live, "links": links}

    def _say_watched(self) -> None:
        if len(self._live.watched) <= MAX_WATCHED:
            self.post.say("watch", {"enterprises": self._live.watched}, key="watch")
        self._leases.beat_soon()

    def _after_beat(self) -> None:
        now, owners = time.monotonic(), {node.owner for node in self._leases.others}
        self._said_watched = {owner: said for owner, said in self._said_watched.items() if owner in owners and now - said[0] < FRESH_S}
        self._count_watched()

    def _count_watched(self) -> None:
        by_beat = (node.told.get("watches") or () for node in self._leases.others)
        self._watched = frozenset().union(*by_beat, *(said for _, said in self._said_watched.values()))

    def _changed(self, _: str, __: Mapping[str, Any]) -> None:
        """Somebody came, or went: PBXs may be free, and everybody's part is another."""
        self._leases.beat_soon()
        if self._pbxs is not None:
            self._pbxs.look_soon()

    def _watch(self, sender: str, body: Mapping[str, Any]) -> None:
        self._said_watched[sender] = (time.monotonic(), frozenset(map(str, body["enterprises"])))
        self._count_watched()

    def _told_news(self, _: str, body: Mapping[str, Any]) -> None:
        self._live.tell_here(str(body["enterprise"]), str(body["topic"]), dict(body["data"]))

    def _call(self, _: str, body: Mapping[str, Any]) -> None:
        self._unread[str(body["enterprise"]), str(body["id"])] = None
        if len(self._unread) > MAX_UNREAD:
            self._unread.popitem(last=False)
        self._news.set()

    async def _show(self) -> None:
        """Reads the calls of which others told, as they are now, and shows them to those who watch here."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._unread:
                (enterprise, call_id), _ = self._unread.popitem(last=False)
                try:
                    call = await self._calls.get(enterprise, call_id)
                except NotFound:
                    continue
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                    log.warning("a call of another daemon was not shown", error=str(error)[:200])
                    continue
                self._live.tell_here(enterprise, "call", call)


def _elsewhere(node: str, trouble: list[Any] | None) -> LinkStatus:
    """`trouble`: state, reason and since of a link that is not up."""
    state, reason, since = trouble or (LinkState.READY, "", 0.0)
    return LinkStatus(LinkState(state), str(reason), float(since), node=node)
