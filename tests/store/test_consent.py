"""An administrator's way to a CRM's consent page and back: once, in ten minutes, in one browser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest

from adapters.base import Connection
from adapters.retailcrm.deliver import RetailCrm
from daemon.errors import VochidError
from daemon.model.crm import Registered
from daemon.security.vault import Vault
from daemon.store.audit import Actor, AuditLog
from daemon.store.consents import Consents
from daemon.store.integration_state import IntegrationStates
from daemon.store.pool import Database
from daemon.wiring.consent import Consenting
from tests.rig import NUMBER, rig

ADMIN = Actor("anna", "admin", "127.0.0.1")
SETTINGS = {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}


class Consentable(RetailCrm):
    """An adapter that is connected by consent, as the house sees it."""

    def consent_url(self, settings: Any, state: str, callback_url: str) -> str:
        if settings.mode == "observe":
            raise ValueError("observe lacks a client_id")
        return f"https://crm.example/oauth?state={state}&redirect_uri={callback_url}"

    async def consented(self, connection: Connection, answer: Mapping[str, str], callback_url: str) -> Registered:
        if answer.get("code") != "good":
            return Registered(False, f"the CRM said {answer.get('error')}")
        await connection.tokens.save({"code": answer["code"], "callback": callback_url})
        return Registered(True)


@pytest.fixture
def vault() -> Vault:
    return Vault(["k" * 40])


async def test_the_way_there_and_back_works_once_and_only_in_the_browser_that_was_sent(db: Database, vault: Vault) -> None:
    async with rig(db, Consentable(), SETTINGS, run=False) as house:
        cured: list[str] = []
        consenting = Consenting(house.crm, Consents(db, vault), IntegrationStates(db), AuditLog(db), "https://vochid.example", cured.append)
        begun = await consenting.begin(NUMBER, "retailcrm", ADMIN)
        assert begun.url.endswith("redirect_uri=https://vochid.example/retailcrm/callback")
        state = begun.url.partition("state=")[2].partition("&")[0]
        for browser in (None, "another browser's cookie"):
            with pytest.raises(VochidError, match="begin again"):
                await consenting.finish("retailcrm", state, browser, {"code": "good"})
        with pytest.raises(VochidError, match="begin again"):
            await consenting.finish("amocrm", state, begun.browser, {"code": "good"})
        done = await asyncio.gather(*(consenting.finish("retailcrm", state, begun.browser, {"code": "good"}) for _ in range(8)), return_exceptions=True)
        [consented] = [each for each in done if not isinstance(each, BaseException)]
        assert (consented.enterprise, consented.told.ok, cured) == (NUMBER, True, [NUMBER])
        kept = dict(await house.crm.tokens(NUMBER, "retailcrm").load() or {})
        assert kept.pop("saved_at") <= time.time()
        assert kept == {"code": "good", "callback": "https://vochid.example/retailcrm/callback"}
        async with db.tenant(NUMBER) as connection:
            assert await connection.fetchval("select count(*) from consent_states") == 0
            assert await connection.fetchval("select status from integration_logs where event_type = 'consent'") == "success"


async def test_a_refusal_at_the_crm_is_told_and_logged_and_stores_nothing(db: Database, vault: Vault) -> None:
    async with rig(db, Consentable(), SETTINGS, run=False) as house:
        consenting = Consenting(house.crm, Consents(db, vault), IntegrationStates(db), AuditLog(db), "https://vochid.example", lambda _: None)
        begun = await consenting.begin(NUMBER, "retailcrm", ADMIN)
        state = begun.url.partition("state=")[2].partition("&")[0]
        done = await consenting.finish("retailcrm", state, begun.browser, {"error": "access_denied"})
        assert (done.told.ok, done.told.detail) == (False, "the CRM said access_denied")
        assert await house.crm.tokens(NUMBER, "retailcrm").load() is None
        async with db.tenant(NUMBER) as connection:
            assert await connection.fetchval("select error_message from integration_logs where event_type = 'consent'") == "the CRM said access_denied"


async def test_settings_that_do_not_suffice_are_said_before_anybody_is_sent(db: Database, vault: Vault) -> None:
    async with rig(db, Consentable(), {**SETTINGS, "mode": "observe"}, run=False) as house:
        consenting = Consenting(house.crm, Consents(db, vault), IntegrationStates(db), AuditLog(db), "https://vochid.example", lambda _: None)
        with pytest.raises(VochidError, match="observe lacks a client_id"):
            await consenting.begin(NUMBER, "retailcrm", ADMIN)


@pytest.mark.parametrize("state", ["", "short", "x" * 40, "x" * 5_000, "\0" * 20, "состояние-и-ещё"])
async def test_what_a_stranger_sends_as_a_state_opens_nothing(db: Database, vault: Vault, state: str) -> None:
    assert await Consents(db, vault).take("amocrm", state, None) is None


async def test_a_state_of_ten_minutes_is_over_then_and_one_without_a_browser_needs_none(db: Database, vault: Vault, database_url: str) -> None:
    async with rig(db, Consentable(), SETTINGS, run=False):
        consents = Consents(db, vault)
        late, bare = await consents.begin(NUMBER, "retailcrm", ADMIN), await consents.begin(NUMBER, "retailcrm", ADMIN, with_browser=False)
        returned = await consents.take("retailcrm", bare.state, None)
        assert returned is not None
        assert (returned.enterprise, returned.actor, returned.role) == (NUMBER, "anna", "admin")
        owner = await asyncpg.connect(database_url)
        await owner.execute("update consent_states set expires_at = now() - interval '1 second'")
        await owner.close()
        assert await consents.take("retailcrm", late.state, late.browser) is None
