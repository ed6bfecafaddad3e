"""amoCRM's own ways in, joined with tenants, lookup and the outbox: a widget's clicks, changes of the account, orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from adapters.amocrm.config import AmoCrmSettings
from adapters.amocrm.oauth import claims_of
from adapters.amocrm.orders import plan_order
from daemon.delivery.outbox import tell_of
from daemon.errors import NotFound, VochidError
from daemon.model.delivery import Record
from daemon.model.phone import to_e164
from daemon.store.amocrm_tokens import INTEGRATION
from daemon.store.pool import Database
from daemon.tenants.service import Tenants
from daemon.wiring.crm import Crm
from daemon.wiring.elsewhere import Everywhere


class AmoCrmDoors:
    """`wake` tells the dispatcher that something was committed."""

    def __init__(self, db: Database, tenants: Tenants, crm: Crm, everywhere: Everywhere, wake: Callable[[str, str], None], base_url: str) -> None:
        self._db = db
        self._tenants = tenants
        self._crm = crm
        self._everywhere = everywhere
        self._wake = wake
        self._base_url = base_url

    def accounts(self, host: str, client_id: str | None) -> Sequence[tuple[str, AmoCrmSettings]]:
        """The enterprises whose amoCRM is this account, and is switched on."""
        return [(number, settings) for number, settings in self._enabled() if settings.host == host and client_id in (None, settings.client_id)]

    def of_integration(self, client_id: str) -> Sequence[tuple[str, AmoCrmSettings]]:
        """The enterprises that use this integration, and have it switched on."""
        return [(number, settings) for number, settings in self._enabled() if client_id and settings.client_id == client_id]

    def is_account(self, origin: str) -> bool:
        """Whether a page of this origin is an account's here."""
        return any(settings.base_url.lower() == origin.rstrip("/").lower() for _, settings in self._enabled())

    def _enabled(self) -> Iterator[tuple[str, AmoCrmSettings]]:
        for number, tenancy in self._tenants.all().items():
            settings = tenancy.integrations.get(INTEGRATION)
            if isinstance(settings, AmoCrmSettings) and settings.enabled and not tenancy.enterprise.paused:
                yield number, settings

    def audience(self, settings: AmoCrmSettings) -> str:
        """What a widget's token is made out to: where the integration's redirect address leads."""
        return settings.redirect_uri or self._base_url

    async def account_id(self, enterprise: str, settings: AmoCrmSettings) -> str | None:
        """The account's number, as its own tokens name it; None while there are none."""
        if settings.long_lived_token is not None:
            found = claims_of(settings.long_lived_token.get_secret_value()).get("account_id")
        else:
            tokens = await self._crm.tokens(enterprise, INTEGRATION).load()
            found = (tokens or {}).get("raw", {}).get("account_id")
        return str(found) if found is not None else None

    def changed(self, enterprise: str, phones: Sequence[str] | None) -> None:
        """Somebody changed customers: what is remembered of these numbers, or of all of them, is asked anew."""
        tenancy = self._tenants.get(enterprise)
        if tenancy is None:
            return
        numbers = None if phones is None else [number for phone in phones if (number := to_e164(phone, tenancy.enterprise.country))]
        self._everywhere.forget(enterprise, INTEGRATION, numbers)

    async def switched_off(self, enterprise: str) -> bool:
        """The account says that the integration was switched off there: it is looked at, and when it does refuse the access, somebody has to
        connect it again. Gives whether that is so."""
        checks = await self._crm.check(enterprise, INTEGRATION, None)
        if all(check.ok for check in checks) or not any(check.name == "credentials" and not check.ok for check in checks):
            return False
        store = self._crm.tokens(enterprise, INTEGRATION)
        async with store.lock():
            tokens = await store.load()
            if tokens is not None and not tokens.get("refused"):
                await store.save({**tokens, "refused": "the integration was switched off in the account: connect again"})
        return True

    async def order(self, enterprise: str, order: Mapping[str, Any]) -> dict[str, Any]:
        """Puts an order into the outbox, once for its number; gives how far it is: its steps for as long as deliveries are kept, none
        later. Raises NotFound, VochidError (wrong_state)."""
        tenancy = self._tenants.get(enterprise)
        settings = tenancy.integrations.get(INTEGRATION) if tenancy else None
        if settings is None:
            raise NotFound(f"enterprise {enterprise} has no integration {INTEGRATION}")
        if not settings.enabled:
            raise VochidError("amoCRM is switched off for this enterprise", code="wrong_state")
        record = Record("order", str(order["number"]))
        async with self._db.tenant(enterprise) as connection:
            is_new = await connection.fetchval(
                "insert into amocrm_orders (enterprise_number, number, sent) values ($1, $2, $3) on conflict do nothing returning true",
                enterprise, order["number"], dict(order),
            )  # fmt: skip
            if is_new:
                await tell_of(connection, enterprise, INTEGRATION, record, plan_order(order))
            elif await connection.fetchval("select sent from amocrm_orders where number = $1", order["number"]) != dict(order):
                raise VochidError(f"order {order['number']} was sent before, with other contents", code="wrong_state", field="number")
            steps = await connection.fetch(
                """select payload ->> 'step' as step, state, last_error from deliveries
                     where enterprise_number = $1 and record = $2 and integration = $3 order by id""",
                enterprise, str(record), INTEGRATION,
            )  # fmt: skip
            memory = await connection.fetchval("select memory_of_lane($1, $2, md5($3)::uuid)", enterprise, INTEGRATION, str(record))
        self._wake(enterprise, INTEGRATION)
        return {
            "number": order["number"],
            "created": bool(is_new),
            "steps": [{"step": row["step"], "state": row["state"], "detail": row["last_error"] or ""} for row in steps],
            "contact_id": (memory or {}).get("contact_id"),
            "lead_id": (memory or {}).get("lead_id"),
        }
