"""Managers of a CRM and their extensions: fetched, given, kept the same on both sides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import structlog

from daemon.errors import NotFound
from daemon.model.crm import CrmUser, Registration
from daemon.store.integration_state import IntegrationStates
from daemon.tenants import mapping
from daemon.tenants.admin_port import AdminPorts, CrmFailed
from daemon.tenants.mapping import Difference, Mapped
from daemon.tenants.service import PreconditionFailed, Tenants

ANSWERED_WITHIN_DAYS = 30
CHANGE_TRIES = 5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Manager:
    """`extension`: what counts; `remote_extension`: what the CRM held when it was asked."""

    id: str
    name: str
    active: bool
    extension: str | None
    remote_extension: str | None


@dataclass(frozen=True, slots=True)
class ManagerList:
    """`differences`: what the CRM held otherwise; mended at once unless `mend_error` says why not. `alarms`: see daemon/tenants/mapping.py."""

    items: Sequence[Manager]
    alarms: Sequence[Mapping[str, Any]]
    imported: int
    differences: Sequence[Difference]
    mend_error: str | None
    last_sync: datetime | None


@dataclass(frozen=True, slots=True)
class SavedExtensions:
    """The whole mapping after a change; `warning`: the CRM could not be told yet."""

    extensions: Mapping[str, str | None]
    warning: str | None

    @property
    def assignments(self) -> list[dict[str, str]]:
        """Who holds what, as RetailCRM writes it."""
        return [{"userId": user, "code": code} for user, code in self.extensions.items() if code]


class Managers:
    """`registered` gives what the CRM was told last (daemon/tenants/registration.py)."""

    def __init__(
        self, tenants: Tenants, ports: AdminPorts, states: IntegrationStates, registered: Callable[[str, str], Awaitable[Registration | None]]
    ) -> None:
        self._tenants = tenants
        self._ports = ports
        self._states = states
        self._registered = registered

    def extensions(self, enterprise: str, integration: str) -> Mapping[str, str | None]:
        """The mapping as it is set here. Raises NotFound."""
        return self._ports(enterprise, integration, ()).settings.user_extensions

    async def fetch(self, enterprise: str, integration: str, *, forget_gone: bool = False) -> ManagerList:
        """Asks the CRM. The first time its extensions are taken over where nothing is set here; later ours win, and what differs is mended.
        forget_gone: whoever the CRM lists no more loses the extension. Raises NotFound, CrmFailed."""
        port = self._ports(enterprise, integration, ())
        try:
            users = list(await port.managers())
        except CrmFailed as error:
            await self._states.log(enterprise, integration, "managers", port.said, str(error))
            raise
        state, before = await self._states.get(enterprise, integration), self.extensions(enterprise, integration)

        def change(now: Mapping[str, str | None]) -> Mapped:
            after = mapping.adopt(now, users) if state.last_sync_at is None else dict(now)
            leaving = mapping.gone(after, users) if forget_gone else ()
            return {user: extension for user, extension in after.items() if user not in leaving}

        after = await self._change(enterprise, integration, change)
        imported, forgotten = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
        if imported or forgotten:
            await self._states.log(enterprise, integration, "extensions", None, None, imported={u: after[u] for u in imported}, forgotten=forgotten)
        found = mapping.differences(after, users)
        mend_error = await self._mend(enterprise, integration, after, found) if found else None
        gone = mapping.gone(after, users)
        names = {**{user: name for user, name in state.users.items() if user in gone}, **{user.id: user.name for user in users}}
        await self._states.set_synced(enterprise, integration, names)
        alarms = mapping.alarms(
            after, users, names, await self._states.answering_extensions(enterprise, ANSWERED_WITHIN_DAYS), self._phones(enterprise)
        )  # fmt: skip
        synced = (await self._states.get(enterprise, integration)).last_sync_at
        return ManagerList([_manager(user, after) for user in users], alarms, len(imported), found, mend_error, synced)

    async def save(self, enterprise: str, integration: str, sent: Any) -> SavedExtensions:
        """Gives extensions to managers: {user id: extension or null}; others keep theirs, unless theirs is the one that is given.
        Raises VochidError (bad_parameter), NotFound. What the CRM cannot be told now is mended when it is asked next."""
        changes = mapping.parse_changes(sent)
        self.extensions(enterprise, integration)
        after = await self._change(enterprise, integration, lambda now: mapping.assign(now, changes))
        return SavedExtensions(after, await self._tell(enterprise, integration, after, {"saved": changes}))

    # -- inside ------------------------------------------------------------------------------------------------------------

    async def _mend(self, enterprise: str, integration: str, after: Mapped, found: Sequence[Difference]) -> str | None:
        if self._ports(enterprise, integration, ()).extensions_in_entry and await self._registered(enterprise, integration) is None:
            return f"{integration} is not registered: extensions go along with the registration"
        log.warning("extensions differ at the CRM, ours are set there", enterprise=enterprise, integration=integration, differences=len(found))
        return await self._tell(enterprise, integration, after, {"differences": [asdict(item) for item in found[:100]]})

    async def _tell(self, enterprise: str, integration: str, after: Mapped, why: dict[str, Any]) -> str | None:
        """Sets the CRM's extensions; gives what went wrong, or None."""
        registration = await self._registered(enterprise, integration)
        secrets = (registration.client_id, registration.cabinet_url.rpartition("token=")[2]) if registration else ()
        port = self._ports(enterprise, integration, secrets)
        error: str | None = None
        try:
            await port.set_extensions({user: code for user, code in after.items() if code}, registration)
        except CrmFailed as failed:
            error = str(failed)
        if port.said is not None or error is not None:
            await self._states.log(enterprise, integration, "extensions", port.said, error, **why)
        return error

    async def _change(self, enterprise: str, integration: str, change: Callable[[Mapping[str, str | None]], Mapped]) -> Mapped:
        """Stores a changed mapping; whoever changes the document at the same time is not overwritten."""
        for _ in range(CHANGE_TRIES):
            document, etag = await self._tenants.document(enterprise, sealed=True)
            settings = document["integrations"].get(integration)
            if settings is None:
                raise NotFound(f"enterprise {enterprise} has no integration {integration}")
            now = settings.get("user_extensions") or {}
            after = change(now)
            if after == now:
                return after
            try:
                await self._tenants.put_integration(enterprise, integration, {**settings, "user_extensions": after}, etag)
            except PreconditionFailed:
                continue
            return after
        raise PreconditionFailed("the settings are being changed by somebody else: try again")

    def _phones(self, enterprise: str) -> list[str]:
        tenancy = self._tenants.get(enterprise)
        return [phone.number for phone in tenancy.enterprise.internal_phones] if tenancy else []


def _manager(user: CrmUser, extensions: Mapping[str, str | None]) -> Manager:
    return Manager(user.id, user.name, user.active, extensions.get(user.id), user.extension)
