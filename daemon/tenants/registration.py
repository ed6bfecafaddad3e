"""vochid's entry at a CRM: made, renewed, taken away.

The CRM never holds a clientId or a cabinet link that is unknown here: new ones count before it is told, and the former ones count until it is
known that it has the new ones. A crash in between leaves both.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import structlog

from daemon.errors import NotFound, VochidError
from daemon.model.crm import Registered, Registration
from daemon.security.cabinet import INTEGRATION as CABINET_OF
from daemon.security.cabinet import CabinetLinks
from daemon.security.tokens import TokenOwner
from daemon.security.vault import Vault, VaultError
from daemon.store.inbound_tokens import InboundTokens
from daemon.store.integration_state import IntegrationStates
from daemon.tenants.admin_port import AdminPort, AdminPorts, CrmFailed
from daemon.tenants.managers import Managers
from daemon.tenants.service import Tenants

AT_ONCE = 3  # each holds a connection of the database while the CRM is told: a slow CRM must not take them all
CABINET_PATH = "/retailcrm-admin/"

log = structlog.get_logger()


class Entries:
    """What CRMs are told of us. `base_url`: this daemon's address as they see it."""

    def __init__(self, tenants: Tenants, ports: AdminPorts, states: IntegrationStates, vault: Vault, base_url: str) -> None:
        self._tenants = tenants
        self._ports = ports
        self._states = states
        self._vault = vault
        self.base_url = base_url

    def make(self, enterprise: str, integration: str, client_id: str, token: str | None) -> Registration:
        """An entry with the extensions and lines of now; `token`: of the cabinet link."""
        tenancy = self._tenants.get(enterprise)
        if tenancy is None:
            raise NotFound(f"there is no enterprise {enterprise}")
        extensions = {user: code for user, code in tenancy.integrations[integration].user_extensions.items() if code}
        lines = {line.number: line.name for line in tenancy.enterprise.lines}
        query = f"?{urlencode({'enterprise_number': enterprise, 'token': token})}" if token else ""
        return Registration(self.base_url, self.base_url + CABINET_PATH + query, client_id, True, extensions, lines)

    async def remember(self, enterprise: str, integration: str, client_id: str, token: str | None) -> None:
        """Keeps what the CRM was told: an edit of the entry, of an extension too, has to repeat all of it."""
        told = json.dumps({"account": self._ports(enterprise, integration, ()).account, "client_id": client_id, "token": token})
        await self._states.set_registered(enterprise, integration, self._vault.seal(told, enterprise, f"registration.{integration}"))

    async def current(self, enterprise: str, integration: str) -> Registration | None:
        """What the CRM was told last, with the extensions and lines of now; None when it is not registered, or the account is another one by now."""
        state = await self._states.get(enterprise, integration)
        if state.registered_as is None:
            return None
        try:
            told = json.loads(self._vault.open(state.registered_as, enterprise, f"registration.{integration}"))
        except VaultError as error:
            log.warning("registration cannot be read: register again", enterprise=enterprise, integration=integration, error=str(error))
            return None
        if told["account"] != self._ports(enterprise, integration, ()).account:
            return None
        return self.make(enterprise, integration, told["client_id"], told["token"])


class Registrations:
    """`is_lab(host)`: whether VOCHID_EGRESS_ALLOW covers a CRM's address."""

    def __init__(
        self, tenants: Tenants, ports: AdminPorts, states: IntegrationStates, inbound: InboundTokens, cabinet: CabinetLinks, entries: Entries,
        managers: Managers, is_lab: Callable[[str], Awaitable[bool]],
    ) -> None:  # fmt: skip
        self._tenants = tenants
        self._ports = ports
        self._states = states
        self._inbound = inbound
        self._cabinet = cabinet
        self._entries = entries
        self._managers = managers
        self._is_lab = is_lab
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def register(self, enterprise: str, integration: str) -> Registered:
        """Makes or renews the entry, with a new clientId and a new cabinet link. Raises NotFound, and VochidError while another one is under way."""
        self._must_register(enterprise, integration)
        async with self._alone(enterprise, integration):
            refusal = await self._refusal(enterprise, integration)
            if refusal is not None:
                await self._states.log(enterprise, integration, "register_module", None, refusal)
                return Registered(False, refusal)
            client_id, owner = secrets.token_hex(16), TokenOwner(enterprise, integration, "client_id")
            await self._inbound.add(owner, client_id)
            token = await self._cabinet.issue_beside(enterprise) if integration == CABINET_OF else None
            port = self._ports(enterprise, integration, (client_id, token or ""))
            done = await port.register(self._entries.make(enterprise, integration, client_id, token))
            if done.ok:
                await self._entries.remember(enterprise, integration, client_id, token)
                await self._inbound.replace(owner, client_id)
                if token is not None:
                    await self._cabinet.keep_only(enterprise, token)
            elif not done.is_unclear:
                await self._inbound.drop(owner, client_id)
                if token is not None:
                    await self._cabinet.withdraw(enterprise, token)
            await self._log(enterprise, integration, "register_module", port, done)
        return done

    async def unregister(self, enterprise: str, integration: str) -> Registered:
        """Switches the entry off. Whatever the CRM says, clientId and cabinet link open nothing any more; it is not told valid ones either."""
        self._must_register(enterprise, integration)
        async with self._alone(enterprise, integration):
            port = self._ports(enterprise, integration, ())
            done = await port.unregister(self._entries.make(enterprise, integration, secrets.token_hex(16), None))
            await self._inbound.replace(TokenOwner(enterprise, integration, "client_id"), None)
            if integration == CABINET_OF:
                await self._cabinet.revoke(enterprise)
            await self._states.set_registered(enterprise, integration, None)
            await self._log(enterprise, integration, "unregister_module", port, done)
        return done

    async def remove(self, enterprise: str, integration: str) -> Registered:
        """Takes an integration away, here in any case, at the CRM if it was registered there. Raises NotFound."""
        done = Registered(True)
        if (await self._states.get(enterprise, integration)).registered_at is not None:
            try:
                done = await self.unregister(enterprise, integration)
            except NotFound as error:  # its settings cannot be read: they go all the same
                done = Registered(False, str(error))
        await self._tenants.remove_integration(enterprise, integration)
        return done

    # -- inside ------------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _alone(self, enterprise: str, integration: str) -> AsyncIterator[None]:
        async with self._slots, self._states.alone(enterprise, integration):
            yield

    def _must_register(self, enterprise: str, integration: str) -> None:
        if not self._ports(enterprise, integration, ()).registers:
            raise VochidError(f"{integration} needs no registration", code="bad_parameter")

    async def _refusal(self, enterprise: str, integration: str) -> str | None:
        """Why the CRM is not told, or None."""
        port, base_url = self._ports(enterprise, integration, ()), self._entries.base_url
        if not port.settings.enabled:
            return f"{integration} is switched off: enable it first"
        if not base_url.startswith("https://") and not await self._is_lab(port.host):
            return f"{integration} must be given an https address, and VOCHID_PUBLIC_URL is {base_url}: set it and restart"
        if (await self._states.get(enterprise, integration)).last_sync_at is None:
            try:  # the entry to be replaced may hold extensions that were set there: they are taken over first
                await self._managers.fetch(enterprise, integration)
            except CrmFailed as error:
                return str(error)
        return None

    async def _log(self, enterprise: str, integration: str, event_type: str, port: AdminPort, done: Registered) -> None:
        await self._states.log(enterprise, integration, event_type, port.said, None if done.ok else done.detail or "refused")
