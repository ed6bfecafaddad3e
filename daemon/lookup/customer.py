"""Is this number a customer's? Pure."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.calls.view import PbxView
from daemon.model.phone import to_e164


class NoCustomer(Exception):
    """The number is nobody's or one of ours; says which."""


def customer_number(text: str, views: Sequence[PbxView], country: str) -> str:
    """The number as calls and CRMs know it: E.164 where it can be, else its digits. Raises NoCustomer. `views`: the
    enterprise's PBXs, whose patterns tell an extension."""
    view = views[0] if views else PbxView("", "", country=country)
    number = view.number(text[:64])
    if number is None:
        raise NoCustomer("no number is shown")
    if any(view.is_extension(text.strip()) for view in views):
        raise NoCustomer("an extension is calling")
    if view.known_line(number) is not None:
        raise NoCustomer("the number is a line of the enterprise")
    if (to_e164(number, country) or number) in view.employee_mobiles:
        raise NoCustomer("the number is an employee's mobile")
    return number
