"""PostgreSQL: the embedded server, migrations, the walls between tenants, leases, and the query plans of the outbox."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from adapters.retailcrm.deliver import RetailCrm
from daemon.errors import NotFound, SettingsError, VochidError
from daemon.model.delivery import Kind
from daemon.model.signal import Ended
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.connection_tokens import ConnectionTokens
from daemon.store.embedded import EmbeddedPostgres
from daemon.store.inbound_tokens import InboundTokens, TokenOwner
from daemon.store.leases import LeaseLost, Leases
from daemon.store.migrate import MigrationError, migrate, migrations_dir, read_migrations
from daemon.store.pool import Database
from daemon.store.tokens import TokenRepository
from daemon.tenants.service import PreconditionFailed, Tenants
from lab.run import short_directory
from tests.conftest import fresh_database
from tests.patience import PATIENCE_S
from tests.rig import NUMBER, WITHIN_S, a_call, rig

SETTINGS = {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}


# -- the embedded server ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def home() -> AsyncIterator[Path]:
    directory = short_directory("vochid-pg-")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


async def test_it_starts_is_joined_by_a_second_process_and_stops_with_its_owner(home: Path) -> None:
    owner, guest = EmbeddedPostgres(home), EmbeddedPostgres(home)
    await owner.start(own=True)
    await guest.start(own=False)
    connection = await asyncpg.connect(guest.url)
    assert await connection.fetchval("select 1") == 1
    await connection.close()
    await guest.stop()
    connection = await asyncpg.connect(owner.url)
    await connection.close()
    await owner.stop()
    assert not (home / "postgresql/data/postmaster.pid").exists()


async def test_nobody_gets_in_without_the_password_and_nobody_reads_it(home: Path) -> None:
    server = EmbeddedPostgres(home)
    await server.start(own=True)
    try:
        assert ((home / "postgresql").stat().st_mode & 0o777, (home / "postgresql/password").stat().st_mode & 0o777) == (0o700, 0o600)
        run = home / "postgresql/run"
        for user in ("postgres", "vochid"):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(f"postgresql://{user}:wrong@/vochid?host={run}")
    finally:
        await server.stop()


async def test_after_kill_9_of_the_server_committed_rows_are_there_and_it_starts_again(home: Path) -> None:
    server = EmbeddedPostgres(home)
    await server.start(own=True)
    connection = await asyncpg.connect(server.url)
    await connection.execute("create table kept (n int); insert into kept values (7)")
    await connection.close()
    os.kill(int((home / "postgresql/data/postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    await server.stop()
    again = EmbeddedPostgres(home)
    await again.start(own=True)
    try:
        connection = await asyncpg.connect(again.url)
        assert await connection.fetchval("select n from kept") == 7
        await connection.close()
    finally:
        await again.stop()


async def test_a_server_whose_owner_was_killed_is_adopted_and_stopped(home: Path) -> None:
    code = (
        "import asyncio, os, sys; from pathlib import Path; from daemon.store.embedded import EmbeddedPostgres as E\n"
        "asyncio.run(E(Path(sys.argv[1])).start(own=True)); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(home)], check=False).returncode == 9
    heir = EmbeddedPostgres(home)
    await heir.start(own=True)
    await heir.stop()
    assert not (home / "postgresql/data/postmaster.pid").exists()


@pytest.mark.skipif(os.geteuid() != 0 and os.environ.get("CI") != "true", reason="only as root does the server run as another user")
async def test_binaries_that_the_servers_user_cannot_reach_are_copied(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from daemon.store import embedded

    monkeypatch.setattr(embedded, "_first_closed", lambda path, user: path if "bin" in path.parts else None)
    server = EmbeddedPostgres(home)
    await server.start(own=True)
    try:
        assert (home / "postgresql/server/complete").exists()
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("select 1") == 1
        await connection.close()
    finally:
        await server.stop()


@pytest.mark.skipif(os.geteuid() != 0 and os.environ.get("CI") != "true", reason="only root may act for another user")
async def test_a_command_by_root_leaves_the_services_database_to_the_service(home: Path) -> None:
    (home / "postgresql").mkdir(mode=0o700)
    os.chown(home / "postgresql", 65534, 65534)
    server, guest = EmbeddedPostgres(home), EmbeddedPostgres(home)
    await server.start(own=True)
    try:
        await guest.start(own=False)
        owners = {path.stat().st_uid for path in (home / "postgresql", home / "postgresql/data", home / "postgresql/run", home / "postgresql/password")}
        assert owners == {65534}
    finally:
        await server.stop()


def test_a_data_directory_with_a_long_path_is_refused_with_advice() -> None:
    with pytest.raises(SettingsError, match="VOCHID_DATA_DIR"):
        EmbeddedPostgres(Path("/tmp/" + "x" * 100))


# -- migrations --------------------------------------------------------------------------------------------------------------


async def test_migrating_twice_does_nothing_and_a_changed_file_is_refused(cluster: str, tmp_path: Path) -> None:
    async with fresh_database(cluster, template="template1") as url:
        files = tmp_path / "sql"
        shutil.copytree(migrations_dir(), files)
        assert await migrate(url, files) == len(read_migrations(files))
        assert await migrate(url, files) == 0
        (files / f"{len(read_migrations(files)) + 1:04d}_broken.sql").write_text("create table t (n int); select nonsense;")
        with pytest.raises(MigrationError, match="rolled back"):
            await migrate(url, files)
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("select to_regclass('t')") is None
        await connection.execute("insert into schema_migrations (number, name, checksum) values (9999, 'future', 'x')")
        with pytest.raises(MigrationError, match="newer"):
            await migrate(url, migrations_dir())
        await connection.execute("delete from schema_migrations where number = 9999")
        await connection.close()
        first = files / "0001_init.sql"
        first.write_text(first.read_text() + "\n-- changed")
        with pytest.raises(MigrationError, match="changed after"):
            await migrate(url, files)


async def test_two_daemons_may_migrate_at_once(cluster: str) -> None:
    async with fresh_database(cluster, template="template1") as url:
        assert sorted(await asyncio.gather(migrate(url), migrate(url))) == [0, len(read_migrations(migrations_dir()))]


# -- walls -------------------------------------------------------------------------------------------------------------------


async def test_the_daemon_is_neither_superuser_nor_owner(db: Database) -> None:
    row = (await db.fetch("select rolsuper, rolbypassrls from pg_roles where rolname = current_user"))[0]
    assert not row["rolsuper"]
    assert not row["rolbypassrls"]
    assert not await db.fetchval("select exists (select from pg_tables where schemaname = 'public' and tableowner = current_user)")


async def test_every_table_with_tenants_data_has_row_level_security(db: Database) -> None:
    rows = await db.fetch(
        "select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid where c.relkind in ('r', 'p') and not c.relispartition "
        "and a.attname = 'enterprise_number' and not c.relrowsecurity and c.relnamespace = 'public'::regnamespace"
    )
    assert rows == []


async def test_a_tenant_sees_and_changes_nothing_of_another(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        await r.record(a_call(), Ended(()), wake=False)
        rows = await db.fetch(
            "select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid where c.relkind in ('r', 'p') and not c.relispartition "
            "and a.attname = 'enterprise_number' and c.relnamespace = 'public'::regnamespace and has_table_privilege('vochid_app', c.oid, 'select')"
        )
        tables = [row["relname"] for row in rows]
        assert len(tables) >= 9
        for tenant in ("9999", ""):
            for table in tables:
                async with db.tenant(tenant) as connection:
                    assert await connection.fetchval(f"select count(*) from {table}") == 0
                    assert await connection.execute(f"delete from {table}") == "DELETE 0"
        async with db.tenant("9999") as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("insert into deliveries (enterprise_number, integration, call_id, kind, key, priority, payload) "
                                         "values ('0367', 'x', gen_random_uuid(), 'k', 'k', 0, '{}')")  # fmt: skip
        assert await db.fetch("select * from calls") == []
        assert len(await r.outbox.list(NUMBER)) == 1
        with pytest.raises(NotFound):
            await r.outbox.retry("9999", (await r.outbox.list(NUMBER))[0]["id"])


async def test_partitions_of_the_log_are_not_open_to_the_daemon_directly(db: Database) -> None:
    await db.fetch("select keep_house(90, 30)")
    part = await db.fetchval("select relname from pg_class where relname ~ '^integration_logs_[0-9]{8}$' order by relname limit 1")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await db.fetch(f"select * from {part}")


# -- leases --------------------------------------------------------------------------------------------------------------------


async def test_a_pbx_has_one_reader_and_a_stale_owners_writes_are_refused(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        other = Leases(db, "other", ttl_s=PATIENCE_S)
        assert not await other.take((NUMBER, "main"))
        await r.record(a_call(), Ended(()), wake=False)
        async with r.leases._beating:  # its next beat is late
            async with db.tenant(NUMBER) as connection:
                await connection.execute("update leases set expires_at = now() - interval '1 second'")
            with pytest.raises(LeaseLost):
                await r.record(a_call(), Ended(()), wake=False)
            assert await other.take((NUMBER, "main"))
        with pytest.raises(LeaseLost):
            await r.record(a_call(), Ended(()), wake=False)
        assert len(await r.outbox.list(NUMBER)) == 1
        await other.drop_all()
        assert await r.leases.take((NUMBER, "main"))
        await r.record(a_call(), Ended(()), wake=False)


async def test_an_owner_that_could_not_renew_lets_go_before_the_lease_expires(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    leases = Leases(db, "me", ttl_s=PATIENCE_S)
    assert await leases.take(("1", "main"))
    assert not await Leases(db, "another").take(("1", "main"))
    assert leases.epoch(("1", "main")) == 1
    monkeypatch.setattr(leases, "_renewed_at", leases._renewed_at - PATIENCE_S)
    with pytest.raises(LeaseLost):
        leases.epoch(("1", "main"))


# -- the outbox ------------------------------------------------------------------------------------------------------------------


async def test_the_same_change_recorded_twice_is_told_once(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        call = a_call()
        await r.record(call, Ended(()), wake=False)
        await r.record(call, Ended(()), wake=False)
        assert [d["kind"] for d in await r.outbox.list(NUMBER)] == ["journal"]


async def test_claims_take_the_head_of_a_lane_only_and_never_twice(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        call = a_call()
        for _ in range(2):
            await r.record(call, Ended(("150",)), wake=False)
        claims = await asyncio.gather(*(r.outbox.claim(NUMBER, "retailcrm", RetailCrm().policy, list(Kind), 10, 30.0) for _ in range(5)))
        assert [c.delivery.kind for claim in claims for request in claim.requests for c in request] == ["hangup"]


async def test_a_claim_that_outlives_its_owner_is_given_back_as_uncertain(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        await r.record(a_call(), Ended(()), wake=False)
        await r.outbox.claim(NUMBER, "retailcrm", RetailCrm().policy, list(Kind), 10, 0.0)
        await asyncio.sleep(0.02)
        assert await r.outbox.release_expired() == 1
        [[claimed]] = (await r.outbox.claim(NUMBER, "retailcrm", RetailCrm().policy, list(Kind), 10, 30.0)).requests
        assert claimed.is_uncertain


async def test_a_late_settlement_of_a_lost_claim_changes_nothing(db: Database) -> None:
    from daemon.delivery.outbox import Outbox, Settled
    from daemon.delivery.verdict import Verdict

    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        await r.record(a_call(), Ended(()), wake=False)
        [[claimed]] = (await r.outbox.claim(NUMBER, "retailcrm", RetailCrm().policy, list(Kind), 10, 30.0)).requests
        await Outbox(db, "somebody else").settle(NUMBER, "retailcrm", [Settled(claimed.delivery, Verdict("delivered"))], [])
        assert (await r.outbox.list(NUMBER))[0]["state"] == "sending"


async def test_dead_letters_are_retried_or_discarded_by_people(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        await r.record(a_call(), Ended(()), wake=False)
        [delivery] = await r.outbox.list(NUMBER)
        async with db.tenant(NUMBER) as connection:
            await connection.execute("update deliveries set state = 'dead', attempts = 11")
        assert (await r.outbox.retry(NUMBER, delivery["id"]))["attempts"] == 0
        assert (await r.outbox.discard(NUMBER, delivery["id"]))["state"] == "discarded"
        with pytest.raises(VochidError, match="only waiting and dead"):
            await r.outbox.retry(NUMBER, delivery["id"])


async def test_claiming_stays_on_its_index_however_long_the_queue_is(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        async with db.tenant(NUMBER) as connection:
            await connection.execute(
                "insert into deliveries (enterprise_number, integration, call_id, kind, key, priority, payload, due_at) "
                "select '0367', 'retailcrm', gen_random_uuid(), 'journal', 'k' || n, 1, '{}', now() + (n + 600 || ' s')::interval "
                "from generate_series(1, 20000) n"
            )
        owner = await asyncpg.connect(db.url)
        await owner.execute("analyze deliveries")
        try:
            plan = await owner.fetch(
                "explain (format text) select d.id from deliveries d where d.enterprise_number = '0367' and d.integration = 'retailcrm' "
                "and d.state = 'waiting' and d.due_at <= now() and d.kind = any (array['journal']) and not exists (select from deliveries e "
                "where e.enterprise_number = d.enterprise_number and e.integration = d.integration and e.lane = d.lane "
                "and e.state in ('waiting', 'sending') and e.id < d.id) order by d.priority, d.due_at, d.id limit 50"
            )
        finally:
            await owner.close()
        text = "\n".join(row[0] for row in plan)
        assert "deliveries_due" in text
        assert "Seq Scan" not in text
        assert await r.outbox.due() == []


# -- tenants ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def tenants(db: Database, vault: Vault) -> Tenants:
    return Tenants(db, vault, EgressPolicy(), {"retailcrm": RetailCrm.settings})


DOCUMENT = {
    "number": "0367", "name": "Июнь", "pbxs": [{"name": "main", "host": "127.0.0.1", "secret": "manager-secret-1"}],
    "internal_phones": [{"number": "150", "owner": "Reception"}],
    "integrations": {"retailcrm": {"domain": "https://example.retailcrm.ru", "api_key": "retail-api-key-99"}},
}  # fmt: skip


async def test_a_document_comes_back_whole_with_its_secrets_hidden_and_its_defaults_filled_in(tenants: Tenants, db: Database) -> None:
    shown, etag, created = await tenants.put("0367", DOCUMENT)
    assert created
    assert shown["pbxs"][0]["secret"] == {"set": True, "last4": "et-1"}
    assert shown["integrations"]["retailcrm"]["send"]["journal"] is True
    assert shown["secret"]["set"]
    assert (await tenants.document("0367"))[1] == etag
    async with db.tenant("0367") as connection:
        stored = json.dumps([dict(row) for row in await connection.fetch("select number, name, settings, integrations_config from enterprises")])
    assert "manager-secret-1" not in stored
    assert "retail-api-key-99" not in stored
    tenancy = tenants.get("0367")
    assert tenancy is not None
    assert tenancy.integrations["retailcrm"].api_key.get_secret_value() == "retail-api-key-99"  # type: ignore[attr-defined]


async def test_applying_a_document_twice_changes_nothing(tenants: Tenants) -> None:
    _, first, _ = await tenants.put("0367", DOCUMENT)
    _, second, created = await tenants.put("0367", DOCUMENT)
    assert (first, created) == (second, False)


async def test_a_document_that_was_read_can_be_sent_back_as_it_is(tenants: Tenants) -> None:
    shown, etag, _ = await tenants.put("0367", DOCUMENT)
    assert (await tenants.put("0367", shown))[1] == etag


async def test_sealed_documents_are_taken_back_by_the_same_instance_only(tenants: Tenants, db: Database) -> None:
    await tenants.put("0367", DOCUMENT)
    sealed, etag = await tenants.document("0367", sealed=True)
    assert "manager-secret-1" not in json.dumps(sealed)
    assert (await tenants.put("0367", sealed))[1] == etag
    stranger = Tenants(db, Vault(["z" * 40]), EgressPolicy(), {"retailcrm": RetailCrm.settings})
    with pytest.raises(VochidError, match="key that is not here"):
        await stranger.put("0367", sealed)


async def test_a_lost_key_leaves_the_other_tenants_running_and_says_what_is_missing(tenants: Tenants, db: Database) -> None:
    await tenants.put("0367", DOCUMENT)
    stranger = Tenants(db, Vault(["z" * 40]), EgressPolicy(), {"retailcrm": RetailCrm.settings})
    await stranger.put("0400", {**DOCUMENT, "number": "0400"})
    assert set(stranger.all()) == {"0367", "0400"}
    lost, fine = stranger.get("0367"), stranger.get("0400")
    assert lost is not None
    assert fine is not None
    assert any("set it anew" in problem for problem in lost.problems)
    assert not fine.problems


async def test_if_match_guards_against_overwriting_somebodys_change(tenants: Tenants) -> None:
    _, etag, _ = await tenants.put("0367", DOCUMENT)
    await tenants.put("0367", {**DOCUMENT, "name": "Июль"}, f'"{etag}"')
    with pytest.raises(PreconditionFailed):
        await tenants.put("0367", {**DOCUMENT, "name": "Август"}, f'"{etag}"')
    with pytest.raises(PreconditionFailed):
        await tenants.put("0999", {**DOCUMENT, "number": "0999"}, "*")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"nope": 1}, "nope"),
        ({"pbxs": [{"name": "main", "host": "h", "port": "x"}]}, "pbxs.0.port"),
        ({"pbxs": [{"name": "main", "host": "h", "internal_number": "(a+)+"}]}, "pbxs.0.internal_number"),
        ({"integrations": {"retailcrm": {"domain": "https://10.0.0.1", "api_key": "k"}}}, "integrations.retailcrm.domain"),
        ({"integrations": {"retailcrm": {"domain": "http://crm.example", "api_key": "k"}}}, "integrations.retailcrm.domain"),
        ({"integrations": {"fax": {}}}, "integrations.fax"),
        ({"integrations": []}, "integrations"),
        ({"pbxs": "x"}, "pbxs"),
        ({"number": "0368"}, "number"),
    ],
)
async def test_a_wrong_document_is_refused_with_the_fields_name_and_loses_nothing(change: dict[str, object], field: str, tenants: Tenants) -> None:
    _, etag, _ = await tenants.put("0367", DOCUMENT)
    with pytest.raises(SettingsError) as caught:
        await tenants.put("0367", {**DOCUMENT, **change})
    assert caught.value.field == field
    assert (await tenants.document("0367"))[1] == etag


async def test_a_plain_sql_update_is_noticed_by_itself(tenants: Tenants, db: Database) -> None:
    await tenants.put("0367", DOCUMENT)
    running = asyncio.ensure_future(tenants.run())
    try:
        await asyncio.sleep(0.3)
        async with db.tenant("0367") as connection:
            await connection.execute("update enterprises set name = 'Сентябрь'")
        async with asyncio.timeout(WITHIN_S):
            while (tenancy := tenants.get("0367")) is None or tenancy.enterprise.name != "Сентябрь":
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_notification_names_the_integration_that_changed(tenants: Tenants, db: Database) -> None:
    await tenants.put("0367", DOCUMENT)
    heard: list[dict[str, object]] = []
    connection = await db.listen()
    await connection.add_listener("vochid_settings", lambda *said: heard.append(json.loads(said[-1])))
    await tenants.put_integration("0367", "retailcrm", {"domain": "https://other.retailcrm.ru", "api_key": "another-key-12345"})
    async with asyncio.timeout(WITHIN_S):
        while not heard:
            await asyncio.sleep(0.01)
    await connection.close()
    assert heard == [{"enterprise_number": "0367", "integration_type": "retailcrm"}]


async def test_removing_keeps_calls_until_retention_and_purging_does_not(db: Database) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        await r.record(a_call(), Ended(()), wake=False)
        await r.tenants.remove(NUMBER)
        assert r.tenants.get(NUMBER) is None
        async with db.tenant(NUMBER) as connection:
            assert await connection.fetchval("select count(*) from calls") == 1
        with pytest.raises(NotFound):
            await r.tenants.remove(NUMBER)
        await r.tenants.put(NUMBER, {**DOCUMENT, "integrations": {}})
        await r.tenants.remove(NUMBER, purge=True)
        async with db.tenant(NUMBER) as connection:
            assert await connection.fetchval("select count(*) from calls") == 0


async def test_api_tokens_are_shown_once_found_by_hash_and_revocable(tenants: Tenants, db: Database) -> None:
    await tenants.put("0367", DOCUMENT)
    tokens = TokenRepository(db)
    token_id, token = await tokens.add("0367", "crm")
    assert await tokens.find(token) == "0367"
    assert token not in str(await tokens.list("0367"))
    await tokens.revoke("0367", token_id)
    assert await tokens.find(token) is None
    with pytest.raises(NotFound):
        await tokens.revoke("0367", token_id)
    with pytest.raises(NotFound):
        await tokens.add("0999", "x")


async def test_renewing_credentials_are_sealed_and_exchanged_by_one_at_a_time(db: Database, vault: Vault) -> None:
    store = ConnectionTokens(db, vault, "0367", "amocrm")
    assert await store.load() is None
    await store.save({"access": "token-value-1"})
    assert (await store.load() or {}).items() >= {"access": "token-value-1"}.items()
    order: list[str] = []

    async def exchange(name: str) -> None:
        async with store.lock():
            order.append(name)
            await asyncio.sleep(0.05)
            order.append(name)

    await asyncio.gather(exchange("a"), exchange("b"))
    assert order[0] == order[1]


async def test_housekeeping_makes_partitions_ahead_and_drops_old_ones(db: Database) -> None:
    await db.fetch("select keep_house(90, 30)")
    owner = await asyncpg.connect(db.url)
    try:
        await owner.execute("create table integration_logs_20200101 partition of integration_logs for values from ('2020-01-01') to ('2020-01-02')")
        await db.fetch("select keep_house(90, 30)")
        today = await owner.fetchval("select current_date")  # it may be another one by now than when the first were made
        names = {row["relname"] for row in await owner.fetch("select relname from pg_class where relname ~ '^integration_logs_[0-9]{8}$'")}
        assert "integration_logs_20200101" not in names
        assert 8 <= len(names) <= 9
        assert names >= {f"integration_logs_{today + timedelta(ahead):%Y%m%d}" for ahead in range(7)}
    finally:
        await owner.close()


async def test_inbound_tokens_are_found_by_keyed_hash_rotate_with_an_overlap_and_belong_to_one(tenants: Tenants, db: Database, vault: Vault) -> None:
    await tenants.put("0001", {"number": "0001", "name": "One", "pbxs": []})
    await tenants.put("0002", {"number": "0002", "name": "Two", "pbxs": []})
    inbound = InboundTokens(db, vault)
    mine = TokenOwner("0001", "retailcrm", "client_id")
    await inbound.replace(mine, "client-id-1")
    assert await inbound.find("client-id-1", "secret", "client_id") == mine
    assert await inbound.find("client-id-1", "cabinet") is None
    assert await inbound.find("client-id-2", "client_id") is None
    assert await inbound.find("short", "client_id") is None
    with pytest.raises(VochidError, match="in use elsewhere"):
        await inbound.replace(TokenOwner("0002", "retailcrm", "client_id"), "client-id-1")
    await inbound.replace(mine, "client-id-2", overlap_s=60)
    assert await inbound.find("client-id-1", "client_id") == mine == await inbound.find("client-id-2", "client_id")
    await inbound.replace(mine, "client-id-3")
    assert await inbound.find("client-id-1", "client_id") is None
    await inbound.replace(mine, None)
    assert await inbound.find("client-id-3", "client_id") is None
    assert not await db.fetch("select token_hash from inbound_tokens")
