"""Credentials that end by themselves are renewed before they do, whether anything is delivered or not.

Every daemon looks; the exchange is one daemon's, under the connection's lock. What a person must mend becomes the connection's state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import structlog

from adapters.base import CanConsent, Connection, RenewsAhead
from daemon.delivery.dispatcher import Dispatcher
from daemon.delivery.outbox import Outbox
from daemon.errors import NotFound
from daemon.model.call import iso
from daemon.tenants.service import Tenants
from daemon.wiring.crm import Crm

LOOK_EVERY_S = 60.0
RENEW_DEADLINE_S = 10.0
NEEDS_REAUTH, OK = "needs_reauth", "ok"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TokenState:
    """What people see of a connection's credentials. `refused`: why somebody must connect again; `renews_ahead`: new ones are fetched before
    `expires_at`, else by the first request after it."""

    is_connected: bool
    account: str = ""
    expires_at: str | None = None
    refused: str = ""
    renews_ahead: bool = True


class TokenKeeper:
    """`now` gives Unix seconds."""

    def __init__(self, tenants: Tenants, crm: Crm, outbox: Outbox, dispatcher: Dispatcher, now: Callable[[], float] = time.time) -> None:
        self._tenants = tenants
        self._crm = crm
        self._outbox = outbox
        self._dispatcher = dispatcher
        self._now = now
        self._seen: dict[tuple[str, str], str] = {}

    async def run(self) -> None:
        """Looks at all connections, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """One round; what goes wrong with one connection does not keep the others waiting for another one."""
        for number, tenancy in list(self._tenants.all().items()):
            for name in tenancy.integrations:
                try:
                    adapter, _, connect = self._crm.reach(number, name)
                    if isinstance(adapter, RenewsAhead):
                        await self._keep(number, name, adapter, connect)
                except NotFound:
                    continue  # taken away meanwhile
                except Exception:
                    log.error("credentials could not be looked after", enterprise=number, integration=name, exc_info=True)

    async def state(self, enterprise: str, integration: str) -> TokenState | None:
        """For the integration's card; None where credentials do not end by themselves."""
        adapter, settings, _ = self._crm.reach(enterprise, integration)
        if not isinstance(adapter, CanConsent):
            return None
        tokens, ahead = await self._crm.tokens(enterprise, integration).load(), isinstance(adapter, RenewsAhead)
        if tokens is None:
            return TokenState(False, renews_ahead=ahead)
        stored = (await self._outbox.connection_states(enterprise)).get(integration, {})
        refused = str(tokens.get("refused") or (stored.get("reason") if stored.get("state") == NEEDS_REAUTH else "") or "")
        account = str(tokens["domain"] if "domain" in tokens else urlsplit(adapter.account(settings)).netloc)
        return TokenState(not refused, account, iso(_end_of(tokens)), refused, ahead)

    async def _keep(self, enterprise: str, integration: str, adapter: RenewsAhead, connect: Callable[[float], Connection]) -> None:
        tokens = await self._crm.tokens(enterprise, integration).load()
        if tokens is None:
            return
        refused = str(tokens.get("refused") or "")
        due = adapter.renew_at(tokens)
        if due is not None and self._now() >= due:
            done = await adapter.renew(connect(RENEW_DEADLINE_S), tokens)
            log.info("credentials renewed" if done.ok else "credentials not renewed", enterprise=enterprise, integration=integration, detail=done.detail)
            if not done.ok and done.is_unclear:
                return
            refused = "" if done.ok else done.detail
        await self._note(enterprise, integration, tokens, refused)

    async def _note(self, enterprise: str, integration: str, tokens: Any, refused: str) -> None:
        """The connection's state follows its credentials; lanes that wait here go on when somebody else brought new ones."""
        is_frozen = (view := self._dispatcher.health(enterprise).get(integration)) is not None and view.needs_reauth
        key, access = (enterprise, integration), str(tokens["access_token"])
        is_new = self._seen.get(key, access) != access
        self._seen[key] = access
        stored = (await self._outbox.connection_states(enterprise)).get(integration, {}).get("state", OK)
        if refused and stored != NEEDS_REAUTH:
            log.error("a person must connect the CRM again", enterprise=enterprise, integration=integration, reason=refused)
            self._dispatcher.note_state(enterprise, integration, NEEDS_REAUTH, refused)
        elif not refused and is_frozen and is_new:
            self._dispatcher.settings_changed({enterprise})
        elif not refused and not is_frozen and stored == NEEDS_REAUTH:
            self._dispatcher.note_state(enterprise, integration, OK, "connected again")


def _end_of(tokens: Mapping[str, Any]) -> float | None:
    """Until when an access token is good: as its adapter says, or so many seconds after it was stored."""
    if tokens.get("expires_at"):
        return float(tokens["expires_at"])
    lives = str(tokens.get("expires_in") or "")
    return float(tokens["saved_at"]) + int(lives) if lives.isascii() and lives.isdigit() and len(lives) < 10 and "saved_at" in tokens else None
