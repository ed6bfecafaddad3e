"""A token's whole life on a fake clock: consent, expiry, a race for the renewal, a crash in the middle, revocation, silent months."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from adapters.amocrm.deliver import AmoCrm
from adapters.amocrm.oauth import claims_of, read_tokens, renew_at
from adapters.http import Response
from daemon.model.crm import Registered
from daemon.model.signal import Ended
from daemon.security.egress import EgressPolicy
from daemon.security.vault import Vault
from daemon.store.amocrm_tokens import AmoCrmTokens
from daemon.store.pool import Database
from daemon.wiring.crm import Crm, GuardedSessions
from daemon.wiring.token_keeper import TokenKeeper
from lab.crm.amocrm import AmoCrmSandbox
from lab.crm.amocrm_oauth import ACCESS_S, REFRESH_S
from tests.patience import PATIENCE_S
from tests.rig import NUMBER, Rig, a_call, rig

CALLBACK = "https://pbx.example/amocrm/callback"
HOUR, DAY = 3_600.0, 86_400.0


class Clock:
    """Goes only when it is told."""

    def __init__(self) -> None:
        self.at = time.time()

    def __call__(self) -> float:
        return self.at


@pytest.fixture
async def box() -> AsyncIterator[AmoCrmSandbox]:
    sandbox = AmoCrmSandbox(Clock())
    sandbox.switches.rate_limited = False  # each daemon keeps the limit for itself
    await sandbox.start()
    sandbox.oauth.integration.redirect_uri = CALLBACK
    sandbox.account.contact("Восток", "+375296254070")
    yield sandbox
    await sandbox.stop()


def settings(box: AmoCrmSandbox) -> dict[str, Any]:
    made = box.oauth.integration
    return {"base_url": box.url, "client_id": made.client_id, "client_secret": made.client_secret, "oauth_url": f"{box.url}/oauth"}


async def consent(r: Rig, box: AmoCrmSandbox, **more: str) -> Registered:
    """The browser went to the consent page and came back; `more` overrides what it brings."""
    adapter, stored, connect = r.crm.reach(NUMBER, "amocrm")
    assert isinstance(adapter, AmoCrm)
    page = urlsplit(adapter.consent_url(stored, "the-state", CALLBACK))  # type: ignore[arg-type]
    state = dict(parse_qsl(page.query))["state"]
    answer = dict(parse_qsl(urlsplit(box.oauth.way_back(state, **more)).query))
    return await adapter.consented(connect(PATIENCE_S), answer, CALLBACK)


async def tell(r: Rig) -> list[str]:
    await r.record(a_call(), Ended(()))
    return [d["state"] for d in await r.settled()]


def keeper(r: Rig, box: AmoCrmSandbox) -> TokenKeeper:
    return TokenKeeper(r.tenants, r.crm, r.outbox, r.dispatcher, box.clock)


async def test_consent_stores_sealed_tokens_and_only_what_fits_is_exchanged(box: AmoCrmSandbox, db: Database) -> None:
    async with rig(db, AmoCrm(), settings(box)) as r:
        wrongs: list[tuple[dict[str, str], str]] = [({"referer": "evil.example"}, "evil.example"), ({"client_id": "another"}, "client_id")]
        wrongs += [({"error": "access_denied"}, "not given"), ({"code": ""}, "no code")]
        for wrong, words in wrongs:
            refused = await consent(r, box, **wrong)
            assert not refused.ok
            assert words in refused.detail
        assert "POST /oauth2/access_token" not in box.requests
        assert not (await consent(r, box, code="def502-wrong")).ok
        (check,) = await r.crm.check(NUMBER, "amocrm", None)
        assert (check.name, check.ok) == ("connected", True)

        done = await consent(r, box)
        assert done.ok, done.detail
        stored = await r.crm.tokens(NUMBER, "amocrm").load()
        assert stored is not None
        assert stored["raw"]["account_id"] == box.account.id
        assert stored["expires_at"] == pytest.approx(box.clock() + ACCESS_S, abs=2)
        async with db.tenant(NUMBER) as connection:
            kept = str(await connection.fetchrow("select * from amocrm_tokens"))
        assert stored["access_token"] not in kept
        assert stored["refresh_token"] not in kept
        async with db.tenant("0400") as connection:
            assert await connection.fetch("select * from amocrm_tokens") == []
        assert await tell(r) == ["delivered"]
        assert all(check.ok for check in await r.crm.check(NUMBER, "amocrm", None))
        state = await keeper(r, box).state(NUMBER, "amocrm")
        assert state is not None
        assert state.is_connected
        await r.tenants.remove_integration(NUMBER, "amocrm")
        async with db.tenant(NUMBER) as connection:
            assert await connection.fetch("select * from amocrm_tokens") == []


async def test_a_day_later_the_token_is_renewed_once_although_two_daemons_need_it(box: AmoCrmSandbox, db: Database, database_url: str) -> None:
    async with rig(db, AmoCrm(), settings(box)) as r:
        assert (await consent(r, box)).ok
        before = box.oauth.tokens.exchanges
        sessions, other = GuardedSessions(EgressPolicy(["127.0.0.0/8"])), await Database.open(database_url)
        another = Crm(r.tenants, {"amocrm": AmoCrm()}, sessions, other, Vault(["k" * 40]))  # a daemon of its own: they share the database
        try:
            box.clock.at += ACCESS_S + 60  # type: ignore[attr-defined]
            states, *checks = await asyncio.gather(tell(r), *(another.check(NUMBER, "amocrm", None) for _ in range(3)))
        finally:
            await sessions.close()
            await other.close()
        assert states == ["delivered"]
        assert all(check.ok for found in checks for check in found)
        assert box.oauth.tokens.exchanges == before + 1
        assert len(box.calls.journal()) == 1
        async with db.tenant(NUMBER) as connection:
            logged = str(await connection.fetch("select * from integration_logs"))
        assert "def50200" not in logged
        assert box.oauth.integration.client_secret not in logged


async def test_tokens_are_renewed_ahead_of_their_end_so_that_silent_months_lose_nothing(box: AmoCrmSandbox, db: Database) -> None:
    async with rig(db, AmoCrm(), settings(box)) as r:
        assert (await consent(r, box)).ok
        watch = keeper(r, box)
        await watch.look()
        assert box.oauth.tokens.exchanges == 1
        for _ in range(10):
            box.clock.at += 20 * HOUR  # type: ignore[attr-defined]
            await watch.look()
        assert box.oauth.tokens.exchanges == 11
        assert await tell(r) == ["delivered"]
        assert "401 Unauthorized" not in box.refusals

        box.clock.at += REFRESH_S + DAY  # type: ignore[attr-defined]  # nobody looked for three months
        await watch.look()
        assert "connect again" in (await r.connection_is("needs_reauth"))["reason"]
        tried = box.oauth.tokens.exchanges, len(box.refusals)
        await watch.look()
        assert (box.oauth.tokens.exchanges, len(box.refusals)) == tried  # what was refused is not asked for again
        assert (await consent(r, box)).ok
        await watch.look()
        await r.connection_is("ok")
        assert (await tell(r))[-1] == "delivered"


async def test_a_crash_between_answer_and_store_leaves_hours_to_connect_again(box: AmoCrmSandbox, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(db, AmoCrm(), settings(box)) as r:
        assert (await consent(r, box)).ok
        watch = keeper(r, box)
        save, first = AmoCrmTokens.save, (await r.crm.tokens(NUMBER, "amocrm").load() or {})["access_token"]

        async def dies(self: AmoCrmTokens, tokens: Mapping[str, Any]) -> None:
            if tokens["access_token"] != first:
                raise KeyboardInterrupt("the power fails")
            await save(self, tokens)

        monkeypatch.setattr(AmoCrmTokens, "save", dies)
        box.clock.at += 19 * HOUR  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            await watch.look()
        monkeypatch.setattr(AmoCrmTokens, "save", save)
        await watch.look()  # the next process
        reason = (await r.connection_is("needs_reauth"))["reason"]
        assert "its answer was lost" in reason
        assert await tell(r) == ["delivered"]  # the former token has hours left
        assert (await consent(r, box)).ok
        await watch.look()
        await r.connection_is("ok")


async def test_a_lost_answer_and_an_outage_of_the_token_endpoint_need_no_person(box: AmoCrmSandbox, db: Database) -> None:
    async with rig(db, AmoCrm(), settings(box)) as r:
        assert (await consent(r, box)).ok
        watch = keeper(r, box)
        box.clock.at += 19 * HOUR  # type: ignore[attr-defined]
        for fault in ("502", "reset", "429"):
            box.switches.fail_next.append(fault)
            await watch.look()
        assert (await r.outbox.connection_states(NUMBER)).get("amocrm", {"state": "ok"})["state"] == "ok"
        await watch.look()
        assert box.oauth.tokens.exchanges == 2
        assert await tell(r) == ["delivered"]


async def test_revoked_access_is_a_state_that_loses_nothing_and_ends_with_a_new_consent(box: AmoCrmSandbox, db: Database) -> None:
    async with rig(db, AmoCrm(), settings(box)) as r:
        assert (await consent(r, box)).ok
        box.oauth.revoke()
        await r.record(a_call(), Ended(()))
        assert "revoked" in (await r.connection_is("needs_reauth"))["reason"]
        assert {d["state"] for d in await r.outbox.list(NUMBER)} <= {"waiting", "sending"}
        state = await keeper(r, box).state(NUMBER, "amocrm")
        assert state is not None
        assert "connect again" in state.refused
        (bad,) = [check for check in await r.crm.check(NUMBER, "amocrm", None) if not check.ok]
        assert bad.field == "client_id"
        assert (await consent(r, box)).ok
        r.dispatcher.settings_changed({NUMBER})
        assert {d["state"] for d in await r.settled()} == {"delivered"}


async def test_a_consent_that_another_daemon_took_thaws_this_ones_lanes(box: AmoCrmSandbox, db: Database) -> None:
    async with rig(db, AmoCrm(), settings(box)) as r:
        assert (await consent(r, box)).ok
        watch = keeper(r, box)
        await watch.look()
        box.oauth.revoke()
        await r.record(a_call(), Ended(()))
        await r.connection_is("needs_reauth")
        assert (await consent(r, box)).ok
        await watch.look()
        assert {d["state"] for d in await r.settled()} == {"delivered"}


def test_the_time_of_renewal_comes_from_the_token_the_answer_or_its_date() -> None:
    body = '{"access_token": "x", "refresh_token": "y", "expires_in": 86400%s}'
    by_server = read_tokens(Response(200, {}, body % ', "server_time": 1000'), "a")
    by_date = read_tokens(Response(200, {"date": "Thu, 01 Jan 1970 00:16:40 GMT"}, body % ""), "a")
    assert by_server is not None
    assert by_date is not None
    assert by_server["expires_at"] == by_date["expires_at"] == 87_400
    assert renew_at(by_server) == 87_400 - 21_600
    assert renew_at({**by_server, "expires_at": None}) is None
    assert renew_at({**by_server, "refused": "x"}) is None
    assert read_tokens(Response(200, {}, "<html>"), "a") is None
    assert read_tokens(Response(200, {}, '{"access_token": 5, "refresh_token": "y"}'), "a") is None
    for text in ("", "a.b", "a.!.c", "a.e30.c", "a.WzFd.c", "ё.ё.ё"):
        assert claims_of(text) == {}
