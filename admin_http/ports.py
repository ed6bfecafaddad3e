"""What pages ask of rooms that the web does not know: managers, registrations, cabinet links, and who would get a call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from admin_http.tries import Tries
from daemon.asterisk.snippets import Snippet
from daemon.model.crm import Registered
from daemon.model.delivery import Check
from daemon.model.integration import IntegrationSettings
from daemon.store.audit import Actor
from daemon.tenants.document import Enterprise, Pbx


class ManagerRow(Protocol):
    """A manager of a CRM. `extension`: what counts here; `remote_extension`: what the CRM holds."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def active(self) -> bool: ...
    @property
    def extension(self) -> str | None: ...
    @property
    def remote_extension(self) -> str | None: ...


class ManagerRows(Protocol):
    """The answer of a CRM. `alarms`: what is odd about the mapping, each with `kind` (user_gone, no_extension, unmapped, unknown_phone),
    `name`, `extension`, `calls`, and a text under `detail`."""

    @property
    def items(self) -> Sequence[ManagerRow]: ...
    @property
    def alarms(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def mend_error(self) -> str | None: ...


class Saved(Protocol):
    """`warning`: the CRM could not be told yet."""

    @property
    def extensions(self) -> Mapping[str, str | None]: ...
    @property
    def warning(self) -> str | None: ...


class ManagersPort(Protocol):
    """Managers and their extensions. Raises VochidError when the CRM cannot be asked."""

    async def fetch(self, enterprise: str, integration: str) -> ManagerRows: ...

    async def save(self, enterprise: str, integration: str, sent: Any) -> Saved: ...


class RegistrationsPort(Protocol):
    """vochid's entry at a CRM. `remove` takes the integration away here as well."""

    async def register(self, enterprise: str, integration: str) -> Registered: ...

    async def remove(self, enterprise: str, integration: str) -> Registered: ...


class Begun(Protocol):
    """Where the browser goes, and the cookie that goes with it."""

    @property
    def url(self) -> str: ...
    @property
    def browser(self) -> str: ...


class Consented(Protocol):
    """Whose connection it was about, and how it went."""

    @property
    def enterprise(self) -> str: ...
    @property
    def told(self) -> Registered: ...


class ConsentPort(Protocol):
    """The way to a CRM's consent page and back."""

    def callback_url(self, integration: str) -> str:
        """Where the CRM sends the browser back to."""

    async def begin(self, enterprise: str, integration: str, actor: Actor) -> Begun:
        """Raises VochidError when settings are missing for it."""

    async def address(self, enterprise: str, integration: str, actor: Actor) -> str:
        """Where the CRM itself brings the credentials to, once."""

    async def finish(self, integration: str, state: str, browser: str | None, answer: Mapping[str, str]) -> Consented:
        """Raises VochidError (bad_state); safe with anything a stranger sends."""


class CredentialState(Protocol):
    """Credentials that renew themselves. `refused`: why somebody must connect again; `expires_at`: ISO 8601, of the ones in use;
    `renews_ahead`: before that, else by the first request afterwards."""

    @property
    def is_connected(self) -> bool: ...
    @property
    def account(self) -> str: ...
    @property
    def expires_at(self) -> str | None: ...
    @property
    def refused(self) -> str: ...
    @property
    def renews_ahead(self) -> bool: ...


class CabinetPort(Protocol):
    """The tokens of cabinet links."""

    async def find(self, token: str) -> str | None:
        """The enterprise whose page it opens; None for anything else. Safe with anything a stranger sends."""


class Decision(Protocol):
    """Who gets a call, and why. `status`: a word of contract section 7."""

    @property
    def status(self) -> str: ...
    @property
    def extension(self) -> str | None: ...
    @property
    def name(self) -> str: ...
    @property
    def reason(self) -> str: ...


class RedirectPort(Protocol):
    """Smart redirect, asked without a call: nothing is redirected."""

    async def __call__(self, enterprise: str, phone: str, channel: str | None, /) -> Decision: ...


class AmoCrmPort(Protocol):
    """amoCRM's own ways in. Settings are the adapter's."""

    def accounts(self, host: str, client_id: str | None) -> Sequence[tuple[str, Any]]:
        """The enterprises that are connected with the account of this host, with their settings."""

    def of_integration(self, client_id: str) -> Sequence[tuple[str, Any]]:
        """The enterprises that use this integration of an account."""

    def is_account(self, origin: str) -> bool: ...

    def audience(self, settings: Any) -> str: ...

    async def account_id(self, enterprise: str, settings: Any) -> str | None: ...

    def changed(self, enterprise: str, phones: Sequence[str] | None) -> None:
        """None: any of the account's customers may have changed."""

    async def switched_off(self, enterprise: str) -> bool:
        """The account said so: looks whether it refuses the access, and marks it then."""

    async def order(self, enterprise: str, order: Mapping[str, Any]) -> dict[str, Any]: ...


class SyncJobView(Protocol):
    """A long sync, as far as it is."""

    def shown(self) -> dict[str, Any]: ...


class SyncPages(Protocol):
    """Rows by page, from 1 on; and how many there are."""

    async def page(self, enterprise: str, *, page: int, limit: int) -> tuple[list[dict[str, Any]], int]: ...

    async def stats(self, enterprise: str) -> dict[str, Any]: ...


class SyncJobsPort(Protocol):
    async def last(self, enterprise: str) -> SyncJobView | None: ...

    async def recent(self, enterprise: str, limit: int) -> Sequence[SyncJobView]: ...


class SyncPort(Protocol):
    """Bitrix24's two-way sync."""

    @property
    def mappings(self) -> SyncPages: ...
    @property
    def errors(self) -> SyncPages: ...
    @property
    def jobs(self) -> SyncJobsPort: ...

    async def heard(self, enterprise: str, entity_type: str, entity_id: int) -> bool:
        """An entity changed at the portal. False: the sync is off."""

    async def start(self, enterprise: str, direction: str, filters: Mapping[str, Any]) -> str:
        """Gives the job's id. Raises VochidError (wrong_state)."""

    async def job(self, enterprise: str, job: str) -> SyncJobView:
        """Raises NotFound."""

    async def retry(self, enterprise: str, error_id: int) -> None:
        """Raises NotFound."""

    async def stats(self, enterprise: str) -> dict[str, Any]: ...

    async def waiting(self, enterprise: str) -> dict[str, int]: ...


@dataclass(frozen=True, slots=True)
class Joined:
    """Filled by daemon/app.py. A part that is None has no place on the pages; `registering`: the CRMs that vochid registers itself at;
    `consenting`: those that an administrator connects at the CRM's consent page."""

    kinds: Mapping[str, type[IntegrationSettings]]
    check_pbx: Callable[[Pbx], AsyncIterator[Check]]
    cabinet: CabinetPort | None = None
    managers: ManagersPort | None = None
    registrations: RegistrationsPort | None = None
    redirect: RedirectPort | None = None
    consent: ConsentPort | None = None
    credentials: Callable[[str, str], Awaitable[CredentialState | None]] | None = None
    amocrm: AmoCrmPort | None = None
    bitrix24_sync: SyncPort | None = None
    with_managers: tuple[str, ...] = ()
    lines: Callable[[str, str], Awaitable[Mapping[str, str]]] | None = None  # what a CRM calls each of our lines that it knows; raises VochidError
    with_lines: tuple[str, ...] = ()
    registering: tuple[str, ...] = ()
    snippets: Callable[[Enterprise, Pbx], Sequence[Snippet]] | None = None
    probes: Tries = field(default_factory=Tries)
    consenting: tuple[str, ...] = ()
