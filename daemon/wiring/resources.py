"""What the daemon and its commands open: database, vault, tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from adapters.registry import adapters
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault, load_keys
from daemon.settings import Settings
from daemon.store.embedded import EmbeddedPostgres
from daemon.store.migrate import migrate
from daemon.store.pool import Database
from daemon.supervisor import Supervisor
from daemon.tenants.service import Tenants


@asynccontextmanager
async def open_database(settings: Settings, *, own: bool, apply: bool) -> AsyncIterator[Database]:
    """The database of these settings: the embedded one, started when nobody runs it, or the one they name.

    own: as the daemon, which keeps the embedded server until it stops. apply: bring the schema up to date first.
    """
    async with AsyncExitStack() as stack:
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
        else:
            embedded = EmbeddedPostgres(settings.data_dir)
            await embedded.start(own=own)
            stack.push_async_callback(embedded.stop)
            if own:
                keeper = Supervisor("database")
                stack.push_async_callback(keeper.stop)
                keeper.serve("embedded", embedded.keep)
            url = embedded.url
        if apply:
            await migrate(url)
        db = await Database.open(url)
        stack.push_async_callback(db.close)
        yield db


def open_vault(settings: Settings) -> Vault:
    """The vault with the instance's keys."""
    configured = settings.secret_keys.get_secret_value() if settings.secret_keys else None
    return Vault(load_keys(configured, settings.secret_keys_file, settings.data_dir))


def open_tenants(settings: Settings, db: Database, vault: Vault) -> Tenants:
    """The tenants' service, not loaded yet."""
    kinds = {name: adapter.settings for name, adapter in adapters().items()}
    return Tenants(db, vault, EgressPolicy(settings.networks("egress_allow")), kinds)
