"""`vochid doctor` on a house in which one thing is wrong: it finds that thing and nothing else, and says how to mend it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from adapters.registry import adapters
from adapters.retailcrm.deliver import RetailCrm
from daemon.checkup import check_enterprise, check_files
from daemon.doctor import NEEDED_ACTIONS, examine
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.settings import Listen, Settings
from daemon.store.pool import Database
from daemon.tenants.document import Enterprise
from daemon.tenants.documents import Tenancy
from daemon.tenants.service import Tenants
from lab.crm.retailcrm import RetailCrmSandbox
from lab.fakepbx import FakePbx
from lab.office import PHONES
from tests.patience import PATIENCE_S
from tests.rig import NUMBER

KEY = "k" * 40
NOBODYS = 9  # a port that the kernel gives to nobody


@dataclass
class Sick:
    """A house in order, until a plant spoils one thing of it."""

    pbx: FakePbx
    crm: RetailCrmSandbox
    directory: Path
    database_url: str
    fastagi: int
    settings: dict[str, Any] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)

    async def complaints(self, db: Database) -> dict[str, str]:
        kinds = {name: adapter.settings for name, adapter in adapters().items()}
        await Tenants(db, Vault([KEY]), EgressPolicy(["127.0.0.0/8"]), kinds).put(NUMBER, self.document)
        if "schema" in self.settings:
            owner = await asyncpg.connect(self.database_url)
            await owner.execute("delete from schema_migrations where number = (select max(number) from schema_migrations)")
            await owner.close()
        made = Settings(**{name: value for name, value in self.settings.items() if name != "schema"})
        return {check.name: check.detail async for check in examine(made, None, None) if not check.ok}


@pytest.fixture
async def sick(db: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sick]:
    monkeypatch.setattr("daemon.settings.CONFIG_FILE", tmp_path / "none.toml")
    pbx, crm = FakePbx(boots=True, clock_s=0.0, actions=tuple(NEEDED_ACTIONS)), RetailCrmSandbox(codes=PHONES)
    await pbx.start()
    await crm.start()

    async def vochid(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"failure\n")
        writer.close()

    fastagi = await asyncio.start_server(vochid, "127.0.0.1", 0)
    port = fastagi.sockets[0].getsockname()[1]
    (tmp_path / "recordings").mkdir()
    house = Sick(pbx, crm, tmp_path, database_url, port)
    house.settings = {
        "database_url": database_url, "secret_keys": KEY, "egress_allow": "127.0.0.0/8", "fastagi": Listen(host="127.0.0.1", port=port), "data_dir": tmp_path,
    }  # fmt: skip
    house.document = {
        "number": NUMBER, "name": "Июнь", "lines": [{"number": "+375171112233"}],
        "pbxs": [{"name": "main", "host": "127.0.0.1", "port": pbx.port, "secret": pbx.secret, "trunks": ["PJSIP/provider"],
                  "recordings": {"source": "directory", "path": str(tmp_path / "recordings")}}],
        "integrations": {"retailcrm": {"domain": crm.url, "api_key": crm.api_key}},
    }  # fmt: skip
    yield house
    fastagi.close()
    await pbx.stop()
    await crm.stop()


def _pbx(house: Sick, **changed: Any) -> None:
    house.document["pbxs"][0] |= changed


def _crm(house: Sick, **changed: Any) -> None:
    house.document["integrations"]["retailcrm"] |= changed


def _fastagi_port(house: Sick, port: int) -> None:
    house.settings["fastagi"] = Listen(host="127.0.0.1", port=port)


PLANTS: dict[str, tuple[Callable[[Sick], Any], str, str]] = {
    "wrong secret": (lambda h: _pbx(h, secret="not-the-secret"), f"{NUMBER} pbx main login", "compare user and secret with manager.conf"),
    "nobody there": (lambda h: _pbx(h, port=NOBODYS), f"{NUMBER} pbx main login", "is Asterisk running"),
    "name in use": (lambda h: setattr(h.pbx, "login", "in_use"), f"{NUMBER} pbx main login", "a manager user of its own"),
    "no write=originate": (lambda h: setattr(h.pbx, "actions", ("CoreShowChannels", "CoreStatus", "DeviceStateList")), f"{NUMBER} pbx main rights",
                           "write=originate: add it to the manager user"),
    "no read=system": (lambda h: setattr(h.pbx, "boots", False), f"{NUMBER} pbx main events", "read=system,call,agent,dialplan is needed"),
    "clock": (lambda h: setattr(h.pbx, "clock_s", -300.0), f"{NUMBER} pbx main clock", "by NTP"),
    "wrong CRM key": (lambda h: _crm(h, api_key="another-key-another-key"), f"{NUMBER} retailcrm credentials", "look at api_key on the card of retailcrm"),
    "CRM away": (lambda h: _crm(h, domain=f"http://127.0.0.1:{NOBODYS}"), f"{NUMBER} retailcrm reachable", "look at domain on the card of retailcrm"),
    "daemon not running": (lambda h: _fastagi_port(h, NOBODYS), "fastagi", "is vochid running?"),
    "port taken": (lambda h: _fastagi_port(h, h.pbx.port), "fastagi", "set VOCHID_FASTAGI to another port"),
    "key lost": (lambda h: h.settings.update(secret_keys="z" * 40), "secrets", "Put the former key behind the new one"),
    "schema behind": (lambda h: h.settings.update(schema="old"), "schema", "run `vochid migrate`"),
    "recordings not mounted": (lambda h: (h.directory / "recordings").rmdir(), f"{NUMBER} pbx main recordings", "mount it"),
    "a line looks like an extension": (lambda h: _pbx(h, internal_number=r"^\+?\d{2,12}$"), f"{NUMBER} pbx main numbers", "narrow it"),
}  # fmt: skip


async def test_a_house_in_order_has_no_complaint(sick: Sick, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.doctor.BOOTED_DEADLINE_S", PATIENCE_S)
    assert await sick.complaints(db) == {}


@pytest.mark.parametrize("plant", PLANTS)
async def test_a_planted_fault_is_found_and_how_to_mend_it_is_said(plant: str, sick: Sick, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.doctor.BOOTED_DEADLINE_S", 0.3 if plant == "no read=system" else PATIENCE_S)
    spoil, name, advice = PLANTS[plant]
    spoil(sick)
    found = await sick.complaints(db)
    assert advice in found.get(name, "nothing was found"), found
    assert found[name], "never without a word"
    if plant != "key lost":  # without its secrets an enterprise has other complaints too
        assert set(found) == {name}, found


@pytest.mark.parametrize(
    ("process", "pbx", "name", "advice"),
    [
        ({}, {}, f"{NUMBER} public address", "set VOCHID_PUBLIC_URL"),
        ({"public_url": "http://vochid.example"}, {}, f"{NUMBER} public address", "https address of the reverse proxy"),
        ({}, {"host": "192.0.2.10"}, f"{NUMBER} pbx main asks", "set VOCHID_FASTAGI"),
        ({"fastagi": Listen(host="0.0.0.0", port=4573)}, {"host": "192.0.2.10"}, f"{NUMBER} pbx main asks", "fastagi_peers does not name 192.0.2.10"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_found(process: dict[str, Any], pbx: dict[str, Any], name: str, advice: str) -> None:
    tenancy = _tenancy(pbx)
    found = {check.name: check.detail for check in check_enterprise(Settings(secret_keys=KEY, **process), tenancy) if not check.ok}
    assert advice in found[name]
    mended = Settings(secret_keys=KEY, public_url="https://vochid.example", fastagi=Listen(host="192.0.2.1", port=4573))
    fitting = _tenancy({**pbx, "fastagi_peers": ["192.0.2.0/24"]})
    assert [check for check in check_enterprise(mended, fitting) if not check.ok] == []


def _tenancy(pbx: dict[str, Any]) -> Tenancy:
    enterprise = Enterprise(number=NUMBER, name="Июнь", pbxs=[{"name": "main", "host": "127.0.0.1", "secret": "ami-secret-1", **pbx}])  # type: ignore[list-item]
    crm = RetailCrm.settings(domain="https://example.retailcrm.ru", api_key="key-0123456789")  # type: ignore[call-arg]
    return Tenancy(enterprise, {"retailcrm": crm})


def test_keys_that_others_can_read_are_found(tmp_path: Path) -> None:
    file = tmp_path / "secret_keys"
    file.write_text(KEY)
    file.chmod(0o644)
    assert "chmod 600" in check_files(Settings(data_dir=tmp_path)).detail
    file.chmod(0o600)
    assert check_files(Settings(data_dir=tmp_path)).ok
