"""Who looks after a customer, by RetailCRM: GET /api/v5/telephony/manager (docs/adapters/retailcrm.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.base import LookupFailed
from adapters.retailcrm.client import Accepted, RetailCrmClient
from daemon.model.crm import Responsible
from daemon.model.delivery import Rejected, Throttled
from daemon.model.phone import digits_of


async def look_up(client: RetailCrmClient, phone: str) -> Responsible | None:
    """Asks for a number. ignoreStatus: whether the manager is free is decided here, from what is known now and not when the
    answer was kept. Raises LookupFailed."""
    answer = await client.get("v5/telephony/manager", phone=digits_of(phone), details="1", ignoreStatus="1")
    if isinstance(answer, Accepted):
        return read_answer(answer.body)
    reason = getattr(answer, "reason", "")
    raise LookupFailed(f"{type(answer).__name__}: {reason}", outage=not isinstance(answer, (Rejected, Throttled)))


def read_answer(body: Mapping[str, Any]) -> Responsible | None:
    """The answer's body; None when the CRM knows neither a manager nor the customer. Ids come as numbers or as strings. Pure."""
    manager, customer = body.get("manager"), body.get("customer")
    named = manager if isinstance(manager, Mapping) else {}
    person = customer if isinstance(customer, Mapping) else {}
    user_id, code, name = _text(named.get("id")), _text(named.get("code")), _full_name(person)
    return Responsible(user_id, code, name) if user_id or code or name else None


def _full_name(person: Mapping[str, Any]) -> str | None:
    parts = (person.get("firstName"), person.get("lastName"))
    return " ".join(part.strip() for part in parts if isinstance(part, str) and part.strip())[:500] or None


def _text(value: Any) -> str | None:
    return str(value)[:64] if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value) else None
