"""What the dispatcher needs of a CRM. app.py implements it over the adapters; the daemon itself knows none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from daemon.model.delivery import Delivery, Exchange, Outcome, Policy


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt's outcomes, in the order of its deliveries, and what was said on the wire."""

    outcomes: Sequence[Outcome]
    exchanges: Sequence[Exchange]


class CrmPort(Protocol):
    """One connection (enterprise x integration), ready to be told things."""

    @property
    def account(self) -> str:
        """Names the CRM account, whose limits are shared."""

    @property
    def policy(self) -> Policy:
        """How its kinds are delivered."""

    @property
    def observe(self) -> bool:
        """Everything is computed and logged, nothing is sent."""

    async def deliver(self, batch: Sequence[Delivery], deadline_s: float) -> Attempt:
        """Tells the CRM."""

    async def reconcile(self, delivery: Delivery, deadline_s: float) -> Attempt:
        """Finds out whether a former attempt arrived."""

    async def refresh(self, deadline_s: float) -> bool:
        """Tries to renew the credentials; False when a person must act."""


class CrmPorts(Protocol):
    """All connections."""

    def port(self, enterprise: str, integration: str) -> CrmPort | None:
        """The connection as it is set now; None when it is gone, disabled or its tenant paused."""
