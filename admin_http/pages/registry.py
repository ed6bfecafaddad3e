"""All pages: one line per part."""

from __future__ import annotations

from admin_http.pages import account, audit, calls, deliveries, enterprises, entry, live, missed, people, reports, status
from admin_http.pages.routing import Page

PAGES: tuple[Page, ...] = (
    *entry.PAGES,
    *account.PAGES,
    *people.PAGES,
    *audit.PAGES,
    *enterprises.PAGES,
    *live.PAGES,
    *calls.PAGES,
    *missed.PAGES,
    *deliveries.PAGES,
    *reports.PAGES,
    *status.PAGES,
)
