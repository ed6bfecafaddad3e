"""The limits of one CRM account, kept by several daemons: whatever they want and however they come and go, their places together fit."""

from __future__ import annotations

import heapq
import time
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.delivery.budgets import Budgets
from daemon.delivery.rate import WANTS_OVER_S, AccountLimiter, Share
from daemon.model.delivery import Leak, Rate
from daemon.nodes.share import MOVES_AT_ONCE, to_give
from daemon.store.pool import Database

COUNTS = st.integers(2, 60)


@given(count=COUNTS, parts=st.lists(st.integers(0, 8), min_size=2, max_size=6))
def test_places_of_all_daemons_are_never_more_than_the_account_has(count: int, parts: list[int]) -> None:
    whole = max(1, sum(parts))
    shares = [Share(len(parts), part / whole) for part in parts]
    if len(parts) <= count:
        assert sum(share.places(count) for share in shares) <= count
    assert sum(share.fraction for share in shares) <= 1 + 1e-9
    assert all(share.places(count) >= 1 and share.fraction > 0 for share in shares)


def test_one_daemon_alone_has_the_whole() -> None:
    assert (Share().places(7), Share().fraction, Share().stretch(7)) == (7, 1.0, 1.0)
    assert (Share(2, 1.0).places(7), Share(2, 0.0).places(7), Share(2, 0.0).places(40)) == (6, 1, 5)
    assert Share(14, 0.0).stretch(7) == 2.0


STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.floats(0.05, 1.5), st.integers(0, 8)), min_size=5, max_size=40)


def _leaving(steps: list[tuple[int, int, float, int]], rate: Rate | Leak) -> list[float]:
    """When requests of three daemons leave, whose parts of the rest change as these steps say: who, how many more requests, how long until the
    next step, which part it wants. What is taken by one was given up by the others before, as in the database."""
    limiters = [AccountLimiter({"all": rate}, Share(3, 0.0)) for _ in range(3)]
    parts, left = [0.0, 0.0, 0.0], []
    waiting: list[tuple[float, int, int, int]] = []  # when, a number, who, the turn in which it was promised
    now, number = 100.0, 0

    def ask(who: int) -> None:
        nonlocal number
        wait_s = limiters[who].reserve("all", now)
        if wait_s <= 0:
            left.append(now)
        else:
            number += 1
            heapq.heappush(waiting, (now + wait_s, number, who, limiters[who].turn))

    def pass_until(end: float) -> None:
        nonlocal now
        while waiting and waiting[0][0] <= end:
            at, _, who, turn = heapq.heappop(waiting)
            now = max(now, at)
            if limiters[who].turn == turn:
                left.append(now)
            else:
                ask(who)
        now = end

    for who, requests, pause_s, wanted in steps:
        parts[who] = min(wanted / 8, 1 - (sum(parts) - parts[who]))
        limiters[who].set_share(Share(3, parts[who]), now)
        for _ in range(requests):
            ask(who)
        pass_until(now + pause_s)
    return sorted(left)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_no_window_holds_more_requests_of_all_daemons_than_the_crm_allows(steps: list[tuple[int, int, float, int]]) -> None:
    rate = Rate(10, 1.0)
    left = _leaving(steps, rate)
    for first, last in zip(left, left[rate.count :], strict=False):
        assert last - first >= rate.period_s


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_a_leaky_bucket_never_runs_over_whichever_daemon_fills_it(steps: list[tuple[int, int, float, int]]) -> None:
    rate = Leak("portal", 20, 4.0)
    level, at = 0.0, 0.0
    for leaves in _leaving(steps, rate):
        level = max(0.0, level - (leaves - at) * rate.per_s) + 1
        at = leaves
        assert level <= rate.up_to + 1e-6


def test_who_gains_counts_what_it_gained_as_just_used_and_who_loses_keeps_what_it_sent() -> None:
    limiter = AccountLimiter({"all": Rate(40, 1.0)}, Share(2, 0.0))
    assert [limiter.reserve("all", 10.0) for _ in range(5)] == [0.0] * 5
    assert limiter.reserve("all", 10.0) > 1.0
    assert limiter.turn == 0
    limiter.set_share(Share(2, 1.0), 10.5)
    assert limiter.turn == 1
    assert limiter.reserve("all", 10.5) > 0.5
    assert [limiter.reserve("all", 12.0) for _ in range(34)] == [0.0] * 34
    limiter.set_share(Share(2, 0.0), 12.1)
    assert limiter.reserve("all", 12.1) > 0.9
    limiter.set_share(Share(2, 0.0), 12.2)
    assert limiter.turn == 2, "the same share changes nothing"


def test_telephony_comes_before_everything_else_in_a_share_too() -> None:
    limiter = AccountLimiter({"popup": Leak("portal", 48, 2.0), "sync": Leak("portal", 12, 2.0)}, Share(2, 0.5))
    while limiter.reserve("sync", 0.0) <= 0:
        pass
    limiter.give_back("sync")
    assert [limiter.reserve("popup", 0.0) for _ in range(12)] == [0.0] * 12


def test_a_daemon_wants_what_it_was_asked_for_with_room_to_grow_and_nothing_when_it_is_not_asked() -> None:
    limiter = AccountLimiter({"all": Rate(40, 1.0)})
    assert limiter.wants(0.0) is None
    limiter.reserve("all", 1.0)
    assert limiter.wants(1.0) == 0.125
    for _ in range(500):
        limiter.reserve("all", 2.0)
    assert limiter.wants(2.0) == 1.0
    assert limiter.wants(2.0 + WANTS_OVER_S + 1) == 0.125
    assert limiter.wants(60.0) is None


@pytest.mark.parametrize(("wanted", "held", "nodes", "given_away"), [(10, 10, 1, 0), (10, 5, 2, 0), (10, 6, 2, 1), (3, 2, 2, 0), (100, 100, 2, MOVES_AT_ONCE)])
def test_a_daemon_gives_away_what_is_more_than_its_part_a_few_at_a_time(wanted: int, held: int, nodes: int, given_away: int) -> None:
    keys = [(f"{n:04}", "main") for n in range(held)]
    assert len(to_give(wanted, keys, nodes, lambda _: True)) == given_away
    assert to_give(wanted, keys, nodes, lambda _: False) == [], "a PBX on which somebody talks stays where it is"


def test_a_daemon_that_joins_others_asks_nothing_until_they_know_of_it_and_one_alone_at_once() -> None:
    nowhere = cast(Database, None)
    joined, alone = (Budgets(nowhere, "new", lambda count=count: count, known_after_s=1_000.0) for count in (2, 1))  # type: ignore[misc]
    rates, now = {"api": Rate(7, 1.1)}, time.monotonic()
    assert joined.limiter("crm", rates).reserve("api", now) > 900
    assert alone.limiter("crm", rates).reserve("api", now) == 0
