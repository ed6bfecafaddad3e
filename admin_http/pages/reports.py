"""Reports as plots and tables. The plots' data is an island of JSON in the page: figures and pictures are one answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web

from admin_http.pages.routing import Page, Visit
from admin_http.pages.wording import lines, owners, typed_day, words
from admin_http.texts import N_
from daemon.store.reports import Period

PRESETS = {"1": N_("Today"), "7": N_("7 days"), "30": N_("30 days"), "90": N_("90 days")}
SERIES = {"answered": N_("Answered"), "missed": N_("Missed"), "outgoing": N_("Outgoing calls")}


async def show_reports(visit: Visit) -> web.StreamResponse:
    zone = visit.enterprise.timezone
    now = datetime.now(UTC)
    days = visit.query("days") if visit.query("days") in PRESETS else None
    first, last, line = (None, None, visit.query("line")) if days else (_typed(visit, "from"), _typed(visit, "to"), visit.query("line"))
    period = Period.parse(first, last, zone, now, days=int(days or 7), line=line)
    if days is None and first is None and last is None:
        days = "7"
    report = await visit.services.reports.report(visit.number, period)
    return visit.render(
        "reports/reports.html", report=report, days=days, presets=PRESETS, lines=lines(visit), owners=owners(visit), island=_island(visit, report),
        yesterday=(now.astimezone(ZoneInfo(zone)).date() - timedelta(days=1)).isoformat(), **words(visit),
    )  # fmt: skip


def _typed(visit: Visit, name: str) -> str | None:
    text = visit.query(name)
    return typed_day(text) if text else None


def _island(visit: Visit, report: dict[str, Any]) -> dict[str, Any]:
    """What the plots draw: columns of numbers, and words in the person's language."""
    by_hour = [{name: 0 for name in SERIES} for _ in range(24)]
    per_line: dict[str, list[int]] = {}
    for row in report["by_hour"]:
        for name in SERIES:
            by_hour[row["hour"]][name] += row[name]
        if row["line"]:
            per_line.setdefault(row["line"], [0] * 24)[row["hour"]] += row["answered"] + row["missed"] + row["outgoing"]
    busiest = sorted(per_line.items(), key=lambda item: -sum(item[1]))[:6]
    failures: dict[str, tuple[int, int]] = {}
    for row in report["delivery_failures"]:
        attempts, failed = failures.get(row["day"], (0, 0))
        failures[row["day"]] = (attempts + row["attempts"], failed + row["failed"])
    names = lines(visit)
    return {
        "zone": report["timezone"], "step": report["step"], "language": visit.language,
        "series": {name: visit.text(text) for name, text in SERIES.items()},
        "words": {"attempts": visit.text("Attempts"), "failed": visit.text("Failed"), "hour": visit.text("Hour"), "day": visit.text("Day")},
        "timeline": {"labels": [p["local"] for p in report["timeline"]], **{name: [p[name] for p in report["timeline"]] for name in SERIES}},
        "hours": {name: [row[name] for row in by_hour] for name in SERIES},
        "lines": [{"name": names.get(line) or line, "calls": counts} for line, counts in busiest],
        "failures": {"labels": list(failures), "attempts": [a for a, _ in failures.values()], "failed": [f for _, f in failures.values()]},
    }  # fmt: skip


PAGES = (Page("GET", "/e/{n}/reports", show_reports),)
