"""The pure half of delivery: schedule, limits, breaker, verdicts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.delivery.health import FIRST_PAUSE_S, MAX_PAUSE_S, Breaker, Health
from daemon.delivery.rate import SAFETY_S, AccountLimiter
from daemon.delivery.schedule import JOURNAL_DELAYS_S, next_delay_s
from daemon.delivery.verdict import verdict
from daemon.model.delivery import Ambiguous, AuthExpired, Delivered, Kind, Policy, Rate, Rejected, Retry, Throttled

POLICY = Policy({}, {}, frozenset({Kind.POPUP}), {"all": Rate(5, 1.0)}, 4)


def test_the_journal_is_tried_for_about_three_days() -> None:
    assert 2.5 <= sum(JOURNAL_DELAYS_S) / 86_400 <= 3.5
    assert next_delay_s(Kind.JOURNAL, len(JOURNAL_DELAYS_S) + 1, 0.5) is None


def test_a_popup_is_tried_three_times_within_thirty_seconds() -> None:
    delays = [next_delay_s(Kind.POPUP, attempt, 0.999) for attempt in (1, 2, 3)]
    assert delays[2] is None
    assert sum(filter(None, delays)) + 3 * 3 < 30


@given(st.integers(1, 10), st.floats(0, 0.999999))
def test_a_step_is_spread_by_a_fifth(attempt: int, random: float) -> None:
    delay = next_delay_s(Kind.JOURNAL, attempt, random)
    assert delay is not None
    assert 0.8 * JOURNAL_DELAYS_S[attempt - 1] <= delay <= 1.2 * JOURNAL_DELAYS_S[attempt - 1]


def test_retry_after_is_honoured_up_to_twice_the_step_and_zero_means_at_once() -> None:
    assert next_delay_s(Kind.JOURNAL, 1, 0.5, after_s=7) == 7
    assert next_delay_s(Kind.JOURNAL, 1, 0.5, after_s=9_999) == 10
    assert next_delay_s(Kind.JOURNAL, 5, 0.5, after_s=0) == 0


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=80))
def test_no_window_of_a_second_holds_more_than_the_limit(gaps: list[float]) -> None:
    limiter, now, places = AccountLimiter({"all": Rate(5, 1.0)}), 100.0, []
    for gap in gaps:
        now += gap
        places.append(now + limiter.reserve("all", now))
    assert places == sorted(places)
    for i in range(len(places) - 5):
        assert places[i + 5] - places[i] >= 1.0


def test_a_place_that_is_given_back_is_free_again() -> None:
    limiter = AccountLimiter({"all": Rate(1, 1.0)})
    assert limiter.reserve("all", 0.0) == 0
    assert limiter.reserve("all", 0.0) == pytest.approx(1.0 + SAFETY_S)
    limiter.give_back("all")
    assert limiter.reserve("all", 0.0) == pytest.approx(1.0 + SAFETY_S)


def failing(tries: int) -> Health:
    health = Health()
    for n in range(tries):
        health.failed(float(n))
    return health


def test_the_breaker_opens_after_ten_tries_of_which_most_failed() -> None:
    assert failing(9).state(9.0) is Breaker.CLOSED
    assert failing(10).state(10.0) is Breaker.OPEN
    mixed = Health()
    for n in range(40):
        (mixed.failed if n % 2 else mixed.succeeded)(float(n))
    assert mixed.state(40.0) is Breaker.CLOSED


def test_an_open_breaker_lets_one_probe_through_and_closes_when_it_succeeds() -> None:
    health = failing(10)
    assert health.room(10.0, 8) == 0
    later = 9.0 + FIRST_PAUSE_S
    assert health.state(later) is Breaker.HALF_OPEN
    assert health.room(later, 8) == 1
    health.begin(later)
    assert health.room(later, 8) == 0
    health.succeeded(later)
    assert (health.state(later), health.room(later, 8)) == (Breaker.CLOSED, 8)


def test_a_failed_probe_doubles_the_pause_up_to_a_quarter_of_an_hour() -> None:
    health, now, pauses = failing(10), 9.0, []
    for _ in range(8):
        now += health.wait_s(now)
        health.begin(now)
        health.failed(now)
        pauses.append(health.wait_s(now))
    assert pauses[:3] == [60, 120, 240]
    assert pauses[-1] == MAX_PAUSE_S


def test_throttling_pauses_without_opening_the_breaker() -> None:
    health = Health()
    health.throttled(0.0, 2.0)
    assert (health.room(1.0, 8), health.room(2.0, 8), health.state(1.0)) == (0, 8, Breaker.CLOSED)


@pytest.mark.parametrize(
    ("outcome", "state", "counted"),
    [
        (Delivered(), "delivered", True),
        (Retry("x"), "waiting", True),
        (Throttled("x", 2.0), "waiting", False),
        (AuthExpired("x"), "waiting", False),
        (Rejected("x"), "dead", True),
        (Ambiguous("x"), "waiting", True),
    ],
)
def test_every_outcome_has_its_consequence(outcome: object, state: str, counted: bool) -> None:
    result = verdict(outcome, Kind.JOURNAL, 1, POLICY, 0.5)  # type: ignore[arg-type]
    assert (result.state, result.counted) == (state, counted)


def test_an_ambiguous_delivery_is_uncertain_unless_its_kind_may_be_repeated() -> None:
    assert verdict(Ambiguous("x"), Kind.JOURNAL, 1, POLICY, 0.5).uncertain
    assert not verdict(Ambiguous("x"), Kind.POPUP, 1, POLICY, 0.5).uncertain


def test_the_last_try_ends_a_journal_as_a_dead_letter_and_a_popup_as_dropped() -> None:
    assert verdict(Retry("x"), Kind.JOURNAL, 99, POLICY, 0.5).state == "dead"
    assert verdict(Retry("x"), Kind.POPUP, 3, POLICY, 0.5).state == "dropped"
