"""What goes by age, as each enterprise sets it (`retention` in its document). What the daemon keeps at most stands in daemon/app.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import structlog

from daemon.store.pool import Database
from daemon.tenants.service import Tenancy

AT_ONCE = 2_000  # rows of a kind in one transaction: what works beside it waits for no more
ROUNDS = 50  # the rest goes with the next hour
REMOVED_DAYS = 365  # calls and tickets of enterprises that are gone, for their documents cannot say it

log = structlog.get_logger()


async def keep_enterprises(db: Database, enterprises: Mapping[str, Tenancy]) -> Counter[str]:
    """Deletes what is past its time, of every enterprise; gives how much of what."""
    gone: Counter[str] = Counter()
    for number, tenancy in list(enterprises.items()):
        kept = tenancy.enterprise.retention
        days = (kept.calls_days, kept.tickets_days, kept.deliveries_days, kept.logs_days, kept.traces_days)
        if any(days):
            gone += await _keep(db, number, days)
    for _ in range(ROUNDS):
        rows = await db.fetch("select * from keep_removed($1, $2)", REMOVED_DAYS, AT_ONCE)
        gone.update({f"{row['what']} of removed enterprises": row["gone"] for row in rows})
        if all(row["gone"] < AT_ONCE for row in rows):
            break
    if gone := +gone:
        log.info("past their time", **{what.replace(" ", "_"): count for what, count in gone.items()})
    return gone


async def _keep(db: Database, enterprise: str, days: tuple[int | None, ...]) -> Counter[str]:
    gone: Counter[str] = Counter()
    for _ in range(ROUNDS):
        rows = await db.fetch("select * from keep_enterprise($1, $2, $3, $4, $5, $6, $7)", enterprise, *days, AT_ONCE)
        gone.update({row["what"]: row["gone"] for row in rows})
        if all(row["gone"] < AT_ONCE for row in rows if row["what"] != "traces"):
            break
    return gone
