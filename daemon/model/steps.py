"""Times as steps of a scale on which each is 2 % longer than the one before (step_of in sql/): sums of them give percentiles. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

RATIO = 1.02
LEAST = -350  # less than a millisecond
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def seconds_of(step: int) -> float:
    """What a step stands for: within 1 % of every time that falls on it."""
    return 0.0 if step <= LEAST else float(RATIO**step)


def percentiles(counted: Sequence[Sequence[int]] | None) -> dict[str, float] | None:
    """Seconds by share from pairs of a step and how many fell on it, in any order; between two of them as percentile_cont. None of none."""
    steps = sorted((step, count) for step, count in counted or () if count)
    if not steps:
        return None
    ends = list(accumulate(count for _, count in steps))

    def at(position: int) -> float:
        return seconds_of(next(step for (step, _), end in zip(steps, ends, strict=True) if position < end))

    found = {}
    for name, share in SHARES.items():
        place = share * (ends[-1] - 1)
        below, above = at(int(place)), at(min(int(place) + 1, ends[-1] - 1))
        found[name] = round(below + (above - below) * (place - int(place)), 3)
    return found
