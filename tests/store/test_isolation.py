"""The walls between tenants, as PostgreSQL itself describes them: a new table or function that is outside of them fails here."""

from __future__ import annotations

import asyncpg
import pytest

from daemon.store.pool import Database

# Of no tenant: read by migrations and doctor.
COMMON = {"schema_migrations"}
TENANT = {"enterprises": "number", "bitrix24_sync_mappings": "tenant_id"}  # elsewhere enterprise_number
TABLES = "c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace"


@pytest.fixture
async def owner(database_url: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_every_table_is_behind_a_policy_of_its_tenant_or_closed_to_the_daemon(db: Database, owner: asyncpg.Connection) -> None:
    rows = await owner.fetch(
        f"""select c.relname, c.relrowsecurity, c.relispartition, has_table_privilege('vochid_app', c.oid, 'select, insert, update, delete') as is_open,
              array(select coalesce(pg_get_expr(p.polqual, p.polrelid), '') || ' / ' || coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '')
                    from pg_policy p where p.polrelid = c.oid) as policies,
              array(select coalesce(pg_get_expr(p.polqual, p.polrelid), '') from pg_policy p where p.polrelid = c.oid and not p.polpermissive) as restrictive
            from pg_class c where {TABLES}"""
    )
    tables = {row["relname"]: row for row in rows}
    assert len(tables) > 30
    for name, row in tables.items():
        if name in COMMON:
            continue
        assert not (row["relispartition"] and row["is_open"]), f"{name}: a partition is reached through its table, where the policy is"
        if row["relispartition"]:
            continue
        assert row["relrowsecurity"], f"{name} has no row-level security"
        if row["is_open"]:
            key = TENANT.get(name, "enterprise_number")
            assert row["policies"] == [f"({key} = tenant()) / ({key} = tenant())"], f"{name} is open to the daemon and its policy is {row['policies']}"


async def test_as_the_application_role_another_tenants_rows_can_be_neither_read_changed_taken_nor_made(db: Database, owner: asyncpg.Connection) -> None:
    """In every table that has a tenant: a row is planted as the owner, by whatever values the column types allow."""
    columns = await owner.fetch(
        f"""select c.relname, a.attname, format_type(a.atttypid, a.atttypmod) as type from pg_class c join pg_attribute a on a.attrelid = c.oid
            where {TABLES} and not c.relispartition and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attidentity = '' and a.attnotnull
              and has_table_privilege('vochid_app', c.oid, 'insert')"""
    )
    by_table: dict[str, dict[str, str]] = {}
    for row in columns:
        by_table.setdefault(row["relname"], {})[row["attname"]] = row["type"]
    by_table["deliveries"]["call_id"] = "uuid"  # its lane is made of it
    await owner.execute("insert into enterprises (number, name) values ('0001', 'One'), ('0002', 'Two')")
    keyed = {name: found for name, found in by_table.items() if name != "enterprises" and TENANT.get(name, "enterprise_number") in found}
    assert len(keyed) > 20
    for name, found in keyed.items():
        async with owner.transaction():
            await owner.execute(f"alter table {name} disable trigger user")
            await _unchecked(owner, name)
            await owner.execute(_planted(name, found, "'0001'"))
        async with db.tenant("0002") as stranger:
            assert await stranger.fetchval(f"select count(*) from {name}") == 0, name
            assert await stranger.execute(f"delete from {name}") == "DELETE 0", name
            assert await stranger.execute(f"update {name} set {TENANT.get(name, 'enterprise_number')} = '0002'") == "UPDATE 0", name
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            async with db.tenant("0002") as stranger:
                await stranger.execute(_planted(name, found, "'0001'"))
        async with db.tenant("0001") as rightful:
            assert await rightful.fetchval(f"select count(*) from {name}") == 1, name
        assert await db.fetch(f"select * from {name}") == [], f"{name}: without a tenant there is nothing"


async def _unchecked(owner: asyncpg.Connection, name: str) -> None:
    """What a row must fit besides its types is not what is tested."""
    rows = await owner.fetch("select conname from pg_constraint where conrelid = $1::regclass and contype in ('c', 'f')", name)
    for row in rows:
        await owner.execute(f'alter table {name} drop constraint "{row["conname"]}"')


def _planted(name: str, columns: dict[str, str], tenant: str) -> str:
    def value(column: str, kind: str) -> str:
        if column == TENANT.get(name, "enterprise_number"):
            return tenant
        if kind.endswith("[]"):
            return f"'{{}}'::{kind}"
        for start, text in {
            "jsonb": "'{}'",
            "bytea": "'\\x00'",
            "bool": "false",
            "uuid": "gen_random_uuid()",
            "timestamp": "now()",
            "date": "current_date",
        }.items():
            if kind.startswith(start):
                return text
        return "'x'" if kind == "text" else "1"

    names = ", ".join(columns)
    return f"insert into {name} ({names}) values ({', '.join(value(column, kind) for column, kind in columns.items())})"


async def test_what_sees_all_tenants_is_a_function_with_a_path_of_its_own_and_for_the_daemon_alone(db: Database, owner: asyncpg.Connection) -> None:
    rows = await owner.fetch(
        """select p.proname, p.prosecdef, p.proconfig,
             exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0) as public
           from pg_proc p where p.pronamespace = 'public'::regnamespace"""
    )
    defining = [row for row in rows if row["prosecdef"]]
    assert len(defining) > 20
    for row in defining:
        assert any(setting.startswith("search_path=") for setting in row["proconfig"] or ()), (
            f"{row['proname']}: whoever makes a table first could be read instead"
        )
    assert {row["proname"] for row in rows if row["public"]} == set(), "no function is for everybody"


async def test_the_application_role_owns_nothing_may_become_nobody_and_bypasses_nothing(owner: asyncpg.Connection) -> None:
    row = await owner.fetchrow("select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolcanlogin from pg_roles where rolname = 'vochid_app'")
    assert not any(row)
    assert not await owner.fetchval("select exists (select from pg_auth_members m join pg_roles r on r.oid = m.member where r.rolname = 'vochid_app')")
    assert not await owner.fetchval("select has_schema_privilege('vochid_app', 'public', 'create')")
