"""The conformance suite: what every adapter must do, whatever its CRM is like.

It runs on RetailCRM, on amoCRM and on a deliberately stateful fake.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from adapters.amocrm.deliver import AmoCrm
from adapters.base import Adapter, CanRefresh, Tenant
from adapters.bitrix24.deliver import Bitrix24
from adapters.registry import adapters
from adapters.retailcrm.deliver import RetailCrm
from adapters.tickets.deliver import Tickets
from adapters.tickets.limits import TOLD
from daemon.model.call import Direction, Result
from daemon.model.delivery import Kind
from daemon.model.signal import CallChange, Ended, Ringing
from daemon.store.pool import Database
from lab.crm.amocrm import AmoCrmSandbox
from lab.crm.bitrix24 import Bitrix24Sandbox
from lab.crm.retailcrm import RetailCrmSandbox
from lab.crm.tickets import TicketSandbox
from tests.fakes.stateful import Stateful, StatefulCrm
from tests.patience import PATIENCE_S
from tests.rig import NUMBER, a_call, rig, ringing


@dataclass
class Bench:
    """One adapter with its CRM."""

    adapter: Adapter
    settings: dict[str, Any]
    secret: str
    journal: Callable[[], list[str]]  # what the CRM keeps, one item per entry
    lose_answer: Callable[[], None]  # the CRM takes the next journal and its answer gets lost
    break_credentials: Callable[[], None]
    mend_credentials: Callable[[], dict[str, Any]]
    has_popups: bool = True
    told: frozenset[Kind] = frozenset(Kind)  # the kinds that go out; others are written down here first


@pytest.fixture(params=["retailcrm", "bitrix24", "amocrm", "tickets", "stateful"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "retailcrm":
        box = RetailCrmSandbox(codes=("150", "151"))
        url = await box.start()
        real_key = box.api_key

        def change_key() -> None:
            box.api_key = "another-key-another-key"

        yield Bench(
            RetailCrm(), {"domain": url, "api_key": real_key}, real_key, lambda: list(box.journal),
            lambda: box.switches.fail_next.append("done-then-silence"), change_key, lambda: {"domain": url, "api_key": box.api_key},
        )  # fmt: skip
        await box.stop()
    elif request.param == "amocrm":
        amo = AmoCrmSandbox()
        address = await amo.start()
        amo.account.contact("Восток", "+375 (29) 625-40-70")
        token = amo.oauth.long_lived()

        def settings_with(bearer: str) -> dict[str, Any]:
            return {"base_url": address, "long_lived_token": bearer, "user_extensions": {"7031001": "150", "7031002": "151"}}

        yield Bench(
            AmoCrm(), settings_with(token), token, amo.calls.journal, lambda: amo.switches.fail_next.append("done-then-silence"), amo.oauth.revoke,
            lambda: settings_with(amo.oauth.long_lived()),
        )  # fmt: skip
        await amo.stop()
    elif request.param == "tickets":
        desk = TicketSandbox("crm")
        url, real_token = await desk.start(), desk.token

        def change_token() -> None:
            desk.token = "another-token-another-token"

        def settings() -> dict[str, Any]:
            return {"role": "tma", "remote_url": url, "deploy_token": desk.token, "rules": [{"do": "ticket"}]}

        yield Bench(
            Tickets(), settings(), real_token, lambda: desk.messages, lambda: desk.switches.fail_next.append("done-then-silence"), change_token, settings,
            has_popups=False, told=frozenset(TOLD),
        )  # fmt: skip
        await desk.stop()
    elif request.param == "bitrix24":
        portal = Bitrix24Sandbox()
        await portal.start()

        def give_another_key() -> None:
            portal.webhook_code = "another0key"

        yield Bench(
            Bitrix24(), portal.settings(), portal.webhook_code, lambda: [call.id for call in portal.finished()],
            lambda: portal.switches.fail_next.append("done-then-silence"), give_another_key, portal.settings,
        )  # fmt: skip
        await portal.stop()
    else:
        crm = StatefulCrm()
        url = await crm.start()

        def swallow() -> None:
            crm.swallow_next_answer = True

        def expire() -> None:
            crm.token, crm.may_refresh = "second", False

        yield Bench(
            Stateful(), {"url": url}, "no-secret-at-all", lambda: crm.finished, swallow, expire,
            lambda: {"url": url, "first_token": "second"},
        )  # fmt: skip
        await crm.stop()


TENANT = Tenant(NUMBER, "Июнь", "Europe/Minsk", "BY")


def parsed(bench: Bench) -> Any:
    return bench.adapter.settings.model_validate(bench.settings)


def test_every_registered_adapter_has_a_bench_here() -> None:
    assert set(adapters()) == {"retailcrm", "bitrix24", "amocrm", "tickets"}


def test_planning_is_pure_and_gives_the_same_keys_for_the_same_change(bench: Bench) -> None:
    change = CallChange(a_call(), (Ringing(("150",)), Ended(("150",))), 5.0)
    first, second = (bench.adapter.plan(change, parsed(bench), TENANT) for _ in range(2))
    assert list(first) == list(second)
    assert len({item.key for item in first}) == len(first)
    json.dumps([dict(item.payload) for item in first])


def test_internal_calls_are_never_told(bench: Bench) -> None:
    change = CallChange(a_call(direction=Direction.INTERNAL), (Ringing(("150",)), Ended(("150",))), 5.0)
    assert not bench.adapter.plan(change, parsed(bench), TENANT)


def test_every_external_call_is_journaled_once_however_it_ended(bench: Bench) -> None:
    for result in Result:
        call = a_call(result=result, rang=(), answered_by=None)
        planned = [item for item in bench.adapter.plan(CallChange(call, (Ended(()),), 5.0), parsed(bench), TENANT) if item.kind is Kind.JOURNAL]
        assert len(planned) == 1


def test_popups_expire_and_journals_do_not(bench: Bench) -> None:
    planned = bench.adapter.plan(CallChange(a_call(), (Ringing(("150",)), Ended(("150",))), 5.0), parsed(bench), TENANT)
    assert all((item.expires_s is not None) == (item.kind is not Kind.JOURNAL) for item in planned)


def test_an_account_name_holds_no_secret(bench: Bench) -> None:
    assert bench.secret not in bench.adapter.account(parsed(bench))


async def test_a_call_arrives_once_and_in_order(bench: Bench, db: Database) -> None:
    async with rig(db, bench.adapter, bench.settings) as r:
        await r.live_call(a_call())
        deliveries = await r.settled()
        assert {d["state"] for d in deliveries} == {"delivered"}
        assert [d["kind"] for d in deliveries if d["kind"] in ("popup", "journal")] == (["popup", "journal"] if bench.has_popups else ["journal"])
        assert len(bench.journal()) == 1


async def test_a_call_that_nobody_heard_ring_is_journaled_too(bench: Bench, db: Database) -> None:
    async with rig(db, bench.adapter, bench.settings) as r:
        await r.record(a_call(rang=(), answered_by=None, result=Result.UNAVAILABLE), Ended(()))
        assert {d["state"] for d in await r.settled()} == {"delivered"}
        assert len(bench.journal()) == 1


async def test_a_lost_answer_makes_no_second_entry(bench: Bench, db: Database) -> None:
    async with rig(db, bench.adapter, bench.settings) as r:
        call = a_call()
        await r.record(ringing(call), Ringing(("150",)))
        await r.settled()
        bench.lose_answer()
        r.allow(deadline_s=0.5)
        await r.record(call, Ended(()))
        await r.deliveries(lambda _: bench.journal(), hurry=True)  # a try for which there was no time even to ask is made again
        r.allow(PATIENCE_S)
        told = (await r.settled(hurry=True))[-1]
        assert (told["state"], told["attempts"] > 1) == ("delivered", True)
        assert len(bench.journal()) == 1


async def test_refused_credentials_freeze_the_lanes_and_lose_nothing(bench: Bench, db: Database) -> None:
    async with rig(db, bench.adapter, bench.settings) as r:
        bench.break_credentials()
        await r.record(a_call(), Ended(()))
        await r.until(lambda: "needs_reauth" in [state[2] for state in r.states])
        await r.record(a_call(), Ended(()))
        await r.at_rest()  # an attempt that was under way when the refusal came ends first
        told = [d for d in await r.outbox.list(NUMBER) if d["kind"] in bench.told]
        assert {d["state"] for d in told} == {"waiting"}
        assert all(d["attempts"] == 0 for d in told)
        assert (await r.outbox.connection_states(NUMBER))[bench.adapter.name]["state"] == "needs_reauth"
        await r.tenants.put_integration(NUMBER, bench.adapter.name, bench.mend_credentials())
        assert {d["state"] for d in await r.settled()} == {"delivered"}
        assert len(bench.journal()) == 2
        await r.connection_is("ok")


async def test_mode_observe_computes_and_logs_everything_and_sends_nothing(bench: Bench, db: Database) -> None:
    async with rig(db, bench.adapter, {**bench.settings, "mode": "observe"}) as r:
        await r.live_call(a_call())
        assert {d["state"] for d in await r.settled()} == {"observed"}
        assert bench.journal() == []
        async with db.tenant(NUMBER) as connection:
            logged = await connection.fetch("select * from integration_logs")
        assert logged
        assert all(row["response_data"]["observed"] for row in logged)


async def test_no_secret_reaches_the_log_table(bench: Bench, db: Database) -> None:
    async with rig(db, bench.adapter, bench.settings) as r:
        await r.live_call(a_call())
        await r.settled()
        async with db.tenant(NUMBER) as connection:
            text = str(await connection.fetch("select * from integration_logs"))
        assert bench.secret not in text


async def test_the_connection_test_names_what_is_wrong(bench: Bench, db: Database) -> None:
    async with rig(db, bench.adapter, bench.settings) as r:
        assert all(check.ok for check in await r.crm.check(NUMBER, bench.adapter.name, None))
        bench.break_credentials()
        bad = [check for check in await r.crm.check(NUMBER, bench.adapter.name, None) if not check.ok]
        assert bad
        assert bad[0].field in bench.adapter.settings.model_fields


async def test_an_unreachable_crm_is_retried_and_the_call_is_not_lost(bench: Bench, db: Database) -> None:
    moved = {key: re.sub(r"^http://127\.0\.0\.1:\d+", "http://127.0.0.1:9", value) for key, value in bench.settings.items() if isinstance(value, str)}
    unreachable = {**bench.settings, **moved}
    async with rig(db, bench.adapter, unreachable) as r:
        await r.record(a_call(), Ended(()))
        await r.deliveries(lambda found: found[0]["last_error"] and found[0]["state"] == "waiting")
        await r.tenants.put_integration(NUMBER, bench.adapter.name, bench.settings)
        assert {d["state"] for d in await r.settled(hurry=True)} == {"delivered"}
        assert len(bench.journal()) == 1


async def test_a_token_that_expires_halfway_is_renewed_without_a_person(db: Database) -> None:
    crm = StatefulCrm()
    url = await crm.start()
    try:
        assert isinstance(Stateful(), CanRefresh)
        async with rig(db, Stateful(), {"url": url}) as r:
            call = a_call()
            await r.record(ringing(call), Ringing(("150",)))
            await r.settled()
            crm.expire_after = crm._requests
            await r.record(call, Ended(()))
            assert [d["state"] for d in await r.settled()] == ["delivered", "delivered"]
            assert crm.refreshes == 1
            assert crm.finished == ["crm-1"]
            async with db.tenant(NUMBER) as connection:
                assert crm.token not in str(await connection.fetchval("select tokens from connections"))
    finally:
        await crm.stop()


async def test_what_the_crm_answered_reaches_the_lanes_next_delivery(db: Database) -> None:
    crm = StatefulCrm()
    url = await crm.start()
    try:
        async with rig(db, Stateful(), {"url": url}) as r:
            one, two = a_call(), a_call()
            await r.record(ringing(one), Ringing(("150",)))
            await r.record(ringing(two), Ringing(("151",)))
            await r.record(two, Ended(()))
            await r.record(one, Ended(()))
            await r.settled()
            assert sorted(crm.finished) == ["crm-1", "crm-2"]
            assert len(crm.registered) == 2
    finally:
        await crm.stop()
