"""How much of the loop's time one PBX may have. Pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.ami.pace import BURST_S, FOR_ALL, MAX_REST_S, SHARE, Pace, share


def test_a_pbx_that_stays_within_its_share_never_waits() -> None:
    pace, now = Pace(0.0), 0.0
    for _ in range(10_000):
        now += 0.01
        assert pace.rest_s(0.01 * SHARE, now) == 0.0


def test_a_moment_of_much_is_taken_at_once() -> None:
    pace, now, taken = Pace(0.0), 0.0, 0
    while True:
        now += 0.001
        if pace.rest_s(0.001, now):
            break
        taken += 1
    assert taken * 0.001 == pytest.approx(BURST_S / (1 - SHARE), abs=0.002)


@given(st.lists(st.floats(0.00001, MAX_REST_S * SHARE), min_size=1, max_size=20), st.floats(0, 1e6))
def test_one_that_floods_has_its_share_of_the_time_and_no_more(lengths: list[float], now: float) -> None:
    pace, began, pieces = Pace(now), now, lengths * 100
    for worked_s in pieces:
        now += worked_s
        rest_s = pace.rest_s(worked_s, now)
        assert 0.0 <= rest_s <= MAX_REST_S + 1e-6
        now += rest_s
    assert sum(pieces) <= BURST_S + SHARE * (now - began) + MAX_REST_S


@given(st.floats(0.0, 100.0))
def test_no_rest_is_longer_than_a_pbx_waits_before_it_hangs_up(worked_s: float) -> None:
    pace = Pace(0.0)
    assert pace.rest_s(worked_s, worked_s) <= MAX_REST_S + 1e-9
    assert pace.rest_s(0.0, worked_s + MAX_REST_S) == pytest.approx(0.0, abs=1e-9), "what is owed beyond one rest is forgotten"


def test_one_alone_has_more_and_many_have_each_their_share() -> None:
    assert share(1) == FOR_ALL
    assert all(share(links) * links <= FOR_ALL for links in range(1, int(FOR_ALL / SHARE) + 1))
    assert share(1_000) == SHARE
