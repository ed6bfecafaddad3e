"""What the web side works with; filled by daemon/app.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from admin_http.ports import Joined
from admin_http.visitors import Network
from daemon.ami.link import LinkStatus
from daemon.calls.posting import PostedCalls
from daemon.delivery.desk import Desk
from daemon.delivery.outbox import Outbox
from daemon.erasure import Erasure
from daemon.explain import Explain
from daemon.live import Live
from daemon.lookup.decision import Decision
from daemon.model.delivery import Check, Kind
from daemon.model.device import DeviceState
from daemon.originate.clicks import CrmClicks
from daemon.originate.service import OriginateService
from daemon.people.service import People
from daemon.recordings.service import Recordings
from daemon.records.known import Callers
from daemon.records.service import Records
from daemon.store.calls import CallRepository
from daemon.store.glance import Glance
from daemon.store.inbound_tokens import InboundTokens
from daemon.store.integration_state import IntegrationStates
from daemon.store.missed import MissedRepository
from daemon.store.reports import ReportRepository
from daemon.store.tokens import TokenRepository
from daemon.store.user_statuses import UserStatuses
from daemon.tenants.managers import Managers
from daemon.tenants.registration import Registrations
from daemon.tenants.service import Tenants
from daemon.tickets.attachments import Attachments
from daemon.tickets.desk import TicketDesk


@dataclass(frozen=True, slots=True)
class Services:
    """The daemon as handlers see it."""

    tenants: Tenants
    calls: CallRepository
    outbox: Outbox
    tokens: TokenRepository
    inbound: InboundTokens
    originate: OriginateService
    clicks: CrmClicks
    posted: PostedCalls
    statuses: UserStatuses
    live: Live
    registrations: Registrations
    managers: Managers
    states: IntegrationStates
    recordings: Recordings
    people: People
    support: TicketDesk
    records: Records
    callers: Callers
    attachments: Attachments
    missed: MissedRepository
    close_missed: Callable[[str, str, str | None], Awaitable[dict[str, Any]]]
    differences: Callable[[str, datetime | None, datetime | None, int], Awaitable[list[dict[str, Any]]]]
    explain: Explain
    erasure: Erasure
    check: Callable[[str, str, Any | None], Awaitable[Sequence[Check]]]
    glance: Callable[[Collection[str]], Awaitable[Mapping[str, Glance]]]
    troubled: Callable[[], Awaitable[frozenset[str]]]
    links: Callable[[str | None], Mapping[tuple[str, str], LinkStatus]]
    nodes: Callable[[], list[dict[str, Any]]]
    live_calls: Callable[[str], int]
    devices: Callable[[str, Sequence[str]], Awaitable[Mapping[str, DeviceState]]]
    smart_redirect: Callable[[str, str, str | None], Awaitable[Decision]]
    wake: Callable[[str, str], None]
    desk: Desk
    reports: ReportRepository
    connections: Callable[[str], Awaitable[list[dict[str, Any]]]]
    state: Callable[[str | None], Awaitable[dict[str, Any]]]
    refresh: Callable[[str], Awaitable[None]]
    kinds: Mapping[str, frozenset[Kind]]
    is_ready: Callable[[], Awaitable[bool]]
    integrations: tuple[str, ...]
    admin_token: str | None
    started_at: float
    joined: Joined
    base_url: str
    trusted_proxies: tuple[Network, ...]
