"""The clock that calls are measured by, when the server's is set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.calls.clock import PATIENCE_S, CallClock

STEPS = st.floats(-1e6, 1e6).filter(lambda step: abs(step) > 2)


@given(step=STEPS, lasts_s=st.floats(0, PATIENCE_S - 1))
def test_a_call_lasts_as_long_as_it_lasted_whatever_the_clock_is_set_to(step: float, lasts_s: float) -> None:
    clock = CallClock(1_000_000.0, 50.0)
    began = clock.at(60.0)
    assert clock.look(1_000_010.0 + step, 60.0, is_idle=False) == 0.0
    assert abs(clock.at(60.0 + lasts_s) - began - lasts_s) < 1e-6


@given(step=STEPS)
def test_between_calls_the_new_setting_counts_at_once_and_once(step: float) -> None:
    clock = CallClock(1_000_000.0, 50.0)
    assert abs(clock.look(1_000_010.0 + step, 60.0, is_idle=True) - step) < 1e-3
    assert abs(clock.at(61.0) - (1_000_011.0 + step)) < 1e-3
    assert clock.look(1_000_012.0 + step, 62.0, is_idle=True) == 0.0


def test_where_there_is_always_a_call_it_counts_after_a_while() -> None:
    clock = CallClock(1_000_000.0, 0.0)
    assert clock.look(1_003_600.0, 0.0, is_idle=False) == 0.0
    assert clock.look(1_003_600.0 + PATIENCE_S / 2, PATIENCE_S / 2, is_idle=False) == 0.0
    assert clock.look(1_003_600.0 + PATIENCE_S, PATIENCE_S, is_idle=False) == 3_600.0


def test_a_clock_that_is_put_right_again_while_a_call_lives_was_never_wrong() -> None:
    clock = CallClock(1_000_000.0, 0.0)
    clock.look(1_003_600.0, 0.0, is_idle=False)
    clock.look(1_000_010.0, 10.0, is_idle=False)
    assert clock.look(1_003_600.0 + PATIENCE_S, PATIENCE_S, is_idle=False) == 0.0
    assert clock.at(20.0) == 1_000_020.0
