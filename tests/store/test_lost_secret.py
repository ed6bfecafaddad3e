"""A secret of an integration that cannot be read: its calls wait for it, and nothing is sent with anything else in its place."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from adapters.registry import adapters
from adapters.retailcrm.deliver import RetailCrm
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.enterprises import StoredEnterprise
from daemon.store.pool import Database
from daemon.tenants.documents import Documents
from lab.crm.retailcrm import RetailCrmSandbox
from lab.office import PHONES
from tests.rig import NUMBER, a_call, rig

CONNECTED: dict[str, dict[str, Any]] = {
    "retailcrm": {"domain": "https://example.retailcrm.ru", "api_key": "key-0123456789"},
    "bitrix24": {"webhook_url": "https://example.bitrix24.ru/rest/1/abcdef/", "application_token": "token-0123456789"},
    "amocrm": {"base_url": "https://example.amocrm.ru", "long_lived_token": "token-0123456789"},
    "tickets": {"role": "crm", "remote_url": "https://tma.example", "deploy_token": "token-0123456789"},
}


@pytest.mark.parametrize("name", adapters())
def test_every_adapters_settings_are_known_but_for_the_secret_that_is_lost(name: str) -> None:
    kinds = {kind: adapter.settings for kind, adapter in adapters().items()}
    ours, others = (Documents(Vault([key * 40]), EgressPolicy(), kinds) for key in "ab")
    pbx = {"name": "main", "host": "127.0.0.1"}
    sealed = others.merged({"number": NUMBER, "name": "Июнь", "pbxs": [pbx], "integrations": {name: {**CONNECTED[name], "send": {"popup_in": False}}}}, None)
    settings = {key: value for key, value in sealed.items() if key not in ("number", "name", "internal_phones", "integrations", "secret")}
    stored = StoredEnterprise(NUMBER, "Июнь", settings, sealed["integrations"], [])
    tenancy = ours.parse(stored)
    assert tenancy.integrations == {}, "it is not reached"
    assert tenancy.locked[name].send.popup_in is False
    assert any("set it anew" in problem for problem in tenancy.problems)
    assert others.parse(stored).locked == {}


async def test_calls_wait_for_an_integration_whose_secret_is_lost_and_are_told_when_it_is_set_anew(db: Database) -> None:
    crm, call = RetailCrmSandbox(codes=PHONES), a_call()
    settings = {"domain": await crm.start(), "api_key": crm.api_key}
    owner = await asyncpg.connect(db.url)
    try:
        async with rig(db, RetailCrm(), settings) as r:
            lost = json.dumps({"sealed": "v1:lost"})
            await owner.execute("update enterprises set integrations_config = jsonb_set(integrations_config, '{retailcrm,api_key}', $1)", lost)
            await r.tenants.refresh()
            await r.live_call(call)
            await r.live_call(replace(call, id=a_call().id, linkedid="2.1"))
            assert crm.journal == {}
            waiting = {(d["kind"], d["state"], d["attempts"]) for d in await r.outbox.list(NUMBER)}
            assert ("journal", "waiting", 0) in waiting, "no attempt was made with anything else"
            document, _ = await r.tenants.document(NUMBER)
            await r.tenants.put(NUMBER, {**document, "integrations": {"retailcrm": settings}})
            await r.until(lambda: len(crm.journal) == 2)
    finally:
        await owner.close()
        await crm.stop()
