"""Enterprises at a glance: what their rows in a list show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from daemon.store.pool import Database


@dataclass(frozen=True, slots=True)
class Glance:
    """The last 24 hours. `dead`: deliveries given up, whenever; `connections`: state and reason by integration."""

    calls: int = 0
    missed: int = 0
    dead: int = 0
    connections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


async def glance(db: Database, enterprise: str | None) -> Mapping[str, Glance]:
    """By number: one enterprise, or with None all of them, in one statement."""
    rows = await db.fetch("select * from glance($1)", enterprise)
    return {row["enterprise_number"]: Glance(row["calls"], row["missed"], row["dead"], row["connections"]) for row in rows}
