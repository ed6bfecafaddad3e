"""What the web side works with; filled by daemon/app.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from admin_http.ports import Joined
from admin_http.visitors import Network
from daemon.ami.link import LinkStatus
from daemon.delivery.desk import Desk
from daemon.delivery.outbox import Outbox
from daemon.live import Live
from daemon.model.delivery import Check, Kind
from daemon.people.service import People
from daemon.store.calls import CallRepository
from daemon.store.glance import Glance
from daemon.store.inbound_tokens import InboundTokens
from daemon.store.missed_customers import MissedRepository
from daemon.store.reports import ReportRepository
from daemon.store.tokens import TokenRepository
from daemon.tenants.service import Tenants


class RecordingLinks(Protocol):
    """Makes links to recordings for one reader."""

    def link(self, enterprise: str, call_id: str, index: int, lives_s: float, *, name: str = "", mp3: bool = False) -> str:
        """The path of a link to the `index`-th recording of a call, good for `lives_s` seconds."""


@dataclass(frozen=True, slots=True)
class Services:
    """The daemon as handlers see it."""

    tenants: Tenants
    calls: CallRepository
    outbox: Outbox
    tokens: TokenRepository
    inbound: InboundTokens
    live: Live
    people: People
    check: Callable[[str, str, Any | None], Awaitable[Sequence[Check]]]
    glance: Callable[[str | None], Awaitable[Mapping[str, Glance]]]
    links: Callable[[], Mapping[tuple[str, str], LinkStatus]]
    live_calls: Callable[[str], int]
    wake: Callable[[str, str], None]
    desk: Desk
    reports: ReportRepository
    connections: Callable[[str], Awaitable[list[dict[str, Any]]]]
    state: Callable[[str | None], Awaitable[dict[str, Any]]]
    kinds: Mapping[str, frozenset[Kind]]
    missed: MissedRepository
    recording_links: RecordingLinks | None
    is_ready: Callable[[], Awaitable[bool]]
    integrations: tuple[str, ...]
    admin_token: str | None
    started_at: float
    joined: Joined
    base_url: str
    trusted_proxies: tuple[Network, ...]
