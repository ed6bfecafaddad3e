"""Who looks after a customer, by amoCRM: the responsible user of the active lead, else of the contact."""

from __future__ import annotations

from adapters.amocrm.client import AmoClient, as_outcome
from adapters.amocrm.entities import Found, look_for, user_id
from adapters.base import LookupFailed
from daemon.model.crm import Responsible
from daemon.model.delivery import Delivered, Rejected, Throttled


async def look_up(client: AmoClient, phone: str, country: str) -> Responsible | None:
    """Asks for a number; numbers in the CRM may be written as in `country`. Raises LookupFailed."""
    found = await look_for(client, phone, country)
    if found is None:
        return None
    if isinstance(found, Found):
        return read_found(found)
    failed = as_outcome(found)
    reason = "" if isinstance(failed, Delivered) else failed.reason
    raise LookupFailed(f"{type(failed).__name__}: {reason}", outage=not isinstance(failed, (Rejected, Throttled)))


def read_found(found: Found) -> Responsible:
    """The newest active lead's responsible user goes before the contact's. Pure."""
    of_lead = next((user for lead in found.leads if (user := user_id(lead)) is not None), None)
    user = of_lead if of_lead is not None else user_id(found.contact)
    name = str(found.contact.get("name") or "").strip()[:500]
    return Responsible(str(user) if user is not None else None, None, name or None)
