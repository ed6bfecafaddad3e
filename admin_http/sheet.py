"""Calls as a table for spreadsheets. Pure.

UTF-8 with a byte order mark and semicolons: what Excel opens by a double click where the comma is the decimal sign, as in all of
Russian-speaking countries, and LibreOffice everywhere. Times are the enterprise's local ones. A text that a spreadsheet would take for a
formula gets an apostrophe before it; telephone numbers with their plus do too, or they would be shown as 3,75E+11.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

BOM = "\ufeff"
COLUMNS = (
    "started_at", "direction", "result", "missed", "customer_number", "customer_name", "line", "queue", "rang", "answered_by", "last_talked", "initiator",
    "wait_seconds", "talk_seconds", "answered_at", "ended_at", "transfers", "recordings", "click_to_call", "gap", "pbx", "id",
)  # fmt: skip
_TIMES = frozenset({"started_at", "answered_at", "ended_at"})
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def heading(titles: Mapping[str, str] | None = None) -> str:
    """The first line, with the byte order mark; `titles` by column, else the API's names."""
    return BOM + _line([(titles or {}).get(column, column) for column in COLUMNS])


def rows(calls: Sequence[Mapping[str, Any]], zone: str, words: Mapping[str, str] | None = None) -> str:
    """Lines of calls; `words` translates directions, results, true and false."""
    local = ZoneInfo(zone)
    return "".join(_line([_cell(call, column, local, words or {}) for column in COLUMNS]) for call in calls)


def _cell(call: Mapping[str, Any], column: str, local: ZoneInfo, words: Mapping[str, str]) -> str:
    value = call[column]
    if value is None:
        return ""
    if column in _TIMES:
        return datetime.fromisoformat(value).astimezone(local).strftime("%Y-%m-%d %H:%M:%S")
    if column == "transfers":
        return ", ".join(f"{t['kind']} {t['from'] or '?'} → {t['to'] or '?'}" for t in value)
    if isinstance(value, bool):
        return words.get(str(value).lower(), "yes" if value else "")
    if isinstance(value, float):
        return str(round(value))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return words.get(value, value) if column in ("direction", "result") else str(value)


def harmless(text: str) -> str:
    """The text, with an apostrophe before it when a spreadsheet would compute it."""
    return "'" + text if text.startswith(_FORMULA) else text


def _line(cells: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=";", lineterminator="\r\n").writerow([harmless(cell.replace("\0", "")) for cell in cells])
    return out.getvalue()
