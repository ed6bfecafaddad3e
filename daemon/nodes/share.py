"""Which PBXs a daemon gives away, so that all of them have about as many. Pure.

Taking is decided in the database (`take_leases` in sql/), where everybody sees the same; giving is each one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import ceil

MOVES_AT_ONCE = 5  # a move is a login and a look at what lives: a thousand of them must not come at once

PbxKey = tuple[str, str]


def to_give(wanted: int, held: Collection[PbxKey], nodes: int, is_idle: Callable[[PbxKey], bool]) -> list[PbxKey]:
    """Of the PBXs that are held, those to give to the others now: what is over this daemon's part of all `wanted` ones, only while nobody
    calls there (a call that moves is marked `gap`)."""
    surplus = len(held) - ceil(wanted / max(1, nodes))
    if surplus <= 0:
        return []
    idle = sorted(key for key in held if is_idle(key))
    return idle[: min(surplus, MOVES_AT_ONCE)]
