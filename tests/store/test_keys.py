"""`vochid keys rotate`: everything sealed goes under the newest key, in any number of runs, beside whoever works."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from adapters.retailcrm.deliver import RetailCrm
from daemon.security.cabinet import CabinetLinks
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.amocrm_tokens import AmoCrmTokens
from daemon.store.connection_tokens import ConnectionTokens
from daemon.store.inbound_tokens import InboundTokens, TokenOwner
from daemon.store.integration_state import IntegrationStates
from daemon.store.people import PeopleRepository
from daemon.store.pool import Database
from daemon.store.sealed import rotate
from daemon.tenants.service import Tenants
from daemon.wiring.keys import rotate_all

OLD, NEW = "o" * 40, "n" * 40
DOCUMENT: dict[str, Any] = {
    "number": "0001", "name": 'Имя с "sealed": "v1:x" внутри', "pbxs": [{"name": "main", "host": "127.0.0.1", "secret": "ami-secret-1"}],
    "integrations": {"retailcrm": {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}},
}  # fmt: skip


def tenants_of(db: Database, vault: Vault) -> Tenants:
    return Tenants(db, vault, EgressPolicy(["127.0.0.0/8"]), {"retailcrm": RetailCrm.settings})


@pytest.fixture
async def filled(db: Database, database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A database in which every kind of secret was sealed with the old key; gives the owner's connection."""
    vault = Vault([OLD])
    await tenants_of(db, vault).put("0001", DOCUMENT)
    await ConnectionTokens(db, vault, "0001", "retailcrm").save({"access": "token-1"})
    amo = {"domain": "example.amocrm.ru", "access_token": "access-1", "refresh_token": "refresh-1", "raw": {"account_id": 321}}
    await AmoCrmTokens(db, vault, "0001", "amocrm").save(amo)
    await IntegrationStates(db).set_registered("0001", "retailcrm", vault.seal("registration-1", "0001", "registration.retailcrm"))
    owner = await asyncpg.connect(database_url)
    person = await owner.fetchval("insert into users (login, role) values ('anna', 'super-admin') returning id")
    await PeopleRepository(db).set_totp(person, vault.seal("TOTPSECRET", "", f"totp {person}"))
    yield owner
    await owner.close()


async def test_every_secret_opens_with_the_new_key_alone_afterwards(db: Database, filled: asyncpg.Connection) -> None:
    done = await rotate(db, Vault([NEW, OLD]))
    assert (done.sealed, done.changed, done.failed) == (9, 9, ())
    new = Vault([NEW])
    tenants = tenants_of(db, new)
    await tenants.load()
    tenancy = tenants.get("0001")
    assert tenancy is not None
    assert tenancy.problems == ()
    assert tenancy.enterprise.name == DOCUMENT["name"]
    [pbx] = tenancy.enterprise.pbxs
    assert pbx.secret is not None
    assert pbx.secret.get_secret_value() == "ami-secret-1"
    assert tenancy.integrations["retailcrm"].api_key.get_secret_value() == "key-0123456789"  # type: ignore[attr-defined]
    assert (await ConnectionTokens(db, new, "0001", "retailcrm").load() or {}).items() >= {"access": "token-1"}.items()
    amo = await AmoCrmTokens(db, new, "0001", "amocrm").load()
    assert amo is not None
    assert (amo["access_token"], amo["refresh_token"], amo["raw"]) == ("access-1", "refresh-1", {"account_id": 321})
    registered = (await IntegrationStates(db).get("0001", "retailcrm")).registered_as
    assert registered is not None
    assert new.open(registered, "0001", "registration.retailcrm") == "registration-1"
    row = await filled.fetchrow("select id, totp from users")
    assert row is not None
    assert new.open(row["totp"], "", f"totp {row['id']}") == "TOTPSECRET"


async def test_a_run_that_was_broken_off_goes_on_and_a_further_one_changes_nothing(db: Database, filled: asyncpg.Connection) -> None:
    vault = Vault([NEW, OLD])

    def stop(done: int, of: int) -> None:
        if (done, of) == (2, 9):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await rotate(db, vault, stop)
    assert (await rotate(db, vault)).changed == 7
    assert (await rotate(db, vault)).changed == 0


async def test_who_proves_themselves_with_a_token_still_does_when_the_old_key_is_gone(db: Database) -> None:
    """The enterprise's secret, a clientId and a cabinet link's id are carried over; the link itself was signed with the old key, and that is said."""
    old, both, new = Vault([OLD]), Vault([NEW, OLD]), Vault([NEW])
    await tenants_of(db, old).put("0001", {**DOCUMENT, "secret": "enterprise-secret-1"})
    inbound = InboundTokens(db, old)
    client = TokenOwner("0001", "retailcrm", "client_id")
    await inbound.replace(client, "client-id-0123456789")
    cabinets = CabinetLinks(old, inbound, time.time)
    link = await cabinets.issue("0001")
    told = json.dumps({"account": "a", "client_id": "client-id-0123456789", "token": link})
    await IntegrationStates(db).set_registered("0001", "retailcrm", old.seal(told, "0001", "registration.retailcrm"))
    assert await InboundTokens(db, new).find("client-id-0123456789", "client_id") is None, "this is what rotation is for"
    _, carried = await rotate_all(db, both, tenants_of(db, both))
    assert carried.moved == 3
    assert carried.ending == ("the cabinet link of enterprise 0001",)
    for vault in (both, new):
        found = InboundTokens(db, vault)
        assert await found.find("client-id-0123456789", "client_id") == client
        assert await found.find("enterprise-secret-1", "secret") == TokenOwner("0001", "", "secret")
    assert await CabinetLinks(both, InboundTokens(db, both), time.time).find(link) == "0001", "beside both keys it opens"
    again = await rotate_all(db, both, tenants_of(db, both))
    assert (again[0].changed, again[1].moved) == (0, 0)
    await CabinetLinks(both, InboundTokens(db, both), time.time).issue("0001")
    stranger = TokenOwner("0001", "retailcrm", "application_token")
    await InboundTokens(db, old).replace(stranger, "nobody-keeps-this-text")
    assert "application_token of retailcrm of enterprise 0001" in (await rotate_all(db, both, tenants_of(db, both)))[1].ending


async def test_a_secret_whose_key_is_lost_is_named_and_kept_and_the_others_go_on(db: Database, filled: asyncpg.Connection) -> None:
    await ConnectionTokens(db, Vault(["lost" * 10]), "0001", "retailcrm").save({"access": "token-2"})
    before = await filled.fetchval("select tokens from connections")
    done = await rotate(db, Vault([NEW, OLD]))
    assert (done.changed, done.sealed) == (8, 8)
    assert done.failed == ("the access to retailcrm of enterprise 0001 was sealed with a key that is not here: add it to VOCHID_SECRET_KEYS or set it anew",)
    assert await filled.fetchval("select tokens from connections") == before


async def test_what_is_changed_meanwhile_is_not_overwritten(db: Database, filled: asyncpg.Connection) -> None:
    vault = Vault([NEW, OLD])
    old = await filled.fetchval("select tokens from connections")
    await ConnectionTokens(db, vault, "0001", "retailcrm").save({"access": "token-3"})
    assert await db.fetchval("select reseal('tokens', '0001', 'retailcrm', $1, $2)", old, vault.reseal(old, "it")) is False
    assert (await ConnectionTokens(db, vault, "0001", "retailcrm").load() or {}).items() >= {"access": "token-3"}.items()


async def test_every_column_that_holds_sealed_texts_is_rotated(db: Database, filled: asyncpg.Connection) -> None:
    """Whoever adds a sealed column adds it to sealed_texts(): afterwards the old key's mark is nowhere in the database."""
    mark = ":".join(Vault([OLD]).seal("", "", "").split(":")[:2]) + ":"
    columns = await filled.fetch(
        "select c.table_name, c.column_name from information_schema.columns c join pg_tables t on t.tablename = c.table_name and t.schemaname = 'public' "
        "where c.table_schema = 'public' and c.data_type in ('text', 'jsonb')"
    )

    async def marked() -> set[str]:
        return {t for t, c in columns if await filled.fetchval(f"select count(*) from {t} where strpos({c}::text, $1) > 0", mark)}

    assert await marked() == {"enterprises", "connections", "amocrm_tokens", "integration_state", "users"}
    await rotate(db, Vault([NEW, OLD]))
    assert await marked() == set()
