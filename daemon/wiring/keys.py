"""`vochid keys rotate`: secrets, and what is found by keyed hashes, put under the newest key."""

from __future__ import annotations

import json
from collections.abc import Callable

from daemon.security.cabinet import token_id
from daemon.security.vault import Vault, VaultError
from daemon.store.integration_state import IntegrationStates
from daemon.store.pool import Database
from daemon.store.sealed import Carried, Rotation, carry_over, rotate
from daemon.tenants.service import Tenants


async def rotate_all(db: Database, vault: Vault, tenants: Tenants, progress: Callable[[int, int], None] = lambda done, of: None) -> tuple[Rotation, Carried]:
    """Seals anew, then carries hashes over: enterprises' secrets, tokens in documents, and what CRMs were registered with."""
    rotation = await rotate(db, vault, progress)
    await tenants.load()
    tokens, cabinets = await tenants.known_tokens(), []
    states = IntegrationStates(db)
    for number, tenancy in tenants.all().items():
        for name in tenancy.integrations:
            sealed = (await states.get(number, name)).registered_as
            if sealed is None:
                continue
            try:
                told = json.loads(vault.open(sealed, number, f"registration.{name}"))
            except VaultError:  # rotate has named it
                continue
            tokens.append((number, told["client_id"]))
            if told["token"]:
                cabinets.append((number, told["token"]))
                if (link := token_id(vault, told["token"])) is not None:
                    tokens.append((number, link))
    return rotation, await carry_over(db, vault, tokens, cabinets)
