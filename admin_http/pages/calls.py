"""History with search, one call's page, and the table to take away."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from aiohttp import web

from admin_http.api.calls import story
from admin_http.api.exports import stream_table
from admin_http.pages.routing import Page, Visit
from admin_http.pages.wording import DIRECTIONS, RESULTS, has_route, lines, may_call, owners, typed_day, words
from admin_http.sheet import COLUMNS
from admin_http.texts import N_
from admin_http.timeline import draw
from daemon.errors import NotFound, VochidError
from daemon.store.call_query import CallFilter
from daemon.store.ticket_query import TicketFilter

PER_PAGE = 50
PLAYER_S = 900.0  # how long the player's link lives
FILTERS = ("q", "period", "from", "to", "direction", "result", "line", "extension")
PERIODS = {"today": N_("Today"), "7": N_("7 days"), "30": N_("30 days"), "": N_("Any time"), "days": N_("From – to")}
TITLES = {
    "started_at": N_("Began"), "direction": N_("Direction"), "result": N_("Result"), "missed": N_("Missed"), "customer_number": N_("Number"),
    "customer_name": N_("Customer"), "line": N_("Line"), "queue": N_("Queue"), "rang": N_("Rang at"), "answered_by": N_("Answered by"),
    "last_talked": N_("Talked last"), "initiator": N_("Called by"), "wait_seconds": N_("Waited, s"), "talk_seconds": N_("Talked, s"),
    "answered_at": N_("Answered at"), "ended_at": N_("Ended"), "transfers": N_("Transfers"), "recordings": N_("Recordings"),
    "click_to_call": N_("By click"), "gap": N_("Gap"), "pbx": N_("PBX"), "id": N_("Call id"),
}  # fmt: skip


def asked_of(visit: Visit) -> tuple[CallFilter, dict[str, str]]:
    """The filters of the address, as the store takes them and as the form shows them. Raises VochidError for wrong dates."""
    shown = {name: (visit.query(name) or "").strip()[:100].replace("\0", "") for name in FILTERS}
    zone = ZoneInfo(visit.enterprise.timezone)
    today = datetime.now(UTC).astimezone(zone).date()
    first, last = _day(shown["from"], "from"), _day(shown["to"], "to")
    shown |= {"from": first.isoformat() if first else "", "to": last.isoformat() if last else ""}
    if first is not None or last is not None:
        shown["period"] = "days"
    elif shown["period"] == "today":
        first = today
    elif shown["period"] in ("7", "30"):
        first = today - timedelta(days=int(shown["period"]) - 1)
    result = shown["result"] if shown["result"] in RESULTS else None
    asked = CallFilter(
        since=datetime.combine(first, clock.min, zone) if first is not None else None,
        until=datetime.combine(last + timedelta(days=1), clock.min, zone) if last is not None else None,
        direction=shown["direction"] if shown["direction"] in DIRECTIONS else None, result=result,
        missed=True if shown["result"] == "missed" else None, line=shown["line"] or None, extension=shown["extension"] or None, search=shown["q"] or None,
    )  # fmt: skip
    return asked, shown


def _day(text: str, name: str) -> date | None:
    if not text:
        return None
    try:
        found = date.fromisoformat(typed_day(text))
    except ValueError:
        found = None
    if found is None or not 2000 <= found.year <= 2100:
        raise VochidError(f"{name} is a date, like 2026-11-21", code="bad_parameter", field=name)
    return found


async def show_calls(visit: Visit) -> web.StreamResponse:
    asked, shown = asked_of(visit)
    calls, following = await visit.services.calls.page(visit.number, asked, cursor=visit.query("cursor"), limit=PER_PAGE, with_legs=False)
    known = await visit.services.callers.name_for_people(visit.number, calls)
    zone = ZoneInfo(visit.enterprise.timezone)
    for call in calls:
        call["local"] = datetime.fromisoformat(call["started_at"]).astimezone(zone)
    address = _address(shown)
    response = visit.render(
        "calls/list.html", calls=calls, known=known, shown=shown, address=address, more=_address({**shown, "cursor": following}) if following else None,
        is_first=visit.query("cursor") is None, periods=PERIODS, owners=owners(visit), lines=lines(visit), may_call=may_call(visit), **words(visit),
    )  # fmt: skip
    if visit.is_fragment:
        response.headers["HX-Push-Url"] = f"/e/{visit.number}/calls" + address if visit.query("cursor") is None else "false"
    return response


def _address(shown: Mapping[str, str | None]) -> str:
    """The query of what is really asked: an address to send to somebody."""
    dates = shown.get("from") or shown.get("to")
    kept = {name: value for name, value in shown.items() if value and not (name == "period" and (dates or value == "days"))}
    return "?" + urlencode(kept) if kept else ""


async def export(visit: Visit) -> web.StreamResponse:
    asked, _ = asked_of(visit)
    titles = {column: visit.text(TITLES[column]) for column in COLUMNS}
    told = {**{code: visit.text(text) for code, text in DIRECTIONS.items()}, **{code: visit.text(text) for code, (text, _) in RESULTS.items() if code}}
    return await stream_table(visit.request, visit.services, visit.number, asked, titles, {**told, "true": visit.text("yes"), "false": ""})


async def show_call(visit: Visit) -> web.StreamResponse:
    call = await visit.services.calls.get(visit.number, visit.part("id"))
    known = await visit.services.callers.name_for_people(visit.number, [call])
    told, reasons = await story(visit.services, visit.number, call)
    for exchange in (exchange for delivery in told for exchange in delivery["exchanges"]):
        exchange["request"], exchange["response"] = _pretty(exchange["request_data"]), _pretty(exchange["response_data"])
    has_trace = has_route(visit, "GET", "/api/enterprises/{n}/calls/{id}/trace") and await visit.services.explain.has_trace(visit.number, call["id"])
    return visit.render(
        "calls/call.html", call=call, known=known.get(call["customer_number"] or "", ()), picture=draw(call, time.time()), told=told,
        reasons=reasons, recordings=_recordings(visit, call), owners=owners(visit),
        tickets=(await visit.services.support.tickets.page(visit.number, TicketFilter(call=call["id"])))[0],
        lines=lines(visit), may_call=may_call(visit), has_trace=has_trace, back=_back(visit), **words(visit),
    )  # fmt: skip


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def _recordings(visit: Visit, call: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Each recording's name, and the player's link where recordings are served."""
    links = visit.services.recordings.links
    found: list[tuple[str, str | None]] = []
    for index, name in enumerate(call["recordings"]):
        try:
            found.append((name, links.link(visit.number, call["id"], index, PLAYER_S, name=name)))
        except NotFound:
            found.append((name, None))
    return found


def _back(visit: Visit) -> str:
    """The list as it was filtered, when the person came from there."""
    _, _, query = (visit.query("back") or "").partition("?")
    return f"/e/{visit.number}/calls" + (f"?{query}" if query else "")


PAGES = (
    Page("GET", "/e/{n}/calls", show_calls),
    Page("GET", "/e/{n}/calls.csv", export),
    Page("GET", "/e/{n}/calls/{id}", show_call),
)
