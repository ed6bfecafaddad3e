"""Enterprises at a glance: what their rows in a list show."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from daemon.store.pool import Database


@dataclass(frozen=True, slots=True)
class Glance:
    """The last 24 hours. `open_missed`: missed calls that nobody answered since, whenever; 1,000 stands for that many or more. `dead`:
    deliveries given up, whenever; `connections`: state and reason by integration."""

    calls: int = 0
    missed: int = 0
    open_missed: int = 0
    dead: int = 0
    connections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


async def glance(db: Database, enterprises: Collection[str]) -> Mapping[str, Glance]:
    """By number, in one statement."""
    rows = await db.fetch("select * from glance($1)", list(enterprises))
    return {row["enterprise_number"]: Glance(row["calls"], row["missed"], row["open_missed"], row["dead"], row["connections"]) for row in rows}


async def troubled(db: Database) -> frozenset[str]:
    """The enterprises with dead letters or a connection that is not well."""
    return frozenset(row[0] for row in await db.fetch("select troubled()"))
