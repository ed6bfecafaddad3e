"""Who looks after a customer, by Bitrix24: telephony.externalCall.searchCrmEntities, the first of what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.base import LookupFailed
from adapters.bitrix24.client import Accepted, Portal
from adapters.bitrix24.limits import POPUP
from daemon.model.crm import Responsible
from daemon.model.delivery import Rejected, Throttled

_AT_HOME = frozenset({"CLOSED", "PAUSED"})  # a workday that has not begun, is over, or rests; portals without workdays say otherwise


async def look_up(portal: Portal, phone: str) -> Responsible | None:
    """Asks for a number. Raises LookupFailed."""
    answer = await portal.call("telephony.externalCall.searchCrmEntities", {"PHONE_NUMBER": phone}, POPUP)
    if isinstance(answer, Accepted):
        return read_answer(answer.result)
    reason = getattr(answer, "reason", "")
    raise LookupFailed(f"{type(answer).__name__}: {reason}", outage=not isinstance(answer, (Rejected, Throttled)))


def read_answer(result: Any) -> Responsible | None:
    """The method's result, best first; None when the portal does not know the number. Whoever is not at work is not named: the customer's
    name is told all the same. Pure."""
    first = next((item for item in result if isinstance(item, Mapping)), None) if isinstance(result, list) else None
    if first is None:
        return None
    held = first.get("ASSIGNED_BY")
    manager: Mapping[str, Any] = held if isinstance(held, Mapping) else {}
    name = _text(first.get("NAME"))
    if str(manager.get("TIMEMAN_STATUS") or "").upper() in _AT_HOME:
        return Responsible(customer_name=name) if name else None
    user, extension = _text(first.get("ASSIGNED_BY_ID") or manager.get("ID")), _text(manager.get("USER_PHONE_INNER"))
    return Responsible(user if user != "0" else None, extension, name) if user or extension or name else None


def _text(value: Any) -> str | None:
    return str(value).strip()[:500] or None if isinstance(value, (str, int)) and not isinstance(value, bool) else None
