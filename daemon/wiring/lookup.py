"""Looking up, joined with CRMs and calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from adapters.base import CanLookUp
from daemon.lookup.ports import Journal, Source, SourceFailed
from daemon.model.crm import Responsible
from daemon.model.delivery import Exchange
from daemon.store.known_customers import KnownCustomers
from daemon.store.past_calls import PastCalls
from daemon.tenants.service import Tenants
from daemon.wiring.crm import AdapterPort, Crm

ORDER = ("retailcrm", "bitrix24", "amocrm", "tickets")
RECORDS, CALLS = "records", "calls"
OWN_AT_ONCE = 4  # of the pool's connections


@dataclass(frozen=True, slots=True)
class CrmSource:
    """A CRM as a source; what was said over the line is written down."""

    enterprise: str
    port: AdapterPort
    journal: Journal

    @property
    def name(self) -> str:
        return self.port.adapter.name

    @property
    def concurrency(self) -> int:
        return self.port.policy.concurrency

    @property
    def user_extensions(self) -> Mapping[str, str | None]:
        held: Mapping[str, str | None] = self.port.settings.user_extensions
        return held

    async def responsible(self, phone: str, deadline_s: float) -> Responsible | None:
        def note(exchange: Exchange, failed: str | None) -> None:
            response = {**exchange.response, "took_ms": exchange.duration_ms}
            self.journal.note(self.enterprise, self.name, "lookup", exchange.request, response, failed)

        return await self.port.responsible(phone, deadline_s, note)


@dataclass(frozen=True, slots=True)
class OwnSource:
    """What our own database knows of a number, when no CRM names anybody. `find` takes the enterprise and the number."""

    enterprise: str
    name: str
    find: Callable[[str, str], Awaitable[Responsible | None]]
    concurrency: int = OWN_AT_ONCE

    @property
    def user_extensions(self) -> Mapping[str, str | None]:
        return {}

    async def responsible(self, phone: str, deadline_s: float) -> Responsible | None:
        try:
            return await self.find(self.enterprise, phone)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            raise SourceFailed(f"database: {type(error).__name__}") from None


class LookupSources:
    """The CRMs that can look up and are switched on, in the enterprise's order; then its own records; then the calls so far."""

    def __init__(self, tenants: Tenants, crm: Crm, known: KnownCustomers, past: PastCalls, journal: Journal) -> None:
        self._tenants = tenants
        self._crm = crm
        self._known = known
        self._past = past
        self._journal = journal
        self._found: dict[str, list[Source]] = {}
        tenants.on_change(self._forget)

    def sources(self, enterprise: str) -> Sequence[Source]:
        if enterprise not in self._found:
            self._found[enterprise] = self._find(enterprise)
        return self._found[enterprise]

    def _find(self, enterprise: str) -> list[Source]:
        tenancy = self._tenants.get(enterprise)
        order = (tenancy.enterprise.smart_redirect.crm if tenancy else None) or ORDER
        found: list[Source] = []
        for name in order:
            port = self._crm.port(enterprise, name)
            if port is not None and not port.observe and isinstance(port.adapter, CanLookUp):
                found.append(CrmSource(enterprise, port, self._journal))
        return [*found, OwnSource(enterprise, RECORDS, self._named), OwnSource(enterprise, CALLS, self._past.responsible)]

    async def _named(self, enterprise: str, phone: str) -> Responsible | None:
        """The name of the enterprise's own user or company; it looks after nobody."""
        found = (await self._known.find(enterprise, [phone])).get(phone)
        return Responsible(None, None, found[0].name) if found else None

    def _forget(self, enterprises: set[str]) -> None:
        for number in enterprises:
            self._found.pop(number, None)
