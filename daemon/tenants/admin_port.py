"""How the daemon speaks with a CRM on an administrator's behalf: registration and managers. wiring/ joins it with the adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from daemon.errors import VochidError
from daemon.model.crm import CrmUser, Registered, Registration
from daemon.model.delivery import Exchange
from daemon.model.integration import IntegrationSettings


class CrmFailed(VochidError):
    """The CRM could not be asked, refused, or did not answer; with its words."""

    code = "crm_failed"


class AdminPort(Protocol):
    """One CRM connection for one operation. Reading is done in mode observe too; whatever would change something raises CrmFailed there."""

    @property
    def settings(self) -> IntegrationSettings: ...

    @property
    def account(self) -> str:
        """What names the CRM account; holds no secret."""

    @property
    def host(self) -> str:
        """Where the CRM is."""

    @property
    def registers(self) -> bool:
        """Whether this kind of CRM must be told that vochid is its telephony."""

    @property
    def extensions_in_entry(self) -> bool:
        """Whether the CRM keeps extensions in its entry about vochid, so that it takes none before there is one."""

    @property
    def said(self) -> Exchange | None:
        """The exchange that told the CRM something, else the last one; None when nothing was sent."""

    async def register(self, registration: Registration) -> Registered: ...

    async def unregister(self, registration: Registration) -> Registered: ...

    async def managers(self) -> Sequence[CrmUser]:
        """Raises CrmFailed."""

    async def set_extensions(self, extensions: Mapping[str, str], registration: Registration | None) -> None:
        """Raises CrmFailed."""


# enterprise, integration, secrets to be masked besides those of its settings. Raises NotFound.
AdminPorts = Callable[[str, str, Sequence[str]], AdminPort]
