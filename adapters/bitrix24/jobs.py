"""A delivery as the portal's commands: the values that telling.py and made.py work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from adapters.base import Tenant
from adapters.bitrix24.client import Answer, Command
from adapters.bitrix24.config import Bitrix24Settings
from daemon.model.call import Call
from daemon.model.delivery import Delivery, Outcome

CALLBACK_CLICK = "callback:"  # how the key of a call-back begins
_NOT_A_CALL_ID = (CALLBACK_CLICK, "click:")  # keys that we made: the portal has no call of them yet

Answers = Mapping[str, Answer]


@dataclass(frozen=True, slots=True)
class Job:
    """Commands of one delivery and what is made of their answers."""

    commands: Sequence[Command]
    read: Callable[[Answers], Outcome | Job]


@dataclass(frozen=True, slots=True)
class Telling:
    """One delivery with all that its commands are made of. `user`: who is responsible when nobody else is."""

    delivery: Delivery
    settings: Bitrix24Settings
    tenant: Tenant
    user: str | None
    memory: Mapping[str, Any] = field(default_factory=dict)

    @property
    def call(self) -> Call:
        return self.delivery.call

    @property
    def call_id(self) -> str | None:
        """The portal's CALL_ID, where it has the call: from registering it, or because the portal itself began it."""
        return self.memory.get("call_id") or self.own_click

    @property
    def click(self) -> str:
        """What the portal's request for this call is known by; empty when it came about otherwise."""
        return str(self.delivery.payload.get("click") or self.memory.get("click") or "")

    @property
    def own_click(self) -> str | None:
        """The CALL_ID with which the portal asked for this call."""
        click = self.click
        return click if click and not click.startswith(_NOT_A_CALL_ID) else None


def is_denied(answer: Answer) -> bool:
    """Whether a right is missing for just this method."""
    words = getattr(answer, "reason", "").upper()
    return "ACCESS_DENIED" in words or "INSUFFICIENT_SCOPE" in words


def iso(at: float, tenant: Tenant) -> str:
    """ISO 8601 in the enterprise's zone."""
    return datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(tenant.timezone)).isoformat(timespec="seconds")
