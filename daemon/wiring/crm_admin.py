"""Adapters for administrators: registration and managers, joined with tenants, tokens and the log."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from adapters.base import Adapter, CanRegister, Connection, HasLines, HasManagers, LookupFailed
from adapters.http import Observed
from daemon.errors import NotFound
from daemon.model.crm import CrmUser, Registered, Registration
from daemon.model.delivery import Exchange
from daemon.model.integration import IntegrationSettings
from daemon.security.cabinet import CabinetLinks
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.inbound_tokens import InboundTokens
from daemon.store.integration_state import IntegrationStates
from daemon.store.pool import Database
from daemon.tenants.admin_port import CrmFailed
from daemon.tenants.managers import Managers
from daemon.tenants.registration import Entries, Registrations
from daemon.tenants.service import Tenants
from daemon.wiring.crm import Crm

READ_DEADLINE_S = 30.0  # users come page by page, at the account's rate
WRITE_DEADLINE_S = 15.0
RESOLVE_DEADLINE_S = 3.0
OBSERVING = "nothing is sent in mode observe"


@dataclass(slots=True)
class CrmAdminPort:
    """One connection for one operation; `connect(deadline_s)` opens it."""

    adapter: Adapter
    settings: IntegrationSettings
    connect: Callable[[float], Connection]
    _connection: Connection | None = None

    @property
    def account(self) -> str:
        return self.adapter.account(self.settings)

    @property
    def host(self) -> str:
        return urlsplit(self.account).hostname or self.account

    @property
    def registers(self) -> bool:
        return isinstance(self.adapter, CanRegister)

    @property
    def extensions_in_entry(self) -> bool:
        return self.registers and getattr(self.adapter, "extensions_in_entry", True)

    @property
    def said(self) -> Exchange | None:
        exchanges = self._connection.http.exchanges if self._connection else []
        told = [exchange for exchange in exchanges if exchange.request.get("method") != "GET"] or exchanges
        return told[-1] if told else None

    async def register(self, registration: Registration) -> Registered:
        assert isinstance(self.adapter, CanRegister)
        try:
            return await self.adapter.register(self._open(WRITE_DEADLINE_S), registration)
        except Observed:
            return Registered(False, OBSERVING)

    async def unregister(self, registration: Registration) -> Registered:
        assert isinstance(self.adapter, CanRegister)
        try:
            return await self.adapter.unregister(self._open(WRITE_DEADLINE_S), registration)
        except Observed:
            return Registered(False, OBSERVING)

    async def managers(self) -> Sequence[CrmUser]:
        connection = self._open(READ_DEADLINE_S)
        connection.http.observe = False  # reading changes nothing
        try:
            return await self._lister().managers(connection)
        except LookupFailed as error:
            raise CrmFailed(f"{self.adapter.title} did not list its managers: {error}") from None

    async def lines(self) -> Mapping[str, str]:
        """What the CRM calls each of our lines that it knows. Raises CrmFailed."""
        if not isinstance(self.adapter, HasLines):
            raise NotFound(f"{self.adapter.name} lists no lines")
        connection = self._open(READ_DEADLINE_S)
        connection.http.observe = False  # reading changes nothing
        try:
            return await self.adapter.lines(connection)
        except LookupFailed as error:
            raise CrmFailed(f"{self.adapter.title} did not list its lines: {error}") from None

    async def set_extensions(self, extensions: Mapping[str, str], registration: Registration | None) -> None:
        try:
            await self._lister().set_extensions(self._open(WRITE_DEADLINE_S), extensions, registration)
        except LookupFailed as error:
            raise CrmFailed(f"{self.adapter.title} did not take the extensions: {error}") from None
        except Observed:
            raise CrmFailed(OBSERVING) from None

    def _lister(self) -> HasManagers:
        if not isinstance(self.adapter, HasManagers):
            raise NotFound(f"{self.adapter.name} lists no managers")
        return self.adapter

    def _open(self, deadline_s: float) -> Connection:
        self._connection = self.connect(deadline_s)
        return self._connection


@dataclass(frozen=True, slots=True)
class CrmAdmin:
    """What an administrator does with CRMs."""

    registrations: Registrations
    managers: Managers
    states: IntegrationStates
    lines: Callable[[str, str], Awaitable[Mapping[str, str]]]


def crm_admin(tenants: Tenants, crm: Crm, db: Database, vault: Vault, egress: EgressPolicy, base_url: str) -> CrmAdmin:
    """The services behind the routes and pages of integrations."""
    states, inbound = IntegrationStates(db), InboundTokens(db, vault)

    def port(enterprise: str, integration: str, secrets: Sequence[str]) -> CrmAdminPort:
        adapter, settings, connect = crm.reach(enterprise, integration, secrets)
        return CrmAdminPort(adapter, settings, connect)

    async def lines(enterprise: str, integration: str) -> Mapping[str, str]:
        return await port(enterprise, integration, ()).lines()

    async def is_lab(host: str) -> bool:
        return await _is_covered(egress, host)

    entries = Entries(tenants, port, states, vault, base_url)
    managers = Managers(tenants, port, states, entries.current)
    registrations = Registrations(tenants, port, states, inbound, CabinetLinks(vault, inbound, time.time), entries, managers, is_lab)
    return CrmAdmin(registrations, managers, states, lines)


async def _is_covered(egress: EgressPolicy, host: str) -> bool:
    """Whether every address of this host is one that the operator allows besides public ones."""
    try:
        async with asyncio.timeout(RESOLVE_DEADLINE_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return False
    return bool(found) and all(egress.covers(ip_address(str(address[0]).partition("%")[0])) for *_, address in found)
