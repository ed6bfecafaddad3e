"""What the recorder asks for every change: who is to be told. app.py answers over the adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from daemon.model.delivery import Planned
from daemon.model.signal import CallChange


@dataclass(frozen=True, slots=True)
class Told:
    """Something to be told to one integration; not before `hold_s` seconds have passed or it is released."""

    integration: str
    planned: Planned
    hold_s: float = 0.0


class Planner(Protocol):
    """Decides, without I/O, what every integration of an enterprise is to be told of a change."""

    def plan(self, enterprise: str, change: CallChange) -> Sequence[Told]:
        """In the order in which it is to be told."""
