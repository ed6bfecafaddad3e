"""The report as docs/promises.md shows it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.chaos.rows import Row

BEGIN, END = "<!-- chaos -->", "<!-- /chaos -->"
HEAD = (
    "| row | fault | tried | survived | calls | unseen | lost | doubled | out of order | |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
)


def table(rows: Sequence[Row]) -> str:
    """Markdown, a line per row."""
    return "\n".join([HEAD, *(_line(row) for row in rows)])


def written_into(text: str, rows: Sequence[Row], order: Sequence[str]) -> str:
    """A document with these rows in its table, which stands between its two marks; rows that were not run stay as they were."""
    before, _, rest = text.partition(BEGIN)
    former, _, after = rest.partition(END)
    lines = {line.split("|")[1].strip(): line for line in former.splitlines() if line.startswith("| F")}
    lines |= {row.name: _line(row) for row in rows}
    return f"{before}{BEGIN}\n{HEAD}\n" + "".join(f"{lines[name]}\n" for name in order if name in lines) + END + after


def _line(row: Row) -> str:
    found = row.account
    cells = (row.name, row.fault, row.tried, row.survived, found.made, found.unseen, found.lost, found.doubled, found.disordered, "; ".join(row.notes))
    return "| " + " | ".join(" ".join(str(cell).replace("|", "/").split()) for cell in cells) + " |"
