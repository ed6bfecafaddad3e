"""The way to a CRM's consent page and back: adapters joined with states, settings and the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adapters.base import CanConsent
from daemon.errors import NotFound, VochidError
from daemon.model.crm import Registered
from daemon.store.audit import Actor, AuditLog
from daemon.store.consents import Consents
from daemon.store.inbound_tokens import InboundTokens, TokenOwner
from daemon.store.integration_state import IntegrationStates
from daemon.wiring.crm import Crm

EXCHANGE_DEADLINE_S = 20.0
INSTALLED = "installed"  # the purpose of what a CRM said that it will prove itself with


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the browser goes, and the cookie that goes with it."""

    url: str
    browser: str


@dataclass(frozen=True, slots=True)
class Consented:
    """Whose connection it was about, and how it went."""

    enterprise: str
    told: Registered


class Consenting:
    """`base_url`: this daemon's public address; `cured`: told of an enterprise whose connection has new credentials."""

    def __init__(
        self,
        crm: Crm,
        consents: Consents,
        states: IntegrationStates,
        audit: AuditLog,
        base_url: str,
        cured: Callable[[str], None],
        inbound: InboundTokens | None = None,
    ) -> None:
        self._crm = crm
        self._consents = consents
        self._states = states
        self._audit = audit
        self._base_url = base_url
        self._cured = cured
        self._inbound = inbound

    def callback_url(self, integration: str) -> str:
        """Where the CRM sends the browser back to; the address that its settings must name too."""
        return f"{self._base_url}/{integration}/callback"

    async def begin(self, enterprise: str, integration: str, actor: Actor) -> Begun:
        """Sends an administrator on the way. Raises NotFound for an integration that is not set up, VochidError for settings that do not suffice."""
        adapter, settings, _ = self._crm.reach(enterprise, integration)
        if not isinstance(adapter, CanConsent):
            raise NotFound(f"{integration} is not connected by consent")
        sent = await self._consents.begin(enterprise, integration, actor)
        assert sent.browser is not None
        try:
            return Begun(adapter.consent_url(settings, sent.state, self.callback_url(integration)), sent.browser)
        except ValueError as error:
            raise VochidError(str(error), code="wrong_state") from None

    async def address(self, enterprise: str, integration: str, actor: Actor) -> str:
        """Where the CRM itself brings the credentials to, once, within ten minutes: for the CRM's card of the application. Raises NotFound."""
        adapter, _, _ = self._crm.reach(enterprise, integration)
        if not isinstance(adapter, CanConsent):
            raise NotFound(f"{integration} is not connected by consent")
        sent = await self._consents.begin(enterprise, integration, actor, with_browser=False)
        return f"{self._base_url}/{integration}/install?state={sent.state}"

    async def finish(self, integration: str, state: str, browser: str | None, answer: Mapping[str, str]) -> Consented:
        """The browser is back. Raises VochidError (bad_state) for a state that is not this browser's, or was used; nothing is exchanged then."""
        returned = await self._consents.take(integration, state, browser)
        if returned is None:
            raise VochidError("this way to the CRM is unknown, was used, or has expired: begin again from the integration's card", code="bad_state")
        enterprise = returned.enterprise
        adapter, _, connect = self._crm.reach(enterprise, integration, [state, *(answer[name] for name in ("code",) if answer.get(name))])
        assert isinstance(adapter, CanConsent)
        connection = connect(EXCHANGE_DEADLINE_S)
        connection.http.observe = False  # a connection that only observes needs its credentials too
        told = await adapter.consented(connection, answer, self.callback_url(integration))
        said = connection.http.exchanges[-1] if connection.http.exchanges else None
        await self._states.log(enterprise, integration, "consent", said, None if told.ok else told.detail)
        await self._audit.note(Actor(returned.actor, returned.role), "consent at the CRM", integration, enterprise=enterprise, details={"ok": told.ok})
        if told.ok and told.proof and self._inbound is not None:
            await self._inbound.replace(TokenOwner(enterprise, integration, INSTALLED), told.proof)
        if told.ok:
            self._cured(enterprise)
        return Consented(enterprise, told)
