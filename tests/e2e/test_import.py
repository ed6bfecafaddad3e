"""`vochid import`: a database as the predecessor had it, taken over twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from tests.e2e.conftest import House
from tests.e2e.test_cli import vochid

SCHEMA = """
create table users (id int primary key, first_name text, last_name text);
create table enterprises (number text primary key, name text, name2 text, bot_token text, secret text, ip text, active boolean, integrations_config jsonb);
create table user_internal_phones (id int, enterprise_number text, phone_number text, user_id int);
insert into users values (1, 'Анна', 'Сидорова');
insert into enterprises values
  ('0401', 'Первая', '0401', 'bot-secret', 'shared-secret-1', '10.0.0.1', true,
   '{"retailcrm": {"enabled": true, "domain": "CRM", "api_key": "the-api-key", "user_extensions": {"19": "150"},
     "last_sync": "x", "version": 3}, "uon": {"k": 1}}'),
  ('0402', 'Вторая', '0402', '', 'short', '10.0.0.2', true, null),
  ('0403', 'Третья', '0403', '', 'shared-secret-1', '10.0.0.3', false, '{"retailcrm": {"domain": "https://10.1.1.1", "api_key": "k"}}'),
  ('bad number', 'x', '', '', 'long-enough-secret', '', true, '{}');
insert into user_internal_phones values (1, '0401', '150', 1), (2, '0401', '151', null), (3, '0401', 'п150', null);
"""


@pytest.fixture
async def predecessor(database_url: str, house: House) -> AsyncIterator[str]:
    """A schema of its own in the tests' database server, and a user whose search path begins there."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("create schema old; set search_path to old")
    await connection.execute(SCHEMA.replace("CRM", house.crm.url))
    name = await connection.fetchval("select current_database()")
    await connection.execute(f"alter database {name} set search_path to old")
    yield database_url
    await connection.close()


async def fingerprint(url: str) -> str:
    connection = await asyncpg.connect(url)
    rows = [await connection.fetch(f"select t::text from {table} t order by 1") for table in ("enterprises", "users", "user_internal_phones")]
    await connection.close()
    return hashlib.sha256(str(rows).encode()).hexdigest()


async def test_enterprises_are_taken_over_once_and_what_could_not_be_is_said(house: House, api: httpx.AsyncClient, predecessor: str) -> None:
    before = await fingerprint(predecessor)
    first = house.cli("import", "--from", predecessor)
    assert (first.returncode, first.stderr) == (0, "")
    for line in ("0401: created", "0402: created", "0403: created", "bad number: not taken: number", "4 enterprises read"):
        assert line in first.stdout, first.stdout
    for word in ("'п150'", "uon", "secret replaced by a random one", "integrations.retailcrm.domain", "paused"):
        assert word in first.stdout, first.stdout
    assert "the-api-key" not in first.stdout
    assert "shared-secret-1" not in first.stdout

    taken = (await api.get("/api/enterprises/0401")).json()
    assert (taken["name"], taken["pbxs"]) == ("Первая", [])
    assert taken["internal_phones"] == [{"number": "150", "owner": "Анна Сидорова"}, {"number": "151", "owner": ""}]
    assert taken["integrations"]["retailcrm"]["user_extensions"] == {"19": "150"}
    assert taken["integrations"]["retailcrm"]["api_key"]["last4"] == ""
    assert (await api.post("/api/enterprises/0401/integrations/retailcrm/test")).json()["ok"] is False  # the key is not the sandbox's
    assert (await api.get("/api/config/0401", headers={"X-Enterprise-Secret": "shared-secret-1", "Authorization": ""})).status_code == 200
    paused = (await api.get("/api/enterprises/0403")).json()
    assert (paused["paused"], paused["integrations"]) == (True, {})

    await api.put("/api/enterprises/0402", json={**(await api.get("/api/enterprises/0402")).json(), "name": "Своё имя"})
    documents = [(await api.get(f"/api/enterprises/{number}")).text for number in ("0401", "0402", "0403")]
    again = house.cli("import", "--from", predecessor)
    assert [line for line in again.stdout.splitlines() if "changed" in line] == [f"{number}: unchanged" for number in ("0401", "0402", "0403")]
    assert [(await api.get(f"/api/enterprises/{number}")).text for number in ("0401", "0402", "0403")] == documents
    assert json.loads(documents[1])["name"] == "Своё имя"
    assert await fingerprint(predecessor) == before


@pytest.mark.parametrize(("url", "says"), [("mysql://x/y", "postgresql://"), ("postgresql://nobody@127.0.0.1:9/x", "127.0.0.1"), ("", "")])
def test_a_wrong_address_is_one_line(url: str, says: str) -> None:
    done = vochid("import", "--from", url, VOCHID_DATA_DIR="/nonexistent")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


async def test_another_database_is_refused_in_a_line(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    name = await connection.fetchval("select current_database()")
    await connection.execute(f"create schema nothing; alter database {name} set search_path to nothing")
    await connection.close()
    done = await asyncio.to_thread(vochid, "import", "--from", database_url, VOCHID_DATA_DIR="/nonexistent")
    assert done.returncode == 1
    assert "predecessor's database" in done.stderr
