"""One look at a recording, and what several looks say. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

STABLE_S = 1.0  # unchanged for this long: whole
EMPTY_BYTES = 44  # a WAV header and nothing behind it: MixMonitor makes the file before anybody talks
WAIT_S = 30.0  # a journal waits no longer for its recording


class State(Enum):
    """What a source says of a file."""

    THERE = "there"
    MISSING = "missing"
    UNKNOWN = "unknown"  # the source does not answer


@dataclass(frozen=True, slots=True)
class Look:
    """`changed_at`: Unix seconds of its last change, None where the source does not tell."""

    state: State
    size: int = 0
    changed_at: float | None = None

    @property
    def is_empty(self) -> bool:
        return self.state is State.THERE and self.size <= EMPTY_BYTES


MISSING = Look(State.MISSING)
UNKNOWN = Look(State.UNKNOWN)


class Watch:
    """Looks at one file, one after the other."""

    def __init__(self) -> None:
        self._last: Look | None = None
        self._since = 0.0

    def is_stable(self, look: Look, at: float) -> bool:
        """Whether the file is whole: there, not empty, and the same for STABLE_S. `at` is monotonic seconds."""
        if look != self._last:
            self._last, self._since = look, at
        return look.state is State.THERE and not look.is_empty and at - self._since >= STABLE_S


def is_whole(look: Look, ended_at: float | None, now: float) -> bool | None:
    """Whether a file may be served, from one look (times in Unix seconds); None: one look does not tell, look again after STABLE_S.

    A call that goes on has no whole recording; WAIT_S after its end nothing writes to it any more, whatever the clocks say.
    """
    if ended_at is None or look.state is not State.THERE:
        return False
    if now - ended_at >= WAIT_S:
        return True
    return None if look.changed_at is None else now - look.changed_at >= STABLE_S
