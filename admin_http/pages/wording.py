"""What the pages on calls and deliveries say for codes: words, colours, owners of extensions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from aiohttp import web
from babel.dates import format_timedelta

from admin_http.pages.routing import Visit
from admin_http.texts import N_
from admin_http.views import duration

DIRECTIONS = {"in": N_("Incoming"), "out": N_("Outgoing"), "internal": N_("Internal")}
RESULTS = {
    "answered": (N_("Answered"), "good"), "voicemail": (N_("Voicemail"), "warn"), "cancelled": (N_("Caller hung up"), "bad"),
    "no_answer": (N_("No answer"), "bad"),
    "busy": (N_("Busy"), "warn"), "rejected": (N_("Rejected"), "warn"), "unavailable": (N_("Unavailable"), "bad"), "interrupted": (N_("Interrupted"), "warn"),
    None: (N_("In progress"), "info"),
}  # fmt: skip
STATES = {
    "waiting": (N_("waits"), "info"), "sending": (N_("being sent"), "info"), "delivered": (N_("delivered"), "good"), "dead": (N_("dead letter"), "bad"),
    "discarded": (N_("discarded"), "plain"), "dropped": (N_("dropped, too late"), "warn"), "observed": (N_("observed, not sent"), "plain"),
}  # fmt: skip
KINDS = {
    "popup": N_("Popup"), "hangup": N_("End of popup"), "journal": N_("Journal entry"), "recording": N_("Recording"), "called_back": N_("Called back"),
    "ticket": N_("Ticket"), "message": N_("Message"), "status": N_("Status"), "task": N_("Task or lead by rule"), "order": N_("Order"),
    "sync": N_("Sync of a record"),
}  # fmt: skip
REASONS = {
    "paused": N_("the enterprise is paused"), "disabled": N_("the integration is switched off"), "internal": N_("internal calls are never told to CRMs"),
    "consult": N_("a consultation is a part of another call"), "live": N_("the call is not over yet"), "switched_off": N_("switched off in the settings"),
    "no_number": N_("the caller's number is withheld"), "nobody_rang": N_("no extension rang"), "no_recording": N_("the call was not recorded"),
    "with_journal": N_("its link went with the journal entry"),
    "rule": N_("a rule says to do nothing"), "not_planned": N_("nothing was to be told, or the integration was set up later"),
}  # fmt: skip
TRANSFERS = {
    "blind": N_("blind transfer"), "attended": N_("attended transfer"), "blonde": N_("transfer while it rang"), "pickup": N_("pickup"),
    "forward": N_("forwarding"), "park": N_("parking"),
}  # fmt: skip
KINDS_OF_LEG = {"customer": N_("customer"), "internal": N_("extension"), "external": N_("outside number")}


_TYPED_DAY = re.compile(r"(\d{1,2})[./](\d{1,2})[./](\d{4})", re.ASCII)
CRMS = {"retailcrm": "RetailCRM", "bitrix24": "Bitrix24", "amocrm": "amoCRM", "tickets": N_("Tickets")}


def words(visit: Visit) -> dict[str, Any]:
    """For templates: every table of this page, in the person's language."""

    def plain(table: Mapping[Any, str]) -> dict[Any, str]:
        return {code: visit.text(text) for code, text in table.items()}

    def coloured(table: Mapping[Any, tuple[str, str]]) -> dict[Any, tuple[str, str]]:
        return {code: (visit.text(text), kind) for code, (text, kind) in table.items()}

    return {
        "directions": plain(DIRECTIONS), "results": coloured(RESULTS), "states": coloured(STATES), "kinds": plain(KINDS), "reasons_text": plain(REASONS),
        "transfer_names": plain(TRANSFERS), "leg_kinds": plain(KINDS_OF_LEG), "crm_names": plain(CRMS), "roughly": roughly(visit),
    }  # fmt: skip


def typed_day(text: str) -> str:
    """A day as somebody typed it (21.11.2026, 21/11/2026) as ISO 8601 has it; anything else as it is. Pure."""
    found = _TYPED_DAY.fullmatch(text.strip())
    return f"{found[3]}-{int(found[2]):02}-{int(found[1]):02}" if found else text


def owners(visit: Visit) -> dict[str, str]:
    """Who sits at an extension."""
    return {phone.number: phone.owner for phone in visit.enterprise.internal_phones}


def lines(visit: Visit) -> dict[str, str]:
    """Our lines and what they are called."""
    return {line.number: line.name for line in visit.enterprise.lines}


def roughly(visit: Visit) -> Callable[[float | None], str]:
    """For templates: a long time in its largest unit, as 3 hours or 2 days; a short one to the second."""

    def told(seconds: float | None) -> str:
        if seconds is None or seconds < 3_600:
            return duration(seconds)
        return str(format_timedelta(timedelta(seconds=seconds), threshold=1.5, locale=visit.language))

    return told


def has_route(visit: Visit, method: str, canonical: str) -> bool:
    """Whether this daemon serves a route: a button for what it cannot do is not shown."""
    router: web.UrlDispatcher = visit.request.app.router
    return any(route.method == method and route.resource is not None and route.resource.canonical == canonical for route in router.routes())


def may_call(visit: Visit) -> bool:
    """Whether a click on a number calls it: the route is there, the person may, and there is an extension to ring first."""
    return visit.may("admin") and bool(visit.enterprise.internal_phones) and has_route(visit, "POST", "/api/enterprises/{n}/calls")
