"""All pages: one line per part."""

from __future__ import annotations

from admin_http.pages import account, audit, enterprises, entry, people
from admin_http.pages.routing import Page

PAGES: tuple[Page, ...] = (*entry.PAGES, *account.PAGES, *people.PAGES, *audit.PAGES, *enterprises.PAGES)
