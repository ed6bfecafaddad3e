"""The contract of an adapter. docs/adapter.md tells how it came about; tests/contract/ holds everyone to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from adapters.http import CrmHttp
from daemon.model.call import Call
from daemon.model.crm import CrmUser, Registered, Registration, Responsible
from daemon.model.delivery import Check, Delivery, Outcome, Planned, Policy
from daemon.model.integration import IntegrationSettings
from daemon.model.signal import CallChange
from daemon.model.ticket import CallNote


@dataclass(frozen=True, slots=True)
class Tenant:
    """What an adapter may know of the enterprise it speaks for."""

    number: str
    name: str
    timezone: str
    country: str
    default_codes: Mapping[str, str] = field(default_factory=dict)  # line -> extension that stands for it


class TokenStore(Protocol):
    """Credentials that renew themselves, shared by all daemons. Values are sealed at rest."""

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Held while tokens are exchanged: a refresh token works once, for one daemon."""

    async def load(self) -> Mapping[str, Any] | None:
        """The newest tokens, or None."""

    async def save(self, tokens: Mapping[str, Any]) -> None:
        """Stores new tokens; they are used only after this returned."""


class Desk(Protocol):
    """The ticket desk of one enterprise, in our own store."""

    async def take_call(self, call: Call, note: CallNote) -> int | None:
        """Writes a note about a call into the customer's open ticket or a new one, once; gives the ticket's id, None when there is none for it."""

    async def handed_over(self, attachments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Attachments as the other side gets them: {name, url, mime, size}, with links that are made now."""

    async def note_remote(self, ticket_id: int, message_id: int | None, remote_id: str) -> None:
        """How the other side calls a ticket, or a message of it."""

    async def agent_of(self, phone: str) -> str | None:
        """The extension that looks after this customer's open ticket."""


@dataclass(frozen=True, slots=True)
class Connection:
    """All that an adapter gets to speak with one CRM account: its arguments, never its finds."""

    tenant: Tenant
    settings: Any  # an instance of the adapter's own settings model
    http: CrmHttp
    tokens: TokenStore
    desk: Desk | None = None
    sync: Any = None  # our side of an adapter's two-way sync, where it has one (adapters/bitrix24/sync_room.py)


class Adapter(Protocol):
    """One kind of CRM. Stateless: one instance serves all enterprises."""

    name: ClassVar[str]
    title: ClassVar[str]
    settings: ClassVar[type[IntegrationSettings]]
    policy: ClassVar[Policy]

    def account(self, settings: Any) -> str:
        """What names the CRM account: two enterprises with the same one share its limits. Holds no secret."""

    def plan(self, change: CallChange, settings: Any, tenant: Tenant) -> Sequence[Planned]:
        """What the CRM is to be told of this change. Pure; keys are the same whenever the same change comes again."""

    async def deliver(self, connection: Connection, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Tells the CRM; one outcome for each delivery, in order. All are of one kind; more than one only where the
        policy says so. Raises nothing that an HTTP peer can cause."""

    async def reconcile(self, connection: Connection, delivery: Delivery) -> Outcome:
        """After Ambiguous: Delivered when it is there, Retry when it is surely not, Ambiguous when nobody can tell; Throttled when
        the CRM could not be asked: it is looked for again later."""

    async def check(self, connection: Connection) -> Sequence[Check]:
        """The connection test: what works, line by line. Changes nothing at the CRM."""


@runtime_checkable
class CanRefresh(Protocol):
    """An adapter whose credentials renew themselves."""

    async def refresh(self, connection: Connection) -> bool:
        """Tries to get new credentials into `connection.tokens`; False when a person must act."""


@runtime_checkable
class RenewsAhead(Protocol):
    """An adapter whose credentials end by themselves: they are renewed before that, calls or no calls."""

    def renew_at(self, tokens: Mapping[str, Any]) -> float | None:
        """From when on (Unix seconds) these tokens are to be renewed; None when they need none."""

    async def renew(self, connection: Connection, seen: Mapping[str, Any]) -> Registered:
        """Exchanges `seen` under the lock, unless somebody else did meanwhile. Not ok: a person must act, unless it `is_unclear`
        (the CRM could not be asked, try later)."""


@runtime_checkable
class CanLookUp(Protocol):
    """An adapter whose CRM knows who looks after a customer."""

    async def responsible(self, connection: Connection, phone: str) -> Responsible | None:
        """Who looks after this E.164 number; None when the CRM does not know it. Raises LookupFailed."""


@runtime_checkable
class HasManagers(Protocol):
    """An adapter whose CRM lists its people and holds their extensions. Both raise LookupFailed."""

    async def managers(self, connection: Connection) -> Sequence[CrmUser]:
        """All of them, page by page: a partial list is an error, never an answer."""

    async def set_extensions(self, connection: Connection, extensions: Mapping[str, str], registration: Registration | None) -> None:
        """Makes the CRM hold these extensions (CRM user id -> extension) and no others. `registration`: what it was told last, for a
        CRM that keeps extensions in its entry about us and wants the whole of it; None when it was told nothing yet."""


@runtime_checkable
class HasLines(Protocol):
    """An adapter whose CRM keeps a list of external lines."""

    async def lines(self, connection: Connection) -> Mapping[str, str]:
        """What the CRM calls each number that it takes for a line of vochid's. Raises LookupFailed."""


@runtime_checkable
class CanRegister(Protocol):
    """An adapter whose CRM must be told that vochid is its telephony. One with `extensions_in_entry` false sets extensions without being registered."""

    async def register(self, connection: Connection, registration: Registration) -> Registered:
        """Makes or renews the CRM's entry."""

    async def unregister(self, connection: Connection, registration: Registration) -> Registered:
        """Switches the entry off."""


@runtime_checkable
class CanConsent(Protocol):
    """An adapter to whose CRM an administrator gives us access in a browser (OAuth 2.0, authorization code)."""

    def consent_url(self, settings: Any, state: str, callback_url: str) -> str:
        """Where the administrator's browser is sent. Pure. Raises ValueError, with the reason, when settings are missing for it."""

    async def consented(self, connection: Connection, answer: Mapping[str, str], callback_url: str) -> Registered:
        """The browser came back with these parameters. That the state is right was checked; the rest is checked here: who answers, and
        for which account. Exchanges the code, and keeps the credentials in `connection.tokens` before it says ok."""


class LookupFailed(Exception):
    """The CRM could not be asked or did not answer; says why. The breaker counts it when `outage`."""

    def __init__(self, reason: str, *, outage: bool = True) -> None:
        super().__init__(reason)
        self.outage = outage
