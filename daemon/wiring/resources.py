"""What the daemon and its commands open: database, vault, tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
    async with open_server(settings, own=own) as url:
        if apply:
            await migrate(url)
        db = await Database.open(url)
        try:
            yield db
        finally:
            await db.close()


@asynccontextmanager
async def open_server(settings: Settings, *, own: bool) -> AsyncIterator[str]:
    """The server alone, whatever is in its database; gives the owner's URL."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    embedded, keeper = EmbeddedPostgres(settings.data_dir), Supervisor("database")
    await embedded.start(own=own)
    if own:
        keeper.serve("embedded", embedded.keep)
    try:
        yield embedded.url
    finally:
        await keeper.stop()
        await embedded.stop()


def open_vault(settings: Settings) -> Vault:
    """The vault with the instance's keys."""
    configured = settings.secret_keys.get_secret_value() if settings.secret_keys else None
    return Vault(load_keys(configured, settings.secret_keys_file, settings.data_dir))


def open_tenants(settings: Settings, db: Database, vault: Vault) -> Tenants:
    """The tenants' service, not loaded yet."""
    kinds = {name: adapter.settings for name, adapter in adapters().items()}
    return Tenants(db, vault, EgressPolicy(settings.networks("egress_allow")), kinds)
