"""The report as docs/promises.md shows it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.chaos.rows import Row

HEAD = (
    "| row | fault | tried | survived | calls | unseen | lost | doubled | out of order | |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
)


def table(rows: Sequence[Row]) -> str:
    """Markdown, a line per row."""
    return "\n".join([HEAD, *(_line(row) for row in rows)])


def _line(row: Row) -> str:
    found = row.account
    cells = (row.name, row.fault, row.tried, row.survived, found.made, found.unseen, found.lost, found.doubled, found.disordered, "; ".join(row.notes))
    return "| " + " | ".join(" ".join(str(cell).replace("|", "/").split()) for cell in cells) + " |"
