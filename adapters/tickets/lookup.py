"""Who looks after a customer, by the desk: the agent of the open ticket."""

from __future__ import annotations

from adapters.base import Desk, LookupFailed
from daemon.model.crm import Responsible


async def look_up(desk: Desk | None, phone: str) -> Responsible | None:
    """The extension on the customer's newest open ticket; None without one. The desk is in our own store: nobody else is asked."""
    if desk is None:
        raise LookupFailed("this desk has no store", outage=False)
    agent = await desk.agent_of(phone)
    return Responsible(extension=agent) if agent else None
