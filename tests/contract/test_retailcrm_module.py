"""vochid as RetailCRM's module: registered, renewed, taken away; managers and their extensions. On the sandbox, over real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import retailcrm

from adapters.base import CanRegister, HasManagers
from adapters.retailcrm.config import RetailCrmSettings
from adapters.retailcrm.deliver import RetailCrm
from adapters.retailcrm.module import entry
from daemon.errors import NotFound, VochidError
from daemon.model.crm import Registration
from daemon.security.cabinet import CabinetLinks
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.inbound_tokens import InboundTokens
from daemon.store.integration_state import IntegrationStates
from daemon.store.pool import Database
from daemon.tenants.admin_port import CrmFailed
from daemon.tenants.managers import Managers
from daemon.tenants.registration import Registrations
from daemon.tenants.service import Tenants
from daemon.wiring.crm import Crm, GuardedSessions
from daemon.wiring.crm_admin import crm_admin
from lab.crm.retailcrm import RetailCrmSandbox
from lab.crm.retailcrm_data import User, module_errors

NUMBER, CODE = "0367", "vochi-telephony"
LINES = [{"number": "+375171112230", "name": "Sales"}, {"number": "+375171112231", "name": "Service"}]


@dataclass
class Office:
    """One enterprise with one RetailCRM account."""

    box: RetailCrmSandbox
    db: Database
    tenants: Tenants
    registrations: Registrations
    managers: Managers
    states: IntegrationStates
    inbound: InboundTokens
    cabinet: CabinetLinks

    async def settings(self, **more: Any) -> None:
        base = {"domain": self.box.url, "api_key": self.box.api_key}
        stored = (await self.tenants.document(NUMBER))[0]["integrations"].get("retailcrm", base)
        await self.tenants.put_integration(NUMBER, "retailcrm", {**stored, **more})

    @property
    def extensions(self) -> dict[str, str | None]:
        return dict(self.managers.extensions(NUMBER, "retailcrm"))

    @property
    def module(self) -> dict[str, Any]:
        return self.box.account.modules[CODE]

    @property
    def codes(self) -> dict[int, str]:
        return self.box.account.codes

    def link(self) -> str:
        return parse_qs(urlsplit(self.module["accountUrl"]).query)["token"][0]

    async def opens(self) -> tuple[bool, bool]:
        """Whether what the CRM holds opens this enterprise: its clientId, its cabinet link."""
        owner = await self.inbound.find(self.module["clientId"], "client_id")
        return owner is not None and owner.enterprise == NUMBER, await self.cabinet.find(self.link()) == NUMBER

    async def logs(self, event_type: str) -> list[dict[str, Any]]:
        async with self.db.tenant(NUMBER) as connection:
            return [dict(row) for row in await connection.fetch("select * from integration_logs where event_type = $1 order by id", event_type)]


@asynccontextmanager
async def office(db: Database, *, base_url: str = "https://pbx.example", allow: str = "127.0.0.0/8", **settings: Any) -> AsyncIterator[Office]:
    box = RetailCrmSandbox()
    box.switches.rate_limited = False  # ours is kept; after a moment in which this machine stood still what had its place comes together
    await box.start()
    egress, vault = EgressPolicy([allow]), Vault(["k" * 40])
    adapter = RetailCrm()
    tenants = Tenants(db, vault, EgressPolicy(["127.0.0.0/8"]), {"retailcrm": adapter.settings})
    integration = {"domain": box.url, "api_key": box.api_key, **settings}
    await tenants.put(NUMBER, {"number": NUMBER, "name": "x", "pbxs": [], "lines": LINES, "integrations": {"retailcrm": integration}})
    sessions = GuardedSessions(EgressPolicy(["127.0.0.0/8"]))
    admin = crm_admin(tenants, Crm(tenants, {"retailcrm": adapter}, sessions, db, vault), db, vault, egress, base_url)
    inbound = InboundTokens(db, vault)
    cabinet = CabinetLinks(vault, inbound, time.time)
    try:
        yield Office(box, db, tenants, admin.registrations, admin.managers, admin.states, inbound, cabinet)
    finally:
        await sessions.close()
        await box.stop()


@pytest.fixture
async def house(db: Database) -> AsyncIterator[Office]:
    async with office(db) as built:
        yield built


@pytest.fixture
async def box() -> AsyncIterator[RetailCrmSandbox]:
    sandbox = RetailCrmSandbox()
    await sandbox.start()
    yield sandbox
    await sandbox.stop()


# -- registration --------------------------------------------------------------------------------------------------------


def test_the_adapter_can_register_and_has_managers() -> None:
    assert isinstance(RetailCrm(), CanRegister)
    assert isinstance(RetailCrm(), HasManagers)


@pytest.mark.parametrize("code", ["vochi-telephony", "a", "pbx-2"])
def test_the_entry_keeps_the_crms_rules_whatever_the_settings_are(code: str) -> None:
    settings = RetailCrmSettings.model_validate({"domain": "https://x.example", "api_key": "k", "module_code": code, "send": {"popup_out": False}})
    told = Registration("https://pbx.example", "https://pbx.example/retailcrm-admin/?token=t", "c" * 32, True, {"19": "150", "not-a-number": "151"})
    made = entry(settings, told)
    assert module_errors(made, code, is_new=True) == {}
    telephony = made["integrations"]["telephony"]
    assert [telephony[f"{kind}EventSupported"] for kind in ("input", "output", "hangup")] == [True, False, True]
    assert telephony["additionalCodes"] == [{"userId": 19, "code": "150"}]


async def test_registering_tells_the_crm_who_we_are_and_both_keys_open(house: Office) -> None:
    await house.settings(user_extensions={"19": "150", "22": None})
    done = await house.registrations.register(NUMBER, "retailcrm")
    assert (done.ok, done.detail) == (True, "")
    telephony = house.module["integrations"]["telephony"]
    assert house.module["name"] == "Vochi-CRM"
    assert house.module["logo"] == "https://pbx.example/retailcrm/logo.svg"
    assert telephony["makeCallUrl"] == "https://pbx.example/retailcrm/make-call"
    assert telephony["changeUserStatusUrl"] == "https://pbx.example/retailcrm/status"
    assert telephony["additionalCodes"] == [{"userId": 19, "code": "150"}]
    assert telephony["externalPhones"] == [{"siteCode": "main-shop", "externalPhone": line["number"][1:]} for line in LINES]
    assert len(bytes.fromhex(house.module["clientId"])) == 16
    assert await house.opens() == (True, True)
    assert (await house.states.get(NUMBER, "retailcrm")).registered_at is not None


async def test_registering_again_rotates_both_keys(house: Office) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    former, link = house.module["clientId"], house.link()
    assert (await house.registrations.register(NUMBER, "retailcrm")).ok
    assert house.module["clientId"] != former
    assert await house.opens() == (True, True)
    assert await house.inbound.find(former, "client_id") is None
    assert await house.cabinet.find(link) is None


async def test_unregistering_ends_both_keys_and_leaves_the_crm_nothing_that_opens(house: Office) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    former, link = house.module["clientId"], house.link()
    assert (await house.registrations.unregister(NUMBER, "retailcrm")).ok
    assert house.module["active"] is False
    assert house.module["clientId"] != former
    assert "token" not in house.module["accountUrl"]
    assert await house.inbound.find(former, "client_id") is None
    assert await house.inbound.find(house.module["clientId"], "client_id") is None
    assert await house.cabinet.find(link) is None
    assert (await house.states.get(NUMBER, "retailcrm")).registered_at is None
    assert (await house.registrations.register(NUMBER, "retailcrm")).ok


async def test_unregistering_where_the_crm_has_no_module_or_is_away_ends_the_keys_all_the_same(house: Office) -> None:
    assert "no such module" in (await house.registrations.unregister(NUMBER, "retailcrm")).detail
    await house.registrations.register(NUMBER, "retailcrm")
    former = house.module["clientId"]
    house.box.switches.fail_next.extend(["500"])
    done = await house.registrations.unregister(NUMBER, "retailcrm")
    assert not done.ok
    assert await house.inbound.find(former, "client_id") is None
    assert [row["status"] for row in await house.logs("unregister_module")] == ["success", "error"]


async def test_removing_the_integration_switches_the_module_off_and_takes_everything_along(house: Office) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    former = house.module["clientId"]
    assert (await house.registrations.remove(NUMBER, "retailcrm")).ok
    assert house.module["active"] is False
    assert await house.inbound.find(former, "client_id") is None
    assert "retailcrm" not in (await house.tenants.document(NUMBER))[0]["integrations"]
    with pytest.raises(NotFound):
        await house.registrations.remove(NUMBER, "retailcrm")


async def test_an_integration_that_plain_sql_takes_away_takes_its_keys_along(house: Office) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    async with house.db.tenant(NUMBER) as connection:
        await connection.execute("update enterprises set integrations_config = '{}' where number = $1", NUMBER)
    assert await house.opens() == (False, False)
    assert (await house.states.get(NUMBER, "retailcrm")).registered_as is None
    async with house.db.tenant(NUMBER) as connection:
        assert await connection.fetchval("select count(*) from inbound_tokens where purpose = 'secret'") == 1


@pytest.mark.parametrize("lost", ["done-then-silence", "500", "html-200", "truncated", "reset"])
async def test_whatever_becomes_of_the_answer_the_crm_never_holds_a_key_that_we_do_not_know(lost: str, house: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    former, faults = house.module["clientId"], house.box.switches.fail_next
    with monkeypatch.context() as patched:
        if lost == "done-then-silence":
            patched.setattr("daemon.wiring.crm_admin.WRITE_DEADLINE_S", 0.6)
        for _ in range(20):  # a try for which there was no time even to ask is made again
            faults.clear()
            faults.extend(["pass", lost])  # the shops are read first
            done = await house.registrations.register(NUMBER, "retailcrm")
            if not faults:
                break
    was_taken = house.module["clientId"] != former
    assert was_taken == (lost == "done-then-silence")
    assert await house.opens() == (True, True)
    if done.ok:
        assert was_taken
    assert (await house.registrations.register(NUMBER, "retailcrm")).ok
    assert await house.opens() == (True, True)
    assert await house.inbound.find(former, "client_id") is None


async def test_an_answer_that_was_lost_after_the_crm_took_it_is_found_out_by_asking(house: Office) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    former = house.module["clientId"]
    house.box.switches.fail_next.extend(["pass", "done-then-500"])
    done = await house.registrations.register(NUMBER, "retailcrm")
    assert (done.ok, house.module["clientId"] != former) == (True, True)
    assert "has taken it" in done.detail
    assert await house.opens() == (True, True)
    assert await house.inbound.find(former, "client_id") is None


async def test_a_crash_after_the_crm_was_told_leaves_it_no_unknown_key(house: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    former = house.module["clientId"]

    async def dies(*_: Any) -> None:
        raise ConnectionResetError("as kill -9 would")

    with monkeypatch.context() as patched:
        patched.setattr(IntegrationStates, "set_registered", dies)
        with pytest.raises(ConnectionResetError):
            await house.registrations.register(NUMBER, "retailcrm")
    assert house.module["clientId"] != former
    assert await house.opens() == (True, True)
    await house.managers.save(NUMBER, "retailcrm", {"19": "150"})
    assert await house.opens() == (True, True)
    assert (await house.registrations.register(NUMBER, "retailcrm")).ok
    assert await house.opens() == (True, True)


async def test_a_refusal_leaves_the_former_keys_and_repeats_the_crms_words(house: Office) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    house.box.switches.fail_next.extend(["pass", "errors-array"])
    done = await house.registrations.register(NUMBER, "retailcrm")
    assert not done.ok
    assert "Not enough funds" in done.detail
    assert await house.opens() == (True, True)
    rows = await house.logs("register_module")
    assert [row["status"] for row in rows] == ["success", "error"]
    assert "Not enough funds" in rows[1]["error_message"]
    assert rows[1]["response_data"]["status"] == 400


async def test_every_attempt_is_logged_without_a_secret(house: Office) -> None:
    await house.settings(user_extensions={"19": "150"})
    await house.registrations.register(NUMBER, "retailcrm")
    await house.managers.save(NUMBER, "retailcrm", {"22": "151"})
    rows = await house.logs("register_module") + await house.logs("extensions")
    assert len(rows) == 2
    text = json.dumps([[row["request_data"], row["response_data"]] for row in rows])
    assert "makeCallUrl" in text
    for secret in (house.module["clientId"], house.link(), house.box.api_key):
        assert secret not in text


async def test_without_https_only_a_crm_in_the_lab_is_told(db: Database) -> None:
    async with office(db, base_url="http://127.0.0.1:8019", allow="10.0.0.0/8") as built:
        done = await built.registrations.register(NUMBER, "retailcrm")
        assert not done.ok
        assert "VOCHID_PUBLIC_URL" in done.detail
        assert built.box.account.modules == {}
        assert "VOCHID_PUBLIC_URL" in (await built.logs("register_module"))[0]["error_message"]


async def test_a_lab_crm_may_be_told_plain_http(db: Database) -> None:
    async with office(db, base_url="http://127.0.0.1:8019") as built:
        assert (await built.registrations.register(NUMBER, "retailcrm")).ok
        assert built.module["baseUrl"] == "http://127.0.0.1:8019"


async def test_mode_observe_and_a_disabled_integration_register_nothing(house: Office) -> None:
    await house.settings(mode="observe")
    done = await house.registrations.register(NUMBER, "retailcrm")
    assert (done.ok, house.box.account.modules) == (False, {})
    assert "observe" in done.detail
    await house.settings(mode="live", enabled=False)
    assert "switched off" in (await house.registrations.register(NUMBER, "retailcrm")).detail
    with pytest.raises(NotFound):
        await house.registrations.register(NUMBER, "bitrix24")


async def test_two_registrations_at_once_are_one_and_a_clear_refusal(house: Office) -> None:
    house.box.switches.latency_s = 0.1
    both = await asyncio.gather(*(house.registrations.register(NUMBER, "retailcrm") for _ in range(2)), return_exceptions=True)
    refused = [one for one in both if isinstance(one, VochidError)]
    assert [one.code for one in refused] == ["wrong_state"]
    assert await house.opens() == (True, True)


async def test_what_the_crm_left_out_is_told(house: Office) -> None:
    house.box.account.sites = {"north": "North", "south": "Sales"}
    await house.settings(user_extensions={"19": "150", "77": "177"})
    done = await house.registrations.register(NUMBER, "retailcrm")
    assert done.ok
    assert "77" in done.detail
    assert "+375171112231" in done.detail
    assert house.module["integrations"]["telephony"]["externalPhones"] == [{"siteCode": "south", "externalPhone": "375171112230"}]
    assert house.codes == {19: "150"}


# -- managers ------------------------------------------------------------------------------------------------------------


def module_with(codes: dict[int, str]) -> dict[str, Any]:
    telephony = {"additionalCodes": [{"userId": user, "code": code} for user, code in codes.items()]}
    return {"code": CODE, "integrationCode": CODE, "active": True, "clientId": "x", "name": "former", "integrations": {"telephony": telephony}}


async def test_managers_come_page_by_page(house: Office) -> None:
    house.box.account.users |= {1_000 + i: User(1_000 + i, f"User {i}") for i in range(230)}
    found = await house.managers.fetch(NUMBER, "retailcrm")
    assert len(found.items) == len(house.box.account.users) == 236
    assert {manager.id for manager in found.items} == {str(user) for user in house.box.account.users}
    assert next(m for m in found.items if m.id == "31").name == "Глеб"
    assert next(m for m in found.items if m.id == "40").active is False


@pytest.mark.parametrize("fault", ["500", "truncated", "html-200", "errors-array", "429"])
async def test_a_part_of_the_list_is_an_error_and_never_an_answer(fault: str, house: Office) -> None:
    house.box.account.users |= {1_000 + i: User(1_000 + i, f"User {i}") for i in range(150)}
    house.box.switches.fail_next.extend(["pass", "pass", fault])
    with pytest.raises(CrmFailed):
        await house.managers.fetch(NUMBER, "retailcrm")
    assert (await house.states.get(NUMBER, "retailcrm")).last_sync_at is None
    assert (await house.logs("managers"))[0]["status"] == "error"


async def test_the_first_fetch_takes_over_what_the_crm_holds_and_later_ones_do_not(house: Office) -> None:
    house.box.account.modules[CODE] = module_with({19: "150", 22: "151", 25: "152"})
    await house.settings(user_extensions={"22": "155"})
    found = await house.managers.fetch(NUMBER, "retailcrm")
    assert found.imported == 2
    assert house.extensions == {"22": "155", "19": "150", "25": "152"}
    assert [(m.id, m.extension, m.remote_extension) for m in found.items[:2]] == [("19", "150", "150"), ("22", "155", "151")]
    assert found.last_sync is not None
    await house.settings(user_extensions={})
    assert (await house.managers.fetch(NUMBER, "retailcrm")).imported == 0
    assert house.extensions == {}


async def test_registering_over_an_entry_that_was_made_before_takes_its_extensions_over_first(house: Office) -> None:
    house.box.account.modules[CODE] = module_with({19: "150", 22: "151"})
    assert (await house.registrations.register(NUMBER, "retailcrm")).ok
    assert house.extensions == {"19": "150", "22": "151"}
    assert house.codes == {19: "150", 22: "151"}


async def test_an_entry_whose_extensions_cannot_be_read_is_not_overwritten(house: Office) -> None:
    house.box.account.modules[CODE] = module_with({19: "150"})
    house.box.switches.fail_next.append("500")
    assert not (await house.registrations.register(NUMBER, "retailcrm")).ok
    assert house.codes == {19: "150"}


async def test_a_saved_extension_reaches_the_crm_and_is_taken_from_its_former_manager(house: Office) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    client_id = house.module["clientId"]
    done = await house.managers.save(NUMBER, "retailcrm", {"19": "150", "22": "151"})
    assert done.warning is None
    assert house.codes == {19: "150", 22: "151"}
    done = await house.managers.save(NUMBER, "retailcrm", {"25": "150"})
    assert done.assignments == [{"userId": "22", "code": "151"}, {"userId": "25", "code": "150"}]
    assert house.extensions == {"19": None, "22": "151", "25": "150"}
    assert house.codes == {22: "151", 25: "150"}
    assert house.module["clientId"] == client_id
    assert await house.opens() == (True, True)
    await house.managers.save(NUMBER, "retailcrm", {"22": None})
    assert house.codes == {25: "150"}


async def test_what_the_crm_could_not_be_told_is_saved_here_and_mended_when_it_is_back(house: Office) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    house.box.switches.fail_next.extend(["pass", "500", "500"])
    done = await house.managers.save(NUMBER, "retailcrm", {"19": "150"})
    assert done.warning
    assert (house.extensions, house.codes) == ({"19": "150"}, {})
    found = await house.managers.fetch(NUMBER, "retailcrm")
    assert (len(found.differences), found.mend_error) == (1, None)
    assert house.codes == {19: "150"}
    rows = await house.logs("extensions")
    assert [row["status"] for row in rows] == ["error", "success"]
    assert rows[1]["request_data"]["differences"] == [{"user": "19", "here": "150", "there": None}]


async def test_what_somebody_changed_in_the_crm_is_mended_and_logged(house: Office) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    await house.managers.save(NUMBER, "retailcrm", {"19": "150", "22": "151"})
    house.module["integrations"]["telephony"]["additionalCodes"] = [{"userId": 19, "code": "151"}, {"userId": 31, "code": "150"}]
    found = await house.managers.fetch(NUMBER, "retailcrm")
    assert {d.user for d in found.differences} == {"19", "22", "31"}
    assert house.codes == {19: "150", 22: "151"}
    assert (await house.managers.fetch(NUMBER, "retailcrm")).differences == []


async def test_another_account_is_not_told_the_former_ones_keys(house: Office) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    other = RetailCrmSandbox()
    await other.start()
    try:
        await house.settings(domain=other.url, api_key=other.api_key)
        await house.managers.save(NUMBER, "retailcrm", {"19": "150"})
        assert "not registered" in ((await house.managers.fetch(NUMBER, "retailcrm")).mend_error or "")
        assert other.account.modules == {}
        assert (await house.registrations.register(NUMBER, "retailcrm")).ok
        assert other.account.codes == {19: "150"}
        assert await house.opens() == (False, False)
    finally:
        await other.stop()


async def test_mode_observe_reads_managers_and_changes_nothing_at_the_crm(house: Office) -> None:
    house.box.account.modules[CODE] = module_with({19: "150"})
    await house.settings(mode="observe")
    assert (await house.managers.fetch(NUMBER, "retailcrm")).imported == 1
    await house.managers.save(NUMBER, "retailcrm", {"22": "151"})
    assert house.extensions == {"19": "150", "22": "151"}
    assert house.codes == {19: "150"}


async def test_whoever_vanished_from_the_crm_keeps_the_extension_until_somebody_says_so(house: Office) -> None:
    await house.registrations.register(NUMBER, "retailcrm")
    await house.managers.fetch(NUMBER, "retailcrm")
    await house.managers.save(NUMBER, "retailcrm", {"19": "150", "22": "151"})
    del house.box.account.users[19]
    for _ in range(2):
        found = await house.managers.fetch(NUMBER, "retailcrm")
        assert [(a["user"], a["name"]) for a in found.alarms if a["kind"] == "user_gone"] == [("19", "Анна Сидорова")]
        assert house.extensions == {"19": "150", "22": "151"}
    found = await house.managers.fetch(NUMBER, "retailcrm", forget_gone=True)
    assert not [a for a in found.alarms if a["kind"] == "user_gone"]
    assert house.extensions == {"22": "151"}


async def test_two_who_save_at_once_both_win(house: Office) -> None:
    await asyncio.gather(*(house.managers.save(NUMBER, "retailcrm", {user: code}) for user, code in {"19": "150", "22": "151", "25": "152"}.items()))
    assert house.extensions == {"19": "150", "22": "151", "25": "152"}


# -- the sandbox, by a client that is not ours -----------------------------------------------------------------------------


async def official(box: RetailCrmSandbox, call: str, *arguments: Any) -> Any:
    return await asyncio.to_thread(getattr(retailcrm.v5(box.url, box.api_key), call), *arguments)


async def test_the_official_client_registers_reads_and_lists(box: RetailCrmSandbox) -> None:
    box.switches.rate_limited = False
    module = {**module_with({19: "150", 77: "177"}), "baseUrl": "https://pbx.example", "logo": "https://pbx.example/l.svg"}
    made = await official(box, "integration_module_edit", module)
    assert (made.get_status_code(), made.get_response()["info"]) == (201, {"notExistUsersIds": [77]})
    again = await official(box, "integration_module_edit", {**module, "name": "Другое"})
    assert again.get_status_code() == 200
    held = (await official(box, "integration_module", CODE)).get_response()["integrationModule"]
    assert held["integrations"]["telephony"]["additionalCodes"] == [{"userId": 19, "code": "150"}]
    assert "clientId" not in held
    assert (await official(box, "integration_module", "nobody")).get_status_code() == 404
    users = (await official(box, "users", {"active": 1}, 20, 1)).get_response()
    assert (users["pagination"]["totalCount"], len(users["users"])) == (5, 5)
    assert (await official(box, "user", 19)).get_response()["user"]["firstName"] == "Анна"
    assert (await official(box, "users", {}, 7, 1)).get_status_code() == 400
    assert (await official(box, "user_status", 19, "busy")).get_response()["success"]
    assert (await official(box, "user_status", 19, "dnd")).get_status_code() == 400
    found = (await official(box, "telephony_manager", "+375 29 625-40-70", True, True)).get_response()
    assert (found["manager"]["id"], found["manager"]["code"], found["customer"]["id"]) == (19, "150", 501)
    assert "manager" not in (await official(box, "telephony_manager", "+375296254070", True, False)).get_response()
    box.managers.add("+375290000001", 90, "190", "Юлия")
    box.managers.ids_as_text = True
    added = (await official(box, "telephony_manager", "+375290000001", True, True)).get_response()
    assert (added["manager"]["id"], added["manager"]["code"], added["customer"]["firstName"]) == ("90", "190", "Юлия")
    box.managers.status = 500
    assert (await official(box, "telephony_manager", "+375290000001", True, True)).get_status_code() == 500
    box.managers.status = 200
    assert (await official(box, "telephony_manager", "", True, True)).get_status_code() == 400
    assert box.managers.asked[0] == "+375 29 625-40-70"
    assert "newCustomerLink" in (await official(box, "telephony_manager", "+375290000000", True, False)).get_response()["links"]
    assert (await official(box, "sites")).get_response()["sites"]["main-shop"]["code"] == "main-shop"
    assert (await official(box, "customers", {"name": "мороз"}, 20, 1)).get_response()["customers"][0]["id"] == 501


GOOD = {
    "code": CODE, "integrationCode": CODE, "name": "x", "baseUrl": "https://pbx.example", "clientId": "c",
    "integrations": {"telephony": {"makeCallUrl": "https://pbx.example/call", "additionalCodes": [{"userId": "19", "code": "150"}]}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"integrationCode": "other"}, "code"), ({"integrationCode": ""}, "integrationCode"), ({"name": ""}, "name"), ({"baseUrl": ""}, "baseUrl"),
        ({"logo": "https://pbx.example/logo.png"}, "logo"), ({"accountUrl": "javascript:alert(1)"}, "accountUrl"), ({"active": "yes"}, "active"),
        ({"clientId": ""}, "clientId"), ({"makeCallUrl": "https://pbx.example"}, "makeCallUrl"), ({"allowEdit": False}, "allowEdit"),
        ({"actions": {"activity": "https://pbx.example/a"}}, "actions"), ({"integrations": []}, "integrations"),
        ({"integrations": {"telephony": {"makeCallUrl": "/call"}}}, "integrations.telephony.makeCallUrl"),
        ({"integrations": {"telephony": {"additionalCodes": [{"userId": 19, "code": 150}]}}}, "integrations.telephony.additionalCodes"),
        ({"integrations": {"telephony": {"additionalCodes": {"19": "150"}}}}, "integrations.telephony.additionalCodes"),
        ({"integrations": {"telephony": {"externalPhones": [{"externalPhone": "7"}]}}}, "integrations.telephony.externalPhones"),
        ({"integrations": {"telephony": {"hangupEventSupported": 1}}}, "integrations.telephony.hangupEventSupported"),
        ({"integrations": {"telephony": {"nope": 1}}}, "integrations.telephony.nope"),
    ],
    ids=str,
)  # fmt: skip
async def test_the_official_client_is_refused_a_wrong_entry(change: dict[str, Any], field: str, box: RetailCrmSandbox) -> None:
    answer = await official(box, "integration_module_edit", {**GOOD, **change})
    assert answer.get_status_code() == 400
    assert field in answer.get_response()["errors"]
    assert box.account.modules == {}


async def test_telephony_may_need_a_registered_module_first(house: Office) -> None:
    house.box.switches.module_required = True
    event = {"phone": "79995550101", "type": "in", "codes": ["150"]}
    assert (await official(house.box, "telephony_call_event", event)).get_response()["errorMsg"] == "Telephony not enabled"
    await house.settings(user_extensions={"19": "150"})
    await house.registrations.register(NUMBER, "retailcrm")
    assert (await official(house.box, "telephony_call_event", event)).get_response() == {"success": True}
    assert (await official(house.box, "telephony_call_event", {**event, "codes": ["999"]})).get_response()["notExistCodes"] == ["999"]
