"""All pages: one line per part."""

from __future__ import annotations

from admin_http.pages import account, audit, cabinet, enterprises, entry, integrations, pbx, people, settings
from admin_http.pages.routing import Page

PAGES: tuple[Page, ...] = (
    *entry.PAGES,
    *account.PAGES,
    *people.PAGES,
    *audit.PAGES,
    *enterprises.PAGES,
    *pbx.PAGES,
    *settings.PAGES,
    *integrations.PAGES,
    *cabinet.PAGES,
)
