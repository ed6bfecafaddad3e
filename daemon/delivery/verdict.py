"""What follows from an outcome. Pure: the one place that decides between done, again, dropped and dead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from daemon.delivery.schedule import next_delay_s
from daemon.model.delivery import Ambiguous, AuthExpired, Delivered, Kind, Memory, Outcome, Policy, Rejected, Retry, Throttled


@dataclass(frozen=True, slots=True)
class Verdict:
    """The delivery's next state. `counted`: the attempt counts. `uncertain`: it may have arrived."""

    state: str
    error: str | None = None
    due_in_s: float | None = None
    counted: bool = True
    uncertain: bool = False
    memory: Memory | None = None


def verdict(outcome: Outcome, kind: Kind, attempt: int, policy: Policy, random: float) -> Verdict:
    """For attempt number `attempt` (from 1). An ambiguous delivery of a repeatable kind is simply due again; any other
    is marked uncertain, so that it is reconciled before anything is sent."""
    match outcome:
        case Delivered(detail, memory):
            return Verdict("delivered", detail or None, memory=memory or None)
        case Retry(reason, after_s):
            return _again(kind, attempt, reason, random, after_s)
        case Throttled(reason, after_s):
            return Verdict("waiting", reason, after_s, counted=False)
        case AuthExpired(reason):
            return Verdict("waiting", reason, 0.0, counted=False)
        case Rejected(reason):
            return Verdict("dead", reason)
        case Ambiguous(reason):
            again = _again(kind, attempt, reason, random, None)
            if kind in policy.repeatable or again.state != "waiting":
                return again
            return Verdict("waiting", reason, again.due_in_s, uncertain=True)
        case _:
            assert_never(outcome)


def _again(kind: Kind, attempt: int, reason: str, random: float, after_s: float | None) -> Verdict:
    delay_s = next_delay_s(kind, attempt, random, after_s)
    if delay_s is not None:
        return Verdict("waiting", reason, delay_s)
    if kind in (Kind.POPUP, Kind.HANGUP):
        return Verdict("dropped", f"given up after {attempt} tries: {reason}")
    return Verdict("dead", f"given up after {attempt} tries: {reason}")
