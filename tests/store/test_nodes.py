"""Several daemons in the database: who lives, who reads what, who does what was asked, who has which part of an account's limits."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from adapters.retailcrm.deliver import RetailCrm
from daemon.calls.tracer import Trace
from daemon.delivery.budgets import Budgets
from daemon.model.delivery import Rate
from daemon.nodes.asks import Asks, NoAnswer, NotTaken
from daemon.nodes.post import MAX_BYTES, Post
from daemon.store import leases as leases_module
from daemon.store.leases import LeaseLost, Leases
from daemon.store.pool import Database
from daemon.supervisor import Supervisor
from tests.patience import PATIENCE_S
from tests.rig import NUMBER, WITHIN_S, rig

PBXS = sorted((f"{n:04}", "main") for n in range(10))
SETTINGS = {"domain": "http://127.0.0.1:9", "api_key": "key-0123456789"}


def daemon_called(db: Database, owner: str) -> Leases:
    """One that lives until a test lets it die."""
    return Leases(db, owner, ttl_s=PATIENCE_S)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.01)


async def expire(database_url: str, owner: str, ago_s: float = 0.001) -> None:
    """Lets a process be dead for so long."""
    connection = await asyncpg.connect(database_url)
    try:
        for table in ("leases", "nodes", "budget_shares"):
            await connection.execute(f"update {table} set expires_at = now() - make_interval(secs => $2) where owner = $1", owner, ago_s)
    finally:
        await connection.close()


async def test_daemons_share_the_pbxs_and_the_living_inherit_from_the_dead(db: Database, database_url: str) -> None:
    one, two, three = (daemon_called(db, f"{name}-1") for name in ("one", "two", "three"))
    await one.beat()
    assert len(await one.take_part(PBXS)) == 10, "who is alone reads all"
    await two.beat()
    assert [node.name for node in two.nodes] == ["one", "two"]
    assert await two.take_part(PBXS) == {}, "what is read is not taken"
    for key in PBXS[:5]:
        one.begin(key, 1)
        await one.drop(key)
    assert sorted(await two.take_part(PBXS)) == PBXS[:5]
    await three.beat()
    await expire(database_url, "two-1")
    taken = await three.take_part(PBXS)
    assert sorted(taken) == PBXS[:5]
    assert set(taken.values()) == {3}, "the epoch grows with every owner"
    await three.beat()
    assert three.read_by("one-1") == set(PBXS[5:])
    assert three.read_elsewhere("0009") == {"main"}
    assert await three.reader(("0009", "main")) == "one-1"
    assert await three.reader(("0000", "main")) is None, "oneself is nobody else"
    await one.drop_all()
    await three.beat()
    assert [node.owner for node in three.nodes] == ["three-1"]
    assert sorted(await three.take_part(PBXS)) == PBXS[5:], "handed over, at once"
    await one.beat()
    assert [node.owner for node in three.nodes] == ["three-1"], "who left does not come back by a beat that was late"


async def test_who_inherits_counts_the_dead_no_more_and_gives_none_of_it_away(db: Database, database_url: str) -> None:
    one, two = daemon_called(db, "one-1"), daemon_called(db, "two-1")
    await one.beat()
    for key, epoch in (await one.take_part(PBXS)).items():
        one.begin(key, epoch)
    await two.beat()
    await expire(database_url, "one-1")
    assert len(await two.take_part(PBXS)) == 10
    assert [node.owner for node in two.nodes] == ["two-1"]


async def test_leases_whose_taking_was_never_heard_of_are_given_back_and_taken_again(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    one = daemon_called(db, "one-1")
    for key, epoch in (await one.take_part(PBXS[:3])).items():
        one.begin(key, epoch)
    await one.take_part(PBXS)  # the database did it, the answer did not arrive
    await one.beat()
    assert await one.take_part(PBXS) == {}
    monkeypatch.setattr("daemon.store.leases.ASTRAY_S", 0.0)
    await one.beat()
    assert sorted(await one.take_part(PBXS)) == PBXS[3:]
    assert one.held == set(PBXS[:3]), "those that it knew of stay"


async def test_nobody_takes_more_than_its_part_unless_nobody_else_does(db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "PATIENCE_S", 400.0)
    one, two = daemon_called(db, "one-1"), daemon_called(db, "two-1")
    await one.beat()
    await two.beat()
    assert len(await one.take_part(PBXS)) == 5
    assert len(await one.take_part(PBXS)) == 0
    assert len(await two.take_part(PBXS)) == 5
    await expire(database_url, "two-1", 200.0)
    await two.beat()  # it lives, and does not take them: it may not know of them
    assert len(await one.take_part(PBXS)) == 0
    await expire(database_url, "two-1", 600.0)
    await two.beat()
    assert len(await one.take_part(PBXS)) == 5


async def test_many_who_take_at_once_get_each_pbx_once(db: Database) -> None:
    daemons = [daemon_called(db, f"n{n}-1") for n in range(4)]
    for daemon in daemons:
        await daemon.beat()
    taken = await asyncio.gather(*(daemon.take_part(PBXS) for daemon in daemons))
    assert sorted(key for each in taken for key in each) == PBXS
    assert max(map(len, taken)) <= 3


async def test_a_lease_that_was_lost_is_noticed_and_nothing_is_written_under_it(db: Database, database_url: str) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        stale, heir, lost = r.leases, daemon_called(db, "heir-1"), list[bool]()
        stale.on_lost.append(lambda: lost.append(True))
        async with stale._beating:  # its next beat is late
            await expire(database_url, "test")
            assert await heir.take((NUMBER, "main"))
        trace = Trace(str(uuid.uuid4()), 1, 0, False, raw=b"", chunks=b"", changes=b"")
        for write in (lambda: r.recorder.note_seen(NUMBER, "main", "boot", time.time()), lambda: r.recorder.keep_traces(NUMBER, "main", [trace])):
            with pytest.raises(LeaseLost):
                await write()
        await stale.beat()
        assert lost == [True]
        assert not stale.holds((NUMBER, "main"))
        assert heir.holds((NUMBER, "main"))


async def test_a_write_waits_for_the_lease_that_is_changing_hands_and_is_refused(db: Database, database_url: str) -> None:
    async with rig(db, RetailCrm(), SETTINGS, run=False) as r:
        taker = await asyncpg.connect(database_url)
        try:
            async with taker.transaction():
                await taker.execute("update leases set owner = 'heir-1', epoch = epoch + 1")
                writing = asyncio.ensure_future(r.recorder.note_seen(NUMBER, "main", "stale", time.time()))
                async with asyncio.timeout(WITHIN_S):
                    while not await db.fetchval("select count(*) from pg_locks where not granted"):
                        await asyncio.sleep(0.01)
            with pytest.raises(LeaseLost):
                await writing
            assert await taker.fetchval("select count(*) from pbx_states") == 0
        finally:
            await taker.close()


# -- messages and asks -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_posts(db: Database) -> AsyncIterator[tuple[Post, Post]]:
    posts, supervisor = (Post(db, "one-1"), Post(db, "two-1")), Supervisor("test")
    for number, post in enumerate(posts):
        supervisor.serve(f"in {number}", post.listen)
        supervisor.serve(f"out {number}", post.send)
    try:
        for post in posts:
            await asyncio.wait_for(post.connected.wait(), WITHIN_S)
        yield posts
    finally:
        await supervisor.stop()


async def test_what_is_said_is_heard_by_the_others_or_by_whom_it_is_for_and_survives_nonsense(db: Database) -> None:
    heard: list[tuple[str, str, object]] = []
    async with two_posts(db) as (one, two):
        for name, post in (("one", one), ("two", two)):
            post.on("news", lambda sender, body, name=name: heard.append((name, sender, body["n"])))
        two.on("bad", lambda *_: 1 / 0)
        for nonsense in ("", "{", "[]", "null", '{"kind": "news"}', "[" * 5000):
            await db.fetch("select pg_notify('vochid_nodes', $1)", nonsense)
        one.say("bad", {})
        one.say("news", {"n": "x" * MAX_BYTES})
        one.say("news", {"n": 1}, to="three-1")
        one.say("news", {"n": 2}, key="same")
        one.say("news", {"n": 3}, key="same")
        two.say("news", {"n": 4}, to="one-1")
        one.has_others = lambda: False
        one.say("news", {"n": 5})
        await until(lambda: len(heard) >= 2)
    assert sorted(heard) == [("one", "two-1", 4), ("two", "one-1", 3)]


async def test_what_is_to_be_done_is_done_once_by_whom_it_is_for_or_surely_not(db: Database) -> None:
    done: list[str] = []
    async with two_posts(db) as (one, two):
        asks, other = Asks(db, one, taken_within_s=PATIENCE_S), Asks(db, two)
        may_end = asyncio.Event()

        async def do(body: object) -> dict[str, str]:
            done.append(str(body))
            return {"did": "it"}

        async def do_slowly(body: object) -> dict[str, str]:
            done.append("slowly")
            await may_end.wait()
            return {}

        other.do("thing", do)
        other.do("slow", do_slowly)
        assert await asks.have_done("two-1", "thing", {"n": 1}, PATIENCE_S) == {"did": "it"}
        while "slowly" not in done:  # where there was not even time to ask, it is asked again
            with pytest.raises(NoAnswer):
                await asks.have_done("two-1", "slow", {}, 0.5)
        may_end.set()
        asks._taken_within_s = 0.5
        for kind, to in (("thing", "nobody-1"), ("unknown", "two-1")):
            with pytest.raises(NotTaken):
                await asks.have_done(to, kind, {}, PATIENCE_S)
        assert (done[0], set(done[1:])) == ("{'n': 1}", {"slowly"})
        await asks.stop()
        await other.stop()


async def test_an_ask_is_taken_once_and_not_after_its_time_nor_after_it_was_taken_back(db: Database) -> None:
    async def put(lives_s: float) -> uuid.UUID:
        ask = uuid.uuid4()
        await db.fetch("select put_ask($1, $2, $3, 'test', '')", ask, {"n": 1}, lives_s)
        return ask

    ask = await put(30.0)
    taken = await asyncio.gather(*(db.fetchval("select take_ask($1)", ask) for _ in range(5)))
    assert sorted(taken, key=str) == [None] * 4 + [{"n": 1}] or [each for each in taken if each] == [{"n": 1}]
    assert await db.fetchval("select take_back_ask($1)", ask) is False
    back = await put(30.0)
    assert await db.fetchval("select take_back_ask($1)", back) is True
    assert await db.fetchval("select take_ask($1)", back) is None
    assert await db.fetchval("select take_ask($1)", await put(-1.0)) is None


# -- limits ----------------------------------------------------------------------------------------------------------------------------


async def shares(db: Database, owner: str, **wants: float) -> dict[str, float]:
    return {row["account"]: row["part"] for row in await db.fetch("select * from share_budgets($1, $2, $3)", owner, PATIENCE_S, wants)}


async def test_the_parts_of_an_account_are_never_more_than_the_whole_and_everybody_comes_to_its_even_part(db: Database, database_url: str) -> None:
    assert await shares(db, "one", crm=0.1) == {"crm": 1.0}, "who uses it alone has all of it"
    assert await shares(db, "two", crm=1.0) == {"crm": 0.0}, "nothing is taken from who has it"
    assert await shares(db, "one", crm=1.0) == {"crm": 0.5}
    assert await shares(db, "two", crm=1.0) == {"crm": 0.5}
    assert await shares(db, "two", crm=0.25) == {"crm": 0.25}
    assert await shares(db, "one", crm=1.0) == {"crm": 0.75}, "what one does not want is the other's"
    assert await shares(db, "two", crm=1.0) == {"crm": 0.25}
    assert await shares(db, "one", crm=1.0) == {"crm": 0.5}
    assert await shares(db, "one", other=1.0) == {"other": 1.0}, "an account that is not named is given up"
    assert await shares(db, "two", crm=1.0) == {"crm": 1.0}
    await expire(database_url, "two")
    assert await shares(db, "one", crm=1.0) == {"crm": 1.0}, "the dead hold nothing"

    for turn in range(30):
        owner = ("one", "two", "three")[turn % 3]
        await shares(db, owner, crm=((turn * 5) % 8 + 1) / 8)
        connection = await asyncpg.connect(database_url)
        assert await connection.fetchval("select sum(part) from budget_shares where account = 'crm' and expires_at > now()") <= 1 + 1e-9
        await connection.close()


async def test_two_daemons_divide_an_account_and_the_one_that_is_left_has_all_of_it_again(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.delivery.budgets.TTL_S", PATIENCE_S)
    monkeypatch.setattr("daemon.delivery.rate.WANTS_OVER_S", PATIENCE_S)
    monkeypatch.setattr("daemon.delivery.rate.IDLE_S", PATIENCE_S)
    living = [1]
    one, two = (Budgets(db, owner, lambda: living[0]) for owner in ("one", "two"))
    rates = {"all": Rate(40, 1.0)}
    mine = one.limiter("crm", rates)
    assert one.share("crm") == 1.0
    living[0] = 2
    one.count()
    assert one.share("crm") == 0.125, "until the rest is divided"
    theirs = two.limiter("crm", rates)
    assert two.share("crm") == 0.125
    for _ in range(5_000):  # of the 40 a second for as long as what is wanted is seen in
        mine.reserve("all", time.monotonic())
        theirs.reserve("all", time.monotonic())
    for each in (one, two, one, two):
        await each.divide()
    assert (one.share("crm"), two.share("crm")) == (0.5, 0.5)
    living[0] = 1
    await one.divide()
    assert one.share("crm") == 1.0


async def test_a_pause_is_told_to_the_others(db: Database) -> None:
    said: list[tuple[str, str]] = []
    one, two = Budgets(db, "one", say_pause=lambda account, bucket, _: said.append((account, bucket))), Budgets(db, "two")
    rates = {"record": Rate(40, 1.0), "popup": Rate(40, 1.0)}
    theirs = two.limiter("crm", rates)
    one.limiter("crm", rates).pause("record", time.monotonic() + 3_600)
    assert said == [("crm", "record")]
    two.pause("crm", "record", 3_600.0)
    two.pause("crm", "nonsense", 3_600.0)
    two.pause("nobody", "record", 3_600.0)
    now = time.monotonic()
    assert theirs.reserve("record", now) > 3_000
    assert theirs.reserve("popup", now) == 0
