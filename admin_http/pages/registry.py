"""All pages: one line per part."""

from __future__ import annotations

from admin_http.pages import (
    account,
    audit,
    bitrix24_sync,
    cabinet,
    calls,
    consent,
    crm_lines,
    deliveries,
    enterprises,
    entry,
    integrations,
    live,
    missed,
    pbx,
    people,
    records,
    reports,
    rules,
    settings,
    status,
    tickets,
)  # fmt: skip
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
    *tickets.PAGES,
    *crm_lines.PAGES,
    *records.PAGES,
    *deliveries.PAGES,
    *reports.PAGES,
    *status.PAGES,
    *pbx.PAGES,
    *settings.PAGES,
    *bitrix24_sync.PAGES,
    *integrations.PAGES,
    *rules.PAGES,
    *cabinet.PAGES,
    *consent.PAGES,
)
